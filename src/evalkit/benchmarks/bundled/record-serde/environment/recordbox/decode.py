"""From what JSON holds to dataclasses."""

from typing import get_args, get_origin

from .errors import RecordError
from .scalars import PLAIN, from_text, is_plain, is_scalar
from .schema import fields_of, is_record, optional


def load(cls, data):
    """The instance of the dataclass *cls* that *data* was made of."""
    if not is_record(cls):
        raise TypeError(f"not a dataclass: {cls!r}")
    return _load(cls, data, "")


def _load(tp, data, path):
    inner = optional(tp)
    if inner is not None:
        return None if data is None else _load(inner, data, path)
    if is_record(tp):
        return _load_record(tp, data, path)
    if tp in PLAIN:
        if not is_plain(data, tp):
            raise RecordError(path, f"not {PLAIN[tp]}: {data!r}")
        return float(data) if tp is float else data
    if is_scalar(tp):
        return _load_scalar(tp, data, path)
    origin, args = get_origin(tp), get_args(tp)
    if origin is list:
        return [_load(args[0], item, f"{path}[{number}]") for number, item in _items(data, path)]
    if origin in (set, frozenset):
        return origin(_load(args[0], item, f"{path}[{number}]") for number, item in _items(data, path))
    if origin is dict:
        if not isinstance(data, dict):
            raise RecordError(path, f"not an object: {data!r}")
        return {key: _load(args[1], item, f'{path}["{key}"]') for key, item in data.items()}
    return data


def _load_record(cls, data, path):
    if not isinstance(data, dict):
        raise RecordError(path, f"not an object: {data!r}")
    fields = fields_of(cls)
    unknown = sorted(data.keys() - {field.name for field in fields})
    if unknown:
        raise RecordError(_below(path, unknown[0]), "unknown field")
    values = {}
    for field in fields:
        if field.name in data:
            values[field.name] = _load(field.type, data[field.name], _below(path, field.name))
        elif field.required:
            raise RecordError(_below(path, field.name), "missing")
    return cls(**values)


def _load_scalar(tp, data, path):
    if not isinstance(data, str):
        raise RecordError(path, f"not a text: {data!r}")
    try:
        return from_text(tp, data)
    except ValueError as error:
        raise RecordError(path, str(error)) from None


def _items(data, path):
    if not isinstance(data, list):
        raise RecordError(path, f"not a list: {data!r}")
    return enumerate(data)


def _below(path, name):
    return f"{path}.{name}" if path else name
