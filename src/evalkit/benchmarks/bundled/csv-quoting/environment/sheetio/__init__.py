"""Rows of text to and from CSV."""

from .dialect import Dialect
from .reader import loads
from .writer import dumps

__all__ = ["Dialect", "dumps", "loads"]
