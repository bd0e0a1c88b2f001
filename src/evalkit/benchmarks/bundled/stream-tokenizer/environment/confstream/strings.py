"""Strings in quotes."""

import re

from .errors import SettingsError

_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\nt]))')
_MEANING = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}


def unquote(text, line, column):
    """What the string *text*, which begins at that position, means."""
    parts = []
    position = 1
    while position < len(text) - 1:
        if text[position] != "\\":
            parts.append(text[position])
            position += 1
            continue
        escape = _ESCAPE.match(text, position)
        if escape is None:
            raise SettingsError("bad escape", line, column + position)
        parts.append(chr(int(escape[1], 16)) if escape[1] else _MEANING[escape[2]])
        position = escape.end()
    return "".join(parts)
