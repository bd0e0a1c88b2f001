"""The few formulas behind the numbers that evalkit prints."""

from __future__ import annotations

import math
from collections import Counter

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
    """Percentiles in one pass. Values are kept to a thousandth, from 100 on to a tenth: memory stays bounded."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()
        self.total = 0.0

    def add(self, value: float) -> None:
        self.total += value
        self._counts[round(value, 3 if value < 100 else 1)] += 1

    def percentile(self, share: float) -> float | None:
        """The smallest value that at least this share of all values does not exceed."""
        rank = math.ceil(share * self._counts.total())
        for value in sorted(self._counts):
            rank -= self._counts[value]
            if rank <= 0:
                return value
        return None
