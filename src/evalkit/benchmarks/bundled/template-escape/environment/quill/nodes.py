"""What a template consists of. Each node writes its output to a list of texts."""

from typing import Any, List, NamedTuple

from .filters import FILTERS
from .markup import escape


def look_up(name, values):
    """The value of a name such as `user.name`; None where there is none."""
    value = values
    for part in name.split("."):
        try:
            value = value[part]
        except (KeyError, TypeError, IndexError):
            value = getattr(value, part, None)
    return value


class Expression(NamedTuple):
    """A value and the filters that it goes through."""

    start: Any
    filters: List[Any]

    def evaluate(self, context):
        value = _evaluate(self.start, context)
        for name, arguments in self.filters:
            value = FILTERS[name](value, *[_evaluate(argument, context) for argument in arguments])
        return value


def _evaluate(operand, context):
    kind, value = operand
    return value if kind == "constant" else look_up(value, context.values)


class Text(NamedTuple):
    text: str

    def write(self, context, output):
        output.append(self.text)


class Output(NamedTuple):
    expression: Expression
    escaping: bool

    def write(self, context, output):
        value = self.expression.evaluate(context)
        if value is not None:
            output.append(escape(value) if self.escaping else str(value))


class If(NamedTuple):
    condition: Expression
    body: List[Any]
    otherwise: List[Any]

    def write(self, context, output):
        for node in self.body if self.condition.evaluate(context) else self.otherwise:
            node.write(context, output)


class For(NamedTuple):
    name: str
    expression: Expression
    body: List[Any]

    def write(self, context, output):
        for value in self.expression.evaluate(context) or ():
            inner = context.with_value(self.name, value)
            for node in self.body:
                node.write(inner, output)


class Include(NamedTuple):
    name: Expression

    def write(self, context, output):
        output.append(context.include(self.name.evaluate(context)))
