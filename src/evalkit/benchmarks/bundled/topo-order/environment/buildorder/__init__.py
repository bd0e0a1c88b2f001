"""In which order to build targets that depend on each other."""

from .graph import parse
from .order import CycleError, affected, build_order

__all__ = ["CycleError", "affected", "build_order", "parse"]
