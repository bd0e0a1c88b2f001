"""From dataclasses to what JSON can hold."""

import json
from typing import get_args, get_origin

from .scalars import is_scalar, to_text
from .schema import fields_of, is_record, optional


def dump(value):
    """A dataclass instance as a dictionary."""
    if not is_record(type(value)):
        raise TypeError(f"not a dataclass: {value!r}")
    return _dump(type(value), value)


def _dump(tp, value):
    inner = optional(tp)
    if inner is not None:
        return None if value is None else _dump(inner, value)
    if is_record(tp):
        return {field.name: _dump(field.type, getattr(value, field.name)) for field in fields_of(tp)}
    if is_scalar(tp):
        return to_text(value)
    origin, args = get_origin(tp), get_args(tp)
    if origin is tuple and args[-1] is not Ellipsis:
        return [_dump(item_type, item) for item_type, item in zip(args, value)]
    if origin in (list, tuple):
        return [_dump(args[0], item) for item in value]
    if origin in (set, frozenset):
        return sorted((_dump(args[0], item) for item in value), key=json.dumps)
    if origin is dict:
        return {key: _dump(args[1], item) for key, item in value.items()}
    return value
