"""The bookings of one room on one day."""

from .clock import to_minutes, to_text
from .intervals import Interval, merge


class Day:
    """A room that can be used from *opening* to *closing*."""

    def __init__(self, opening, closing):
        self.hours = Interval(to_minutes(opening), to_minutes(closing))
        if not self.hours.length:
            raise ValueError("a day needs opening hours")
        self._bookings = []

    def book(self, start, end, title):
        """Enter a booking; it may overlap others (the desk sorts that out with people)."""
        interval = Interval(to_minutes(start), to_minutes(end))
        if not interval.length:
            raise ValueError(f"{title}: ends before it starts")
        self._bookings.append((interval, title))

    def busy(self):
        """The blocks of time in which the room is taken."""
        return [_show(block) for block in self._blocks()]

    def free(self, minimum=1):
        """The gaps that leave room for *minimum* minutes."""
        gaps = []
        cursor = self.hours.start
        for block in self._blocks():
            gaps.append(Interval(cursor, block.start))
            cursor = block.end
        gaps.append(Interval(cursor, self.hours.end))
        return [_show(gap) for gap in gaps if gap.length > max(minimum, 1)]

    def _blocks(self):
        return merge(interval.clip(self.hours) for interval, _ in self._bookings)


def _show(interval):
    return f"{to_text(interval.start)}-{to_text(interval.end)}"
