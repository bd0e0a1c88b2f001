"""Values that become texts in JSON."""

import base64
import enum
from datetime import date, datetime
from decimal import Decimal

PLAIN = {str: "a text", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}


def is_plain(value, tp):
    """Whether *value*, as it is in JSON, is of the type *tp*."""
    if tp is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, tp) and (tp is bool or not isinstance(value, bool))


def is_scalar(tp):
    """Whether *tp* is written as a text."""
    return tp in (Decimal, date, datetime, bytes) or isinstance(tp, enum.EnumMeta)


def to_text(value):
    """A scalar as a text."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Decimal):
        return f"{float(value):g}"
    return value.isoformat()


def from_text(tp, text):
    """The scalar of the type *tp* that *text* means; ValueError if it means none."""
    if issubclass(tp, enum.Enum):
        if text not in tp.__members__:
            raise ValueError(f"no member of {tp.__name__}: {text!r}")
        return tp[text]
    if tp is bytes:
        return base64.b64decode(text, validate=True)
    if tp is Decimal:
        return Decimal(text)
    return tp.fromisoformat(text)
