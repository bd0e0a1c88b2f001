"""From characters to tokens."""

import re
from typing import Any, NamedTuple

from .decoding import Decoder
from .errors import SettingsError
from .position import Position
from .strings import unquote

_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\r\n]+ | \#[^\r\n]* )
    | (?P<name>    [A-Za-z_][A-Za-z0-9_-]* )
    | (?P<number>  -?[0-9]+(?:\.[0-9]+)? )
    | (?P<string>  "(?:[^"\\\r\n]|\\.)*" )
    | (?P<op>      == | != | <= | >= | -> | [=<>{}\[\];,] )
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A word of the settings."""

    kind: str
    value: Any
    line: int
    column: int


class Tokenizer:
    """Turns bytes that come in pieces into tokens."""

    def __init__(self):
        self._decoder = Decoder()
        self._position = Position()
        self._text = ""

    def feed(self, data):
        """Take the next bytes; the tokens that are known now."""
        self._text += self._decoder.decode(data)
        return self._tokens()

    def close(self):
        """There is no more; the tokens that are left."""
        self._text += self._decoder.decode(b"", final=True)
        tokens = self._tokens()
        if self._text:
            if self._text[0] == '"':
                self._fail("unfinished string")
            self._fail(f"unexpected character {self._text[0]!r}")
        return tokens

    def _tokens(self):
        tokens = []
        while self._text:
            match = _TOKEN.match(self._text)
            if match is None:
                break
            if match.lastgroup != "space":
                value = _value(match, self._position)
                tokens.append(Token(match.lastgroup, value, self._position.line, self._position.column))
            self._position.advance(match[0])
            self._text = self._text[match.end() :]
        return tokens

    def _fail(self, message):
        raise SettingsError(message, self._position.line, self._position.column)


def _value(match, position):
    text = match[0]
    if match.lastgroup == "number":
        return float(text) if "." in text else int(text)
    if match.lastgroup == "string":
        return unquote(text, position.line, position.column)
    return text
