"""Divides what was paid among those who took part."""

from .currency import places_of, quantum
from .ledger import settle
from .shares import split

__all__ = ["places_of", "quantum", "settle", "split"]
