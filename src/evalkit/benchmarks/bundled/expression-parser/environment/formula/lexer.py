"""From text to tokens."""

import re
from typing import NamedTuple

from .errors import FormulaError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol><>|<=|>=|[-+*/^%(),=<>]))"
)


class Token(NamedTuple):
    kind: str  # number, name, end, or the symbol itself
    text: str
    position: int


def tokens(text):
    """All tokens of *text*, the last one of kind `end`."""
    found = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:]
            raise FormulaError("unexpected character", position + len(rest) - len(rest.lstrip()))
        kind = match.lastgroup
        word = match[kind]
        found.append(Token(word if kind == "symbol" else kind, word, match.start(kind)))
        position = match.end()
    found.append(Token("end", "", len(text)))
    return found
