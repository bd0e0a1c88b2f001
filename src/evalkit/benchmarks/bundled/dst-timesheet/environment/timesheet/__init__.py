"""Working hours from shifts."""

from .planning import double_entries, planned_end, short_rests
from .shift import Shift
from .zone import ZONE

__all__ = ["ZONE", "Shift", "double_entries", "planned_end", "short_rests"]
