"""Tables for the terminal."""

from .fit import clip, pad, wrap
from .table import table
from .width import width

__all__ = ["clip", "pad", "table", "width", "wrap"]
