"""Statistics of readings as they come in."""

from .running import RunningStats
from .window import SlidingWindow

__all__ = ["RunningStats", "SlidingWindow"]
