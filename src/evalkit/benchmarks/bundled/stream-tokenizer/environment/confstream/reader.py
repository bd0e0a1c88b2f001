"""From tokens to settings."""

from .errors import SettingsError
from .tokenizer import Token, Tokenizer

_WORDS = {"true": True, "false": False, "none": None}


def load(chunks):
    """The settings in some *chunks* of bytes, as a dictionary.

    `name = value;` is a setting and `name { ... }` a group of them. Values are numbers, strings, `true`, `false`,
    `none` and lists such as `[1, 2]`.
    """
    reader = _Reader(chunks)
    return reader.group(closed_by="end")


def _stream(chunks):
    tokenizer = Tokenizer()
    last = Token("end", None, 1, 1)
    for chunk in chunks:
        for last in tokenizer.feed(chunk):
            yield last
    for last in tokenizer.close():
        yield last
    while True:
        yield Token("end", None, last.line, last.column)


class _Reader:
    def __init__(self, chunks):
        self._tokens = _stream(chunks)

    def group(self, closed_by):
        settings = {}
        while True:
            token = next(self._tokens)
            if closed_by in (token.kind, token.value):
                return settings
            if token.kind != "name":
                self.fail(token, "expected a name")
            if token.value in settings:
                self.fail(token, f"{token.value} is there already")
            sign = next(self._tokens)
            if sign.kind == "op" and sign.value == "{":
                settings[token.value] = self.group(closed_by="}")
            elif sign.kind == "op" and sign.value == "=":
                settings[token.value] = self.value(next(self._tokens))
                self.expect(";")
            else:
                self.fail(sign, "expected '=' or '{'")

    def value(self, token):
        if token.kind in ("number", "string"):
            return token.value
        if token.kind == "name" and token.value in _WORDS:
            return _WORDS[token.value]
        if token.kind == "op" and token.value == "[":
            return self.items()
        return self.fail(token, "expected a value")

    def items(self):
        items = []
        token = next(self._tokens)
        while not (token.kind == "op" and token.value == "]"):
            items.append(self.value(token))
            token = next(self._tokens)
            if token.kind == "op" and token.value == ",":
                token = next(self._tokens)
            elif not (token.kind == "op" and token.value == "]"):
                self.fail(token, "expected ',' or ']'")
        return items

    def expect(self, text):
        token = next(self._tokens)
        if token.kind != "op" or token.value != text:
            self.fail(token, f"expected {text!r}")

    def fail(self, token, message):
        raise SettingsError(message, token.line, token.column)
