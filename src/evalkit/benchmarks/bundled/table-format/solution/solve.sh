#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace tabular/fit.py 29 31 <<'END'
        while width(word) > columns:
            start, word = split_at(word, columns)
            lines.append(start)
END

replace tabular/fit.py 24 24 <<'END'
        if line and width(line) + 1 + width(word) <= columns:
END

replace tabular/fit.py 16 16 <<'END'
    missing = max(0, columns - width(text))
    left = {"<": 0, ">": missing, "^": missing // 2}[align]
    return " " * left + text + " " * (missing - left)
END

replace tabular/fit.py 9 11 <<'END'
    if width(text) <= columns:
        return text
    return split_at(text, columns - 1)[0] + ELLIPSIS
END

replace tabular/fit.py 2 2 <<'END'

from .width import split_at, width

END

replace tabular/table.py 15 15 <<'END'
        max([width(header)] + [width(line) for row in cells for line in row[number]])
END

replace tabular/table.py 5 5 <<'END'
from .fit import clip, pad, wrap
from .width import width
END

cat >tabular/width.py <<'END'
"""How much room a text takes."""

import unicodedata


def width(text):
    """The columns that *text* takes in a terminal."""
    return sum(map(_columns, text))


def split_at(text, columns):
    """*text* in two parts, the first as long as possible within so many columns."""
    used = 0
    for position, character in enumerate(text):
        used += _columns(character)
        if used > columns:
            return text[:position], text[position:]
    return text, ""


def _columns(character):
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
END
