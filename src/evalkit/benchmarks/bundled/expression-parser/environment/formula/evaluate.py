"""The value of a tree."""

import operator

from .parser import parse
from .tree import Binary, Call, Name, Negative, Number, Percent

_OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FUNCTIONS = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": lambda number, places=0: round(number, int(places)),
    "if": lambda condition, yes, no: yes if condition else no,
}


def calculate(text, names=None):
    """The value of a formula."""
    return evaluate(parse(text), names)


def evaluate(tree, names=None):
    """The value of a tree, with the values of the *names* in it."""
    if isinstance(tree, Number):
        return tree.value
    if isinstance(tree, Name):
        return (names or {})[tree.name]
    if isinstance(tree, Percent):
        return evaluate(tree.operand, names) / 100
    if isinstance(tree, Negative):
        return -evaluate(tree.operand, names)
    if isinstance(tree, Call):
        return _FUNCTIONS[tree.function](*[evaluate(argument, names) for argument in tree.arguments])
    if isinstance(tree, Binary):
        return _OPERATORS[tree.operator](evaluate(tree.left, names), evaluate(tree.right, names))
    raise TypeError(f"not a tree: {tree!r}")
