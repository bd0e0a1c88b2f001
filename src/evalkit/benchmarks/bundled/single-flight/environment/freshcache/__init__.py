"""Values that take a while to get, kept for a while."""

from .cache import Cache
from .flight import LoadError
from .prices import PriceBook

__all__ = ["Cache", "LoadError", "PriceBook"]
