"""Which of the published versions to offer."""

import operator
import re

from .version import Version

_OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def newest(texts, allow_prerelease=False, matching=""):
    """The newest of the versions in *texts* for which all conditions hold, or None."""
    conditions = [_condition(part) for part in matching.split(",") if part.strip()]
    best = None
    for text in texts:
        version = Version(text)
        if not all(compare(version, bound) for compare, bound in conditions):
            continue
        if best is None or version >= best:
            best = version
    return str(best) if best else None


def _condition(text):
    symbol, version = re.fullmatch(r"([^0-9A-Za-z]*)(.*)", text.strip()).groups()
    if symbol.strip() not in _OPERATORS:
        raise ValueError(f"unknown operator in {text.strip()!r}")
    return _OPERATORS[symbol.strip()], Version(version)
