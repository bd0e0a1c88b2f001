"""Readable addresses for headlines."""

from .archive import Archive
from .slug import slugify

__all__ = ["Archive", "slugify"]
