"""From source to nodes."""

import re

from .nodes import Expression, For, If, Include, Output, Text

_TAG = re.compile(r"({{.*?}}|{%.*?%}|{#.*?#})", re.DOTALL)
_PIECE = re.compile(r'\s*(?:"([^"]*)"|([A-Za-z_][\w.]*)|([0-9]+)|(\S))')


class TemplateError(Exception):
    """A template that cannot be understood."""


def parse(source, escaping):
    """The nodes of a template."""
    parser = _Parser(_TAG.split(source), escaping)
    nodes, closed_by = parser.nodes()
    if closed_by is not None:
        raise TemplateError(f"unexpected {closed_by}")
    return nodes


class _Parser:
    def __init__(self, parts, escaping):
        self._parts = iter(parts)
        self._escaping = escaping

    def nodes(self):
        """The nodes up to an `end` or `else`, and which of them it was."""
        nodes = []
        for part in self._parts:
            if part.startswith("{{"):
                nodes.append(Output(_expression(part[2:-2]), self._escaping))
            elif part.startswith("{%"):
                words = part[2:-2].split(None, 1)
                if words[0] in ("end", "else"):
                    return nodes, words[0]
                nodes.append(self.tag(words[0], words[1] if len(words) > 1 else ""))
            elif part and not part.startswith("{#"):
                nodes.append(Text(part))
        return nodes, None

    def tag(self, name, rest):
        if name == "include":
            return Include(_expression(rest))
        if name == "if":
            body, closed_by = self.nodes()
            otherwise = []
            if closed_by == "else":
                otherwise, closed_by = self.nodes()
            self.check_end(name, closed_by)
            return If(_expression(rest), body, otherwise)
        if name == "for":
            match = re.fullmatch(r"(\w+)\s+in\s+(.*)", rest.strip(), re.DOTALL)
            if match is None:
                raise TemplateError(f"cannot understand: for {rest}")
            body, closed_by = self.nodes()
            self.check_end(name, closed_by)
            return For(match[1], _expression(match[2]), body)
        raise TemplateError(f"unknown tag: {name}")

    def check_end(self, name, closed_by):
        if closed_by != "end":
            raise TemplateError(f"{name} without end")


def _expression(text):
    pieces = [match.groups() for match in _PIECE.finditer(text.strip())]
    symbols = [symbol for _, _, _, symbol in pieces]
    values = [_value(piece) for piece in pieces]
    if not pieces or symbols[0]:
        raise TemplateError(f"cannot understand: {text}")
    filters, position = [], 1
    while position < len(pieces):
        if symbols[position] != "|" or position + 1 == len(pieces) or not pieces[position + 1][1]:
            raise TemplateError(f"cannot understand: {text}")
        name, arguments = pieces[position + 1][1], []
        position += 2
        if position + 1 < len(pieces) and symbols[position] == ":" and not symbols[position + 1]:
            arguments.append(values[position + 1])
            position += 2
        filters.append((name, arguments))
    return Expression(values[0], filters)


def _value(piece):
    text, name, number, _ = piece
    if name is not None:
        return ("name", name)
    return ("constant", int(number) if number is not None else text)
