"""Central European Time, by the rule that holds since 1996.

Written out here as the machines at the gate have no time zone database.
"""

from datetime import datetime, timedelta, tzinfo

_HOUR = timedelta(hours=1)
_ZERO = timedelta(0)


def _last_sunday(year, month):
    """01:00 on the last Sunday of a month of 31 days: when, in UTC, the clocks change."""
    last = datetime(year, month, 31, 1)
    return last - timedelta(days=last.isoweekday() % 7)


class CentralEuropean(tzinfo):
    """One hour ahead of UTC; two from the end of March to the end of October."""

    def utcoffset(self, moment):
        return _HOUR + self.dst(moment)

    def dst(self, moment):
        wall = moment.replace(tzinfo=None)
        begin = _last_sunday(wall.year, 3) + _HOUR  # 02:00, when the clocks jump to 03:00
        end = _last_sunday(wall.year, 10) + _HOUR  # 02:00, which comes round twice
        if begin <= wall < begin + _HOUR:  # not on any clock; `fold` tells which side is meant
            return _HOUR if moment.fold else _ZERO
        if end <= wall < end + _HOUR:
            return _ZERO if moment.fold else _HOUR
        return _HOUR if begin <= wall < end else _ZERO

    def tzname(self, moment):
        return "CEST" if self.dst(moment) else "CET"

    def fromutc(self, moment):
        utc = moment.replace(tzinfo=None)
        begin, end = _last_sunday(utc.year, 3), _last_sunday(utc.year, 10)
        if begin <= utc < end:
            return moment + 2 * _HOUR
        repeated = end <= utc < end + _HOUR
        return (moment + _HOUR).replace(fold=int(repeated))

    def __repr__(self):
        return "ZONE"


ZONE = CentralEuropean()
