import unicodedata
import unittest

from permalink import Archive, slugify

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


class SlugTest(unittest.TestCase):
    def check(self, title, slug):
        for form in FORMS:
            self.assertEqual(slugify(unicodedata.normalize(form, title)), slug, f"{title!a} as {form}")
        self.assertEqual(slugify(title), slug)

    def test_composed_and_decomposed_accents(self):
        self.check("Cr\u00e8me br\u00fbl\u00e9e", "creme-brulee")

    def test_letters_that_the_table_does_not_list(self):
        self.check("Ti\u1ebfng Vi\u1ec7t", "tieng-viet")
        self.check("\u01d6ber \u010cesko", "uber-cesko")

    def test_accent_without_a_composed_form(self):
        self.check("x\u0302 marks", "x-marks")
        self.check("a\u0328\u0301\u0323", "a")

    def test_compatibility_forms(self):
        self.check("\ufb01nale", "finale")
        self.check("\uff21\uff50\uff50\uff4c\uff45 \uff12", "apple-2")

    def test_capital_i_with_dot(self):
        self.check("\u0130stanbul", "istanbul")

    def test_dotless_i(self):
        self.check("D\u0131\u015f", "dis")

    def test_table_letters(self):
        self.check("Stra\u00dfe", "strasse")
        self.check("\u0141\u00f3d\u017a", "lodz")
        self.check("\u00c6r\u00f8 \u00deing", "aero-thing")

    def test_capital_sharp_s(self):
        self.assertEqual(slugify("STRA\u1e9eE"), "strasse")

    def test_table_letters_with_an_accent_on_top(self):
        self.check("\u01fcon", "aeon")
        self.check("\u01ff \u01fe", "o-o")

    def test_apostrophes(self):
        for apostrophe in "'\u2019\u02bc":
            self.check(f"Don{apostrophe}t panic", "dont-panic")

    def test_capital_table_letter_decomposed_from_compatibility(self):
        self.check("\uff34\u00c9l\u00e9phone \u2167", "telephone-viii")

    def test_separators_collapse(self):
        self.check("  --Hello,   world!-- ", "hello-world")

    def test_other_scripts(self):
        self.check("\u65e5\u672c", "untitled")
        self.check("", "untitled")
        self.check("\u65e5\u672c 2", "2")

    def test_cut_at_max_length(self):
        self.assertEqual(slugify("one two three", max_length=8), "one-two")
        self.assertEqual(slugify("one two three", max_length=7), "one-two")
        self.assertEqual(slugify("e\u0301" * 10, max_length=4), "eeee")


class ArchiveTest(unittest.TestCase):
    def test_equivalent_title_is_the_same_article(self):
        archive = Archive()
        self.assertEqual(archive.add("Caf\u00e9"), "cafe")
        self.assertEqual(archive.add("Cafe\u0301"), "cafe")
        self.assertEqual(archive.find("cafe"), "Caf\u00e9")

    def test_decomposed_first(self):
        archive = Archive()
        self.assertEqual([archive.add("Cafe\u0301"), archive.add("Caf\u00e9")], ["cafe", "cafe"])
        self.assertEqual(archive.find("cafe"), "Cafe\u0301")

    def test_different_titles_are_numbered(self):
        archive = Archive()
        self.assertEqual(
            [archive.add(t) for t in ("Caf\u00e9", "Cafe", "caf\u00ea", "Cafe")], ["cafe", "cafe-2", "cafe-3", "cafe-2"]
        )
        self.assertEqual(archive.find("cafe-2"), "Cafe")
