#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace recordbox/decode.py 71 71 <<'END'

def _entries(data, path):
    if not isinstance(data, dict):
        raise RecordError(path, f"not an object: {data!r}")
    return data.items()


END

replace recordbox/decode.py 48 57 <<'END'
    values, later = {}, {}
    for field in fields:
        if field.name in data:
            value = _load(field.type, data[field.name], _below(path, field.name))
            (values if field.in_init else later)[field.name] = value
        elif field.required:
            raise RecordError(_below(path, field.name), "missing")
    record = cls(**values)
    for name, value in later.items():
        object.__setattr__(record, name, value)  # works for frozen classes, too
    return record


def _load_text(tp, data, path):
END

replace recordbox/decode.py 42 43 <<'END'
    data = dict(_entries(data, path))
    if "$type" in data:
        name = data.pop("$type")
        subclass = subclass_named(cls, name)
        if subclass is None:
            raise RecordError(path, f"no kind of {cls.__name__}: {name!r}")
        cls = subclass
END

replace recordbox/decode.py 28 38 <<'END'
        return _load_text(tp, data, path)
    origin, args = get_origin(tp), get_args(tp)
    if origin is tuple and args[-1] is not Ellipsis:
        items = list(_items(data, path))
        if len(items) != len(args):
            raise RecordError(path, f"not {len(args)} items: {data!r}")
        return tuple(_load(item_type, item, f"{path}[{number}]") for item_type, (number, item) in zip(args, items))
    if origin in (list, tuple, set, frozenset):
        return origin(_load(args[0], item, f"{path}[{number}]") for number, item in _items(data, path))
    if origin is dict and is_key(args[0]):
        return _load_dict(args, data, path)
    raise TypeError(f"fields cannot be declared as {tp!r}")


def _load_dict(types, data, path):
    key_type, value_type = types
    loaded = {}
    for text, item in _entries(data, path):
        below = f'{path}["{text}"]'
        key = _load_text(key_type, text, below)
        if key in loaded:
            raise RecordError(below, "the same key as another one")
        loaded[key] = _load(value_type, item, below)
    return loaded
END

replace recordbox/decode.py 22 22 <<'END'
        return _load_record(tp, data, path)
    if tp is Any:
        return data
END

replace recordbox/decode.py 3 7 <<'END'
from typing import Any, get_args, get_origin

from .errors import RecordError
from .scalars import PLAIN, from_text, is_key, is_plain, is_scalar
from .schema import fields_of, is_record, optional, subclass_named
END

replace recordbox/encode.py 32 34 <<'END'
    if origin is dict and is_key(args[0]):
        return {to_text(key): _dump(args[1], item) for key, item in value.items()}
    raise TypeError(f"fields cannot be declared as {tp!r}")
END

replace recordbox/encode.py 22 24 <<'END'
        dumped = {field.name: _dump(field.type, getattr(value, field.name)) for field in fields_of(type(value))}
        return dumped if type(value) is tp else {"$type": type(value).__name__, **dumped}
    if is_scalar(tp):
        return to_text(value)
    if tp in PLAIN or tp is Any:
        return value
END

replace recordbox/encode.py 4 6 <<'END'
from typing import Any, get_args, get_origin

from .scalars import PLAIN, is_key, is_scalar, to_text
END

replace recordbox/scalars.py 42 43 <<'END'
    if tp is int:
        return int(text)
    if tp is Decimal:
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise ValueError(f"not a number: {text!r}") from None
        if not number.is_finite():
            raise ValueError(f"not a finite number: {text!r}")
        return number
END

replace recordbox/scalars.py 35 35 <<'END'
    """The scalar of the type *tp* that *text* means; ValueError if it means none."""
    if tp is str:
        return text
    if tp is bool:
        if text not in _BOOLS:
            raise ValueError(f"neither true nor false: {text!r}")
        return _BOOLS[text]
END

replace recordbox/scalars.py 29 30 <<'END'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, Decimal)):
        return str(value)
END

replace recordbox/scalars.py 22 22 <<'END'

def is_key(tp):
    """Whether *tp* can be the type of the keys of a dictionary."""
    return tp in (str, int, bool) or (is_scalar(tp) and tp is not bytes)


END

replace recordbox/scalars.py 6 8 <<'END'
from decimal import Decimal, InvalidOperation

PLAIN = {str: "a text", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}
_BOOLS = {"true": True, "false": False}
END

cat >recordbox/schema.py <<'END'
"""What we know about classes."""

import dataclasses
import functools
import typing
from typing import Any, NamedTuple, Union, get_args, get_origin

try:
    from types import UnionType  # X | None, since Python 3.10
except ImportError:
    UnionType = Union


class Field(NamedTuple):
    """One field of a dataclass."""

    name: str
    type: Any
    required: bool
    in_init: bool


@functools.lru_cache(maxsize=None)
def fields_of(cls):
    """The fields of a dataclass, in their order."""
    types = typing.get_type_hints(cls)  # `field.type` may be a text
    return [_field(field, types[field.name]) for field in dataclasses.fields(cls)]


def _field(field, tp):
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return Field(field.name, tp, required and field.init, field.init)


def is_record(tp):
    """Whether *tp* is a dataclass."""
    return isinstance(tp, type) and dataclasses.is_dataclass(tp)


def optional(tp):
    """X for Optional[X], None for anything else."""
    if get_origin(tp) in (Union, UnionType):
        args = [arg for arg in get_args(tp) if arg is not type(None)]
        if len(args) == 1:
            return args[0]
    return None


def subclass_named(cls, name):
    """The subclass of *cls*, at whatever depth, with that name; None if there is no such dataclass."""
    for subclass in cls.__subclasses__():
        found = subclass if subclass.__name__ == name and is_record(subclass) else subclass_named(subclass, name)
        if found is not None:
            return found
    return None
END
