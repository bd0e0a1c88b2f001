"""Thumbnails, rendered once and kept for a while."""

from .lru import WeightedLRU
from .service import Thumbnails

__all__ = ["Thumbnails", "WeightedLRU"]
