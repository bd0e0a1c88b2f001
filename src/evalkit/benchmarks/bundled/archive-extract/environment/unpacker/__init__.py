"""Unpacks archives that strangers have made."""

from .errors import UnsafeArchive
from .extract import extract

__all__ = ["UnsafeArchive", "extract"]
