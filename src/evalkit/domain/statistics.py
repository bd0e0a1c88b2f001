"""The few formulas behind the numbers that evalkit prints."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

_Z_95 = 1.959963984540054


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion."""
    if total == 0:
        return (0.0, 1.0)
    share, z2 = successes / total, _Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    margin = _Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low = 0.0 if successes == 0 else max(0.0, centre - margin)
    high = 1.0 if successes == total else min(1.0, centre + margin)
    return (low, high)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate that one of k samples is correct, from `correct` of `samples`."""
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


class Distribution:
    """Percentiles in one pass: exact up to 16,384 values; with more, off by less than a thousandth in rank.

    Each level that is full hands every second of its sorted values up, where each counts for two: memory grows with
    the logarithm of the number of values.
    """

    _MOST = 1 << 14

    def __init__(self) -> None:
        self._levels = [array("d")]
        self.total = 0.0

    def add(self, values: Sequence[float]) -> None:
        self.total += math.fsum(values)
        self._levels[0].extend(values)
        if len(self._levels[0]) >= self._MOST:
            self._halve(0)

    def _halve(self, height: int) -> None:
        if height + 1 == len(self._levels):
            self._levels.append(array("d"))
        level, above = self._levels[height : height + 2]
        above.extend(sorted(level)[height % 2 :: 2])
        del level[:]
        if len(above) >= self._MOST:
            self._halve(height + 1)

    def percentile(self, share: float) -> float | None:
        """The smallest value that at least this share of all values does not exceed."""
        weighted = sorted((value, 1 << height) for height, level in enumerate(self._levels) for value in level)
        rank = math.ceil(share * sum(weight for _, weight in weighted))
        for value, weight in weighted:
            rank -= weight
            if rank <= 0:
                return round(value, 3)
        return None
