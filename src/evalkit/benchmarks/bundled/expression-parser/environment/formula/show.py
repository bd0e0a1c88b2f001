"""From a tree back to text."""

from decimal import Decimal

from .tree import Binary, Call, Name, Negative, Number, Percent

_COMPARISON, _SUM, _PRODUCT, _POWER, _SIGNED, _PERCENTAGE, _ATOM = range(7)
_LEVELS = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "^": _POWER}


def show(tree):
    """The text of *tree*, with the parentheses that it needs."""
    return _text(tree, _COMPARISON)


def _text(tree, lowest):
    """The text of *tree* where the grammar wants something of the level *lowest* or a higher one."""
    level, text = _level_and_text(tree)
    return f"({text})" if level < lowest else text


def _level_and_text(tree):
    if isinstance(tree, Number):
        return _ATOM, _number(tree.value)
    if isinstance(tree, Name):
        return _ATOM, tree.name
    if isinstance(tree, Call):
        return _ATOM, f"{tree.function}({', '.join(show(argument) for argument in tree.arguments)})"
    if isinstance(tree, Percent):
        return _PERCENTAGE, _text(tree.operand, _PERCENTAGE) + "%"
    if isinstance(tree, Negative):
        return _SIGNED, "-" + _text(tree.operand, _SIGNED)
    if not isinstance(tree, Binary):
        raise TypeError(f"not a tree: {tree!r}")
    level = _LEVELS.get(tree.operator, _COMPARISON)
    if tree.operator == "^":
        return level, f"{_text(tree.left, level)}^{_text(tree.right, level + 1)}"
    right = level + 1 if level == _COMPARISON else level
    return level, f"{_text(tree.left, level + 1)} {tree.operator} {_text(tree.right, right)}"


def _number(value):
    """The shortest digits that mean *value*, without an exponent."""
    digits = f"{Decimal(repr(value)):f}"
    return digits[:-2] if digits.endswith(".0") else digits
