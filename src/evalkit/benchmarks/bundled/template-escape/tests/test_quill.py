import unittest
from collections import Counter

from quill import Environment, Markup, TemplateError, escape

NAME = "Tom & <b>Jerry</b>"
ESCAPED = "Tom &amp; &lt;b&gt;Jerry&lt;/b&gt;"


class RenderTest(unittest.TestCase):
    templates = {
        "address.part": "{{ who }}!",
        "page.html": '<p>{% include "address.part" %}</p>',
        "mail.txt": 'To: {% include "address.part" %}',
        "notice.txt": "Prices < 5 & > 2, {{ who }}",
        "notices.html": '<pre>{% include "notice.txt" %}</pre>',
        "both.txt": '<{% include "page.html" %}> & {% include "address.part" %}',
        "deep.html": '{% include "both.txt" %}|{% include "address.part" %}',
        "deep.part": '{% include "address.part" %}{% include "mail.txt" %}{% include "page.html" %}',
        "list.html": '{% for who in names %}<li>{% include "address.part" %}</li>{% end %}',
        "list.txt": '{% for who in names %}{% include "address.part" %}{% end %}',
        "tree.part": '({{ node.name }}{% for node in node.children %}{% include "tree.part" %}{% end %})',
    }

    def setUp(self):
        self.loads = Counter()
        self.environment = Environment(self.load)

    def load(self, name):
        self.loads[name] += 1
        return self.templates[name]

    def check(self, name, expected, **values):
        text = self.environment.render(name, **values)
        self.assertEqual(text, expected)

    def test_mail_first(self):
        self.check("mail.txt", f"To: {NAME}!", who=NAME)
        self.check("page.html", f"<p>{ESCAPED}!</p>", who=NAME)
        self.check("mail.txt", f"To: {NAME}!", who=NAME)

    def test_parsed_once(self):
        for _ in range(3):
            for name in ("mail.txt", "page.html", "address.part", "deep.html"):
                self.environment.render(name, who=NAME)
        self.assertEqual(set(self.loads.values()), {1})

    def test_plain_in_markup(self):
        self.check("notices.html", f"<pre>Prices &lt; 5 &amp; &gt; 2, {ESCAPED}</pre>", who=NAME)

    def test_markup_in_plain(self):
        self.check("both.txt", f"<<p>{ESCAPED}!</p>> & {NAME}!", who=NAME)

    def test_markup_in_plain_in_markup(self):
        inner = escape(f"<<p>{ESCAPED}!</p>> & {NAME}!")
        self.check("deep.html", f"{inner}|{ESCAPED}!", who=NAME)

    def test_partial_that_includes(self):
        self.check("deep.part", f"{ESCAPED}!To: {ESCAPED}!<p>{ESCAPED}!</p>", who=NAME)

    def test_variables_of_the_place_of_inclusion(self):
        self.check("list.html", "<li>&lt;!</li><li>b!</li>", names=["<", "b"])
        self.check("list.txt", "<!b!", names=["<", "b"])

    def test_missing_value_in_both_modes(self):
        self.check("page.html", "<p>!</p>")
        self.check("mail.txt", "To: !")


class OutputTest(unittest.TestCase):
    def render(self, source, kind="html", **values):
        return Environment({f"t.{kind}": source}.__getitem__).render(f"t.{kind}", **values)

    def check(self, source, markup, plain, **values):
        self.assertEqual((self.render(source, **values), self.render(source, "txt", **values)), (markup, plain))

    def test_expressions(self):
        self.check("<i>{{ x }}</i>", f"<i>{ESCAPED}</i>", f"<i>{NAME}</i>", x=NAME)
        self.check("{{ x }}", "<b>&amp;</b>", "<b>&amp;</b>", x=Markup("<b>&amp;</b>"))
        self.check('{{ "<b>" }} {{ 5 }}', "&lt;b&gt; 5", "<b> 5")
        self.check("{{ x }}", "[&#39;&lt;&#39;]", "['<']", x=["<"])

    def test_quotes(self):
        self.check(
            "<input value='{{ x }}' name=\"{{ x }}\">",
            "<input value='&#39;&quot;' name=\"&#39;&quot;\">",
            "<input value=''\"' name=\"'\"\">",
            x="'\"",
        )

    def test_tags(self):
        self.check("{% if x %}{{ x }}{% else %}-{% end %}{# <c> #}", "&lt;", "<", x="<")
        self.check("{% for p in ps %}{{ p.n }},{% end %}", "&lt;,&amp;,", "<,&,", ps=[{"n": "<"}, {"n": "&"}])

    def test_case_filters(self):
        self.check("{{ x | upper }}", "&lt;A&gt;", "<A>", x="<a>")
        self.check("{{ x | upper }}", "&lt;A&gt;", "<A>", x=Markup("&lt;a&gt;"))
        self.check("{{ x | upper }}", "NONE", "NONE", x="none")

    def test_truncate_counts_what_is_seen(self):
        self.check("{{ x | truncate:4 }}", "&lt;&amp;a\u2026", "<&a\u2026", x="<&a&b")
        self.check("{{ x | truncate:3 }}", "&lt;a&gt;", "<a>", x=Markup("&lt;a&gt;"))
        self.check("{{ x | truncate:2 }}", "&lt;\u2026", "<\u2026", x=Markup("&lt;a&gt;"))

    def test_default(self):
        self.check('{{ x | default:"<none>" }}', "&lt;none&gt;", "<none>", x="")
        self.check('{{ y | default:"<none>" }}', "&lt;none&gt;", "<none>")
        self.check('{{ x | default:"-" }}', "<b>0</b>", "<b>0</b>", x=Markup("<b>0</b>"))
        self.check('{{ x | default:"-" }}', "0", "0", x=0)
        self.check("{{ x | default:y }}", "<hr>", "<hr>", y=Markup("<hr>"))

    def test_join(self):
        self.check('{{ x | join:" & " }}', "&lt; &amp; b", "< & b", x=["<", "b"])
        self.check(
            "{{ x | join:s }}", "&lt;<br>b<br><i>", "<<br>b<br><i>", x=["<", "b", Markup("<i>")], s=Markup("<br>")
        )
        self.check("{{ x | join }}", "1&amp;", "1&", x=[1, "&"])
        self.check('{{ x | join:"-" | upper }}', "&lt;-B", "<-B", x=["<", "b"])

    def test_linebreaks(self):
        self.check("{{ x | linebreaks }}", "&lt;<br>\n&amp;", "<\n&", x="<\n&")
        self.check("{{ x | linebreaks }}", "<i><br>\n</i>", "<i>\n</i>", x=Markup("<i>\n</i>"))
        self.check("{{ x | escape | linebreaks }}", "&lt;<br>\n&amp;", "<\n&", x="<\n&")

    def test_safe_and_escape(self):
        self.check("{{ x | safe }}", "<b>", "<b>", x="<b>")
        self.check("{{ x | escape }}", "&lt;b&gt;", "<b>", x="<b>")
        self.check("{{ x | escape | escape }}", "&lt;b&gt;", "<b>", x="<b>")
        self.check("{{ x | safe | upper }}", "&lt;B&gt;", "<B>", x="<b>")

    def test_errors(self):
        for source in ("{% if x %}", "{% end %}", "{% fly %}", "{{ | upper }}", "{{ x | }}", "{% for x %}{% end %}"):
            with self.assertRaises(TemplateError, msg=source):
                self.render(source)


class MarkupTest(unittest.TestCase):
    def check(self, value, text):
        self.assertIs(type(value), Markup)
        self.assertEqual(str(value), text)

    def test_escape(self):
        self.check(escape("<a href=\"x\">'&'"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;")
        self.check(escape(Markup("<b>")), "<b>")
        self.check(escape(5), "5")

    def test_plus(self):
        self.check(Markup("<p>") + "<" + Markup("</p>"), "<p>&lt;</p>")
        self.check("<" + Markup("<br>"), "&lt;<br>")
        text = Markup("<p>")
        text += "&"
        self.check(text, "<p>&amp;")

    def test_join(self):
        self.check(Markup("<br>").join(["<", Markup("<i>"), 3]), "&lt;<br><i><br>3")
        self.check(Markup("-").join([]), "")
