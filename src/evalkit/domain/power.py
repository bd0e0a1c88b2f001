"""How large a difference has to be for a set of instances to show it, and how many instances a wanted one takes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from evalkit.domain.estimates import spread
from evalkit.domain.statistics import normal_quantile, t_quantile

LEVEL, POWER = 0.05, 0.8


def detectable(
    differences: Sequence[float], clusters: Sequence[Hashable] | None = None, *, power: float = POWER
) -> float | None:
    """The difference that a paired comparison as varied as this one shows with this power; None of fewer than two."""
    found = spread(differences, clusters)
    if found is None:
        return None
    # Where no pair differs, one that did is the least to reckon with.
    variance = found.variance or 1 / found.clusters**2
    return (t_quantile(1 - LEVEL / 2, found.freedom) + normal_quantile(power)) * math.sqrt(variance)


def detectable_with(deviation: float, instances: int, *, power: float = POWER) -> float:
    """The same for so many instances, from the standard deviation of the difference at one instance."""
    return _quantiles(power) * deviation / math.sqrt(instances)


def instances_for(difference: float, deviation: float, *, power: float = POWER) -> int:
    """How many instances show a difference of this size (Miller 2024, equation 9)."""
    return max(2, math.ceil((_quantiles(power) * deviation / difference) ** 2))


def _quantiles(power: float) -> float:
    return normal_quantile(1 - LEVEL / 2) + normal_quantile(power)


def deviation_of_rates(before: float, after: float, correlation: float, attempts: int = 1) -> float:
    """Of the difference at one instance, for runs of these rates whose answers go together so much.

    What does not go together is taken for the chance in each attempt, which repeats average out.
    """
    spreads = [math.sqrt(each * (1 - each)) for each in (before, after)]
    variance = spreads[0] ** 2 + spreads[1] ** 2 - 2 * correlation * spreads[0] * spreads[1]
    return math.sqrt(max(0.0, variance) / attempts)
