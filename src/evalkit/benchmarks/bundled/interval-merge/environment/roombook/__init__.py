"""Bookings of one room on one day."""

from .day import Day
from .intervals import Interval, merge

__all__ = ["Day", "Interval", "merge"]
