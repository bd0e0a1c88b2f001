"""Half-open intervals of minutes."""

from typing import Iterable, List, NamedTuple


class Interval(NamedTuple):
    """The minutes from *start* up to, but not including, *end*."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return max(0, self.end - self.start)

    def clip(self, bounds: "Interval") -> "Interval":
        """The part of this interval that lies within *bounds*; it may have no length."""
        return Interval(max(self.start, bounds.start), min(self.end, bounds.end))


def merge(intervals: Iterable[Interval]) -> List[Interval]:
    """The minutes covered by *intervals*, as sorted intervals that neither overlap nor touch."""
    merged: List[Interval] = []
    for interval in sorted(intervals):
        if not interval.length:
            continue
        if merged and interval.start < merged[-1].end:
            merged[-1] = Interval(merged[-1].start, interval.end)
        else:
            merged.append(interval)
    return merged
