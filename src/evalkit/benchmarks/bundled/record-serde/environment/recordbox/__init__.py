"""Dataclasses to JSON and back."""

import json

from .decode import load
from .encode import dump
from .errors import RecordError

__all__ = ["RecordError", "dump", "dumps", "load", "loads"]


def dumps(value):
    """The JSON text of a dataclass instance."""
    return json.dumps(dump(value))


def loads(cls, text):
    """What `dumps` has made of an instance of *cls*."""
    return load(cls, json.loads(text))
