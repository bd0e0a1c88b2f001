"""Two runs of the same instances, side by side: who resolved what, and whether the difference can be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.domain.rows import SCHEMA
from evalkit.domain.statistics import wilson_interval


@dataclass(slots=True)
class Standing:
    """What one run says of one instance, over all its attempts."""

    resolved: bool = False
    bucket: str = "incomplete"
    cost_usd: float | None = 0.0
    seconds: float = 0.0


Standings = Mapping[str, Standing]


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many instances both resolved, only the first, only the second, and neither."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def total(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def rates(self) -> tuple[float, float]:
        return ((self.both + self.only_a) / self.total, (self.both + self.only_b) / self.total)


def mcnemar(pairs: Pairs) -> float:
    """The two-sided exact p-value: how often chance alone splits the differing pairs at least this unevenly."""
    differing = pairs.only_a + pairs.only_b
    fewer = min(pairs.only_a, pairs.only_b)
    tail = sum(math.comb(differing, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << differing))


def paired_interval(pairs: Pairs) -> tuple[float, float]:
    """The 95 % interval of rate B minus rate A: Newcombe's square-and-add of Wilson limits, for paired data."""
    rate_a, rate_b = pairs.rates
    low_a, high_a = wilson_interval(pairs.both + pairs.only_a, pairs.total)
    low_b, high_b = wilson_interval(pairs.both + pairs.only_b, pairs.total)
    phi = _correlation(pairs)
    below = _add_squares(rate_b - low_b, high_a - rate_a, phi)
    above = _add_squares(high_b - rate_b, rate_a - low_a, phi)
    difference = rate_b - rate_a
    return (max(-1.0, difference - below), min(1.0, difference + above))


def _add_squares(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _correlation(pairs: Pairs) -> float:
    """Between the two outcomes of an instance, with Newcombe's correction for continuity."""
    margins = (
        (pairs.both + pairs.only_a)
        * (pairs.only_b + pairs.neither)
        * (pairs.both + pairs.only_b)
        * (pairs.only_a + pairs.neither)
    )
    if margins == 0:
        return 0.0
    product = float(pairs.both * pairs.neither - pairs.only_a * pairs.only_b)
    if product > 0:
        product = max(0.0, product - pairs.total / 2)
    return product / math.sqrt(margins)


def compare(names: tuple[str, str], a: Standings, b: Standings) -> dict[str, Any]:
    """The document about two runs. Only instances of both are compared; the others are named."""
    common = [name for name in a if name in b]
    ids: dict[str, list[str]] = {"both": [], "only_a": [], "only_b": [], "neither": []}
    kinds = {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}
    for name in common:
        ids[kinds[a[name].resolved, b[name].resolved]].append(name)
    pairs = Pairs(**{kind: len(listed) for kind, listed in ids.items()})
    return {
        "schema": SCHEMA,
        "runs": {"a": names[0], "b": names[1]},
        "total": pairs.total,
        **{kind: len(listed) for kind, listed in ids.items()},
        **_measure(pairs),
        "cost_usd": {"a": _sum_cost(a, common), "b": _sum_cost(b, common)},
        "seconds": {"a": _sum_seconds(a, common), "b": _sum_seconds(b, common)},
        "ungraded": {"a": _ungraded(a, common), "b": _ungraded(b, common)},
        "unfinished": {"a": _unfinished(a, common), "b": _unfinished(b, common)},
        "ids": ids,
        "unpaired": {"a": [name for name in a if name not in b], "b": [name for name in b if name not in a]},
    }


def _measure(pairs: Pairs) -> dict[str, Any]:
    if pairs.total == 0:
        nothing = {"value": None, "low": None, "high": None}
        return {
            "resolve_rate": {"a": None, "b": None},
            "difference": {**nothing, "confidence": 0.95, "method": "newcombe-paired"},
            "mcnemar": {"p_value": None, "differing": 0, "method": "exact"},
        }
    rate_a, rate_b = pairs.rates
    low, high = paired_interval(pairs)
    return {
        "resolve_rate": {"a": rate_a, "b": rate_b},
        "difference": {
            "value": rate_b - rate_a,
            "low": low,
            "high": high,
            "confidence": 0.95,
            "method": "newcombe-paired",
        },
        "mcnemar": {"p_value": mcnemar(pairs), "differing": pairs.only_a + pairs.only_b, "method": "exact"},
    }


def _sum_cost(standings: Standings, names: list[str]) -> float | None:
    """What the instances cost together; None where that of one is unknown."""
    costs = [cost for name in names if (cost := standings[name].cost_usd) is not None]
    return round(math.fsum(costs), 6) if len(costs) == len(names) else None


def _sum_seconds(standings: Standings, names: list[str]) -> float:
    return round(math.fsum(standings[name].seconds for name in names), 3)


def _ungraded(standings: Standings, names: list[str]) -> int:
    return sum(standings[name].bucket == "ungraded" for name in names)


def _unfinished(standings: Standings, names: list[str]) -> int:
    return sum(standings[name].bucket in ("error", "incomplete") for name in names)
