"""In which order to build targets that depend on each other."""

from .graph import parse
from .order import CycleError, build_order

__all__ = ["CycleError", "build_order", "parse"]
