"""What the planners look at."""

from datetime import timedelta
from itertools import combinations, groupby


def planned_end(start, hours):
    """The moment after *hours* of work from *start* on."""
    return start + timedelta(hours=hours)


def short_rests(shifts, minimum=11):
    """(earlier, later) shifts of one person with less than *minimum* hours of rest between them."""
    found = []
    for own in _by_person(shifts):
        for earlier, later in zip(own, own[1:]):
            if later.start - earlier.end < timedelta(hours=minimum):
                found.append((earlier, later))
    return found


def double_entries(shifts):
    """Pairs of shifts of one person that overlap."""
    pairs = [pair for own in _by_person(shifts) for pair in combinations(own, 2) if pair[0].overlaps(pair[1])]
    return sorted(pairs, key=lambda pair: (pair[0].start, pair[1].start))


def _by_person(shifts):
    ordered = sorted(shifts, key=lambda shift: (shift.person, shift.start))
    for _, own in groupby(ordered, key=lambda shift: shift.person):
        yield list(own)
