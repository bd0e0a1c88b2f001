"""What we know about classes."""

import dataclasses
from typing import Any, NamedTuple, Union, get_args, get_origin

_KNOWN = {}


class Field(NamedTuple):
    """One field of a dataclass."""

    name: str
    type: Any
    required: bool
    in_init: bool


def fields_of(cls):
    """The fields of a dataclass, in their order."""
    if cls.__name__ not in _KNOWN:
        _KNOWN[cls.__name__] = [_field(field) for field in dataclasses.fields(cls)]
    return _KNOWN[cls.__name__]


def _field(field):
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return Field(field.name, field.type, required, field.init)


def is_record(tp):
    """Whether *tp* is a dataclass."""
    return isinstance(tp, type) and dataclasses.is_dataclass(tp)


def optional(tp):
    """X for Optional[X], None for anything else."""
    if get_origin(tp) is Union:
        args = get_args(tp)
        if len(args) == 2 and args[1] is type(None):
            return args[0]
    return None
