"""The few formulas behind the numbers that evalkit prints."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from functools import cache

_Z_95 = 1.959963984540054


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion."""
    if total == 0:
        return (0.0, 1.0)
    return wilson_of_share(successes / total, total, _Z_95)


def wilson_of_share(share: float, total: float, z: float) -> tuple[float, float]:
    """The Wilson interval from a share and its number of independent answers, for any quantile."""
    z2 = z**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    margin = z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low = 0.0 if share == 0 else max(0.0, centre - margin)
    high = 1.0 if share == 1 else min(1.0, centre + margin)
    return (low, high)


def normal_quantile(share: float) -> float:
    """The quantile of the standard normal distribution."""
    return _invert(lambda z: 1 - math.erfc(z / math.sqrt(2)) / 2, share)


@cache
def t_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t, with any degrees of freedom."""
    if freedom > 1e6:
        return normal_quantile(share)
    return _invert(lambda t: 1 - _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2, share)


def _invert(distribution: Callable[[float], float], share: float) -> float:
    """The quantile of a distribution that is symmetric about 0, by bisection."""
    if share < 0.5:
        return -_invert(distribution, 1 - share)
    low, high = 0.0, 1.0
    while distribution(high) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < share else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by the continued fraction of Numerical Recipes 6.4, where it converges quickly."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d)
            c = 1 + step / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a


def pass_all_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate that all of k samples are correct: pass^k."""
    return math.comb(correct, k) / math.comb(samples, k)


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
        """The smallest value with at least this share of all values at or below it."""
        weighted = sorted((value, 1 << height) for height, level in enumerate(self._levels) for value in level)
        rank = math.ceil(share * sum(weight for _, weight in weighted))
        for value, weight in weighted:
            rank -= weight
            if rank <= 0:
                return round(value, 3)
        return None
