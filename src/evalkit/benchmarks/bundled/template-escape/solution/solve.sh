#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace quill/engine.py 44 44 <<'END'
        text = "".join(output)
        return Markup(text) if escaping else text
END

replace quill/engine.py 39 39 <<'END'
            self._parsed[name] = parse(self._load(name))
END

replace quill/engine.py 20 20 <<'END'
        text = self.environment.render_in(name, self.values, self.escaping)
        return escape(text) if self.escaping else text
END

replace quill/engine.py 2 2 <<'END'

from .markup import Markup, escape
END

cat >quill/filters.py <<'END'
"""What can stand behind a `|`.

Each filter takes the value, whether it is in markup, and, some of them, an argument.
"""

from .markup import Markup, escape, plain


def upper(value, escaping):
    return plain(value).upper()


def default(value, escaping, replacement):
    return replacement if value is None or value == "" else value


def truncate(value, escaping, length):
    text = plain(value)
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def join(value, escaping, separator=""):
    if escaping:
        return escape(separator).join(value)
    return str(separator).join(str(item) for item in value)


def linebreaks(value, escaping):
    return Markup(str(escape(value)).replace("\n", "<br>\n")) if escaping else value


def safe(value, escaping):
    return Markup(value)


def escaped(value, escaping):
    return escape(value) if escaping else value


FILTERS = {
    "upper": upper,
    "default": default,
    "truncate": truncate,
    "join": join,
    "linebreaks": linebreaks,
    "safe": safe,
    "escape": escaped,
}
END

replace quill/markup.py 19 21 <<'END'
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return Markup(text)


def plain(value):
    """*value* as the text that a reader sees."""
    return html.unescape(str(value)) if isinstance(value, Markup) else str(value)
END

replace quill/markup.py 8 8 <<'END'
        return Markup(str(self) + str(escape(other)))

    def __radd__(self, other):
        return Markup(str(escape(other)) + str(self))

    def join(self, items):
        return Markup(str(self).join(str(escape(item)) for item in items))
END

replace quill/markup.py 2 2 <<'END'

import html

END

replace quill/nodes.py 52 52 <<'END'
            output.append(escape(value) if context.escaping else str(value))
END

replace quill/nodes.py 46 47 <<'END'
    expression: Expression
END

replace quill/nodes.py 29 29 <<'END'
            value = FILTERS[name](value, context.escaping, *[_evaluate(argument, context) for argument in arguments])
END

replace quill/parser.py 34 34 <<'END'
                nodes.append(Output(_expression(part[2:-2])))
END

replace quill/parser.py 25 27 <<'END'
    def __init__(self, parts):
        self._parts = iter(parts)
END

replace quill/parser.py 15 17 <<'END'
def parse(source):
    """The nodes of a template."""
    parser = _Parser(_TAG.split(source))
END
