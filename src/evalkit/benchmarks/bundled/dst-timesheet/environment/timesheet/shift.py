"""One person's work without a break."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from .zone import ZONE


@dataclass(frozen=True)
class Shift:
    """Work from *start* up to *end*."""

    person: str
    start: datetime
    end: datetime

    def __post_init__(self):
        if self.end <= self.start:
            raise ValueError(f"{self.person}: the shift ends before it starts")

    @classmethod
    def parse(cls, person, start, end):
        """A shift from two ISO 8601 texts."""
        return cls(person, _moment(start), _moment(end))

    @property
    def hours(self):
        """How long the work took."""
        return (self.end - self.start) / timedelta(hours=1)

    def overlaps(self, other):
        """Whether both were going on at some moment."""
        return self.start < other.end and other.start < self.end

    def by_day(self):
        """The hours that belong to each date, as (date, hours)."""
        days = []
        start = self.start
        while start < self.end:
            midnight = datetime.combine(start.date() + timedelta(days=1), time(), ZONE)
            end = min(midnight, self.end)
            days.append((start.date(), (end - start) / timedelta(hours=1)))
            start = end
        return days


def _moment(text):
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=ZONE)
    return moment.astimezone(ZONE)
