"""Two runs of the same instances, side by side: who resolved what, and whether the difference can be chance."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.domain.estimates import difference_of, estimate, mean_of
from evalkit.domain.power import detectable
from evalkit.domain.results import SCHEMA
from evalkit.domain.samples import SILENCES, Sampled
from evalkit.domain.significance import Test, holm, sign_flip
from evalkit.domain.statistics import wilson_interval

MCNEMAR = "mcnemar, exact"
_LEVEL = 0.05


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


Groups = Mapping[str, Mapping[str, str]]
"""The values of the fields to group by: instances to values, by the name of the field."""


def compare(names: tuple[str, str], a: Sampled, b: Sampled, by: Groups | None = None) -> dict[str, Any]:
    """The document about two runs. Only instances that both have a verdict on are compared; the others are counted."""
    compared = [name for name in a.rated if name in b.rated]
    ids = _sort(compared, a, b)
    pairs = Pairs(**{kind: len(listed) for kind, listed in ids.items()})
    difference, test = _measure(compared, a, b, pairs)
    document = {
        "schema": SCHEMA,
        "runs": {"a": names[0], "b": names[1]},
        "total": pairs.total,
        "left_out": _left_out(compared, a, b),
        **{kind: len(listed) for kind, listed in ids.items()},
        "resolve_rate": {"a": _mean(compared, a), "b": _mean(compared, b)},
        "difference": difference,
        "test": test._asdict() if test else {"p_value": None, "method": None},
        "mcnemar": {
            "p_value": test.p_value if test and test.method == MCNEMAR else None,
            "differing": pairs.only_a + pairs.only_b,
            "method": "exact",
        },
        "detectable": _detectable(compared, a, b),
        "score": _score(compared, a, b),
        "cost_usd": _cost(compared, a, b),
        "tokens": _amounts(compared, a, b, "tokens"),
        "seconds": _amounts(compared, a, b, "seconds"),
        "ungraded": {"a": _count(a, b, "not_graded"), "b": _count(b, a, "not_graded")},
        "unfinished": {"a": _count(a, b, "not_run", "error"), "b": _count(b, a, "not_run", "error")},
        "groups": {field: dict(_group(compared, a, b, values)) for field, values in (by or {}).items()},
        "ids": ids,
        "unpaired": {
            "a": [name for name in a.all if name not in b.all],
            "b": [name for name in b.all if name not in a.all],
        },
    }
    return document | {"conclusion": conclude(document)}


def _sort(names: Sequence[str], a: Sampled, b: Sampled) -> dict[str, list[str]]:
    """Sort the ids by the runs that resolved them; with repeats, in at least half of the attempts."""
    ids: dict[str, list[str]] = {"both": [], "only_a": [], "only_b": [], "neither": []}
    kinds = {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}
    for name in names:
        ids[kinds[a.rated[name].mean >= 0.5, b.rated[name].mean >= 0.5]].append(name)
    return ids


def _group(
    compared: Sequence[str], a: Sampled, b: Sampled, values: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is compared, by the value of a field; with intervals, and no tests, of which there would be many."""
    members: dict[str, list[str]] = {}
    for name in compared:
        members.setdefault(values.get(name, ""), []).append(name)
    for value, names in sorted(members.items()):
        ids = _sort(names, a, b)
        pairs = Pairs(**{kind: len(listed) for kind, listed in ids.items()})
        difference, _ = _measure(names, a, b, pairs)
        yield (
            value,
            {
                "total": pairs.total,
                **{kind: len(listed) for kind, listed in ids.items()},
                "resolve_rate": {"a": _mean(names, a), "b": _mean(names, b)},
                "difference": difference,
            },
        )


def _left_out(compared: Collection[str], a: Sampled, b: Sampled) -> dict[str, Any]:
    """The number of instances that are not compared, with the reasons in each run."""
    chosen = set(compared)
    rest = [name for name in dict.fromkeys([*a.all, *b.all]) if name not in chosen]
    return {"total": len(rest), "a": _reasons(rest, a), "b": _reasons(rest, b)}


def _reasons(names: Sequence[str], run: Sampled) -> dict[str, int]:
    counts = dict.fromkeys(("absent", *SILENCES), 0)
    for name in names:
        sample = run.all.get(name)
        if sample is None:
            counts["absent"] += 1
        elif name not in run.rated:
            counts[sample.silence or "not_graded"] += 1
    return counts


def _count(run: Sampled, other: Sampled, *silences: str) -> int:
    return sum(each.silence in silences for name, each in run.all.items() if name in other.all)


def _mean(names: Sequence[str], run: Sampled) -> float | None:
    return math.fsum(run.rated[name].mean for name in names) / len(names) if names else None


def _differences(names: Sequence[str], a: Sampled, b: Sampled) -> list[float]:
    return [b.rated[name].mean - a.rated[name].mean for name in names]


def _measure(names: Sequence[str], a: Sampled, b: Sampled, pairs: Pairs) -> tuple[dict[str, Any], Test | None]:
    """McNemar and Newcombe for one attempt each; for repeats or clusters, differences of the means of instances."""
    if not names:
        return estimate(None, None, None, "newcombe-paired", 0), None
    counts = {len(run.rated[name].values) for name in names for run in (a, b)}
    clusters = a.clusters(names)
    if counts == {1} and clusters is None:
        rate_a, rate_b = pairs.rates
        interval = estimate(rate_b - rate_a, *paired_interval(pairs), "newcombe-paired", pairs.total)
        return interval, Test(mcnemar(pairs), MCNEMAR)
    differences = _differences(names, a, b)
    test = sign_flip(differences, clusters, unit=math.lcm(*counts))
    return difference_of(differences, clusters), Test(test.p_value, f"sign flip, {test.method}")


def _detectable(names: Sequence[str], a: Sampled, b: Sampled) -> float | None:
    """The smallest difference that these instances can show, at 80 % power and the 5 % level."""
    return detectable(_differences(names, a, b), a.clusters(names))


def _score(names: Sequence[str], a: Sampled, b: Sampled) -> dict[str, Any]:
    scores = {run: [each.rated[name].score for name in names] for run, each in (("a", a), ("b", b))}
    return _pair(scores["a"], scores["b"], a.clusters(names))


def _pair(a: Sequence[float], b: Sequence[float], clusters: Sequence[str] | None) -> dict[str, Any]:
    differences = [after - before for before, after in zip(a, b, strict=True)]
    return {
        "a": math.fsum(a) / len(a) if a else None,
        "b": math.fsum(b) / len(b) if b else None,
        "difference": mean_of(differences, clusters),
    }


def _cost(names: Sequence[str], a: Sampled, b: Sampled) -> dict[str, Any]:
    """The total cost of the instances in each run; None where one is unknown."""
    totals = {}
    for letter, run in (("a", a), ("b", b)):
        costs = [each.cost_usd * each.attempts for name in names if (each := run.all[name]).cost_usd is not None]
        totals[letter] = round(math.fsum(costs), 6) if len(costs) == len(names) > 0 else None
    known = [name for name in names if None not in (a.all[name].cost_usd, b.all[name].cost_usd)]
    before, after = ([run.all[name].cost_usd or 0.0 for name in known] for run in (a, b))
    return {**totals, "difference": _pair(before, after, a.clusters(known))["difference"]}


def _amounts(names: Sequence[str], a: Sampled, b: Sampled, kind: Literal["tokens", "seconds"]) -> dict[str, Any]:
    if not names:
        return {"a": None, "b": None, "difference": mean_of([])}
    before, after = ([getattr(run.all[name], kind) for name in names] for run in (a, b))
    totals = {
        letter: round(math.fsum(getattr(run.all[name], kind) * run.all[name].attempts for name in names), 3)
        for letter, run in (("a", a), ("b", b))
    }
    is_told = {"a": any(before), "b": any(after)}  # agents that tell no tokens have 0 of them
    difference = _pair(before, after, a.clusters(names))["difference"] if all(is_told.values()) else mean_of([])
    return {letter: totals[letter] if is_told[letter] else None for letter in totals} | {"difference": difference}


def conclude(document: Mapping[str, Any]) -> str:
    """The result of a comparison in one sentence."""
    total, difference, p_value = document["total"], document["difference"]["value"], document["test"]["p_value"]
    if p_value is None:
        return "no instance has a verdict in both runs, so nothing can be compared"
    if p_value >= _LEVEL or not difference:
        among = f"with {'this instance' if total == 1 else f'these {total} instances'}"
        found = document["detectable"]
        shows = f"only differences above about {_show(found)} show" if found and found < 1 else "no difference can show"
        return f"no evidence of a difference: {among} {shows}"
    better = "B is better" if difference > 0 else "B is worse"
    return f"{better} by {abs(difference) * 100:.1f} points, more than chance explains (p = {p_value:.2g})"


def _show(share: float) -> str:
    return f"{max(1, round(100 * share))} points"


def is_worse(document: Mapping[str, Any], points: float) -> bool:
    """Whether B is worse: by more than `points` where they are given, else by more than chance explains."""
    difference, p_value = document["difference"]["value"], document["test"]["p_value"]
    if difference is None or p_value is None:
        return False
    return bool(difference * 100 < -points if points else difference < 0 and p_value < _LEVEL)


def compare_many(names: Sequence[str], runs: Sequence[Sampled], by: Groups | None = None) -> dict[str, Any]:
    """The first run with each of the others, p-values corrected for their number."""
    documents = [compare((names[0], name), runs[0], run, by) for name, run in zip(names[1:], runs[1:], strict=True)]
    testable = [each for each in documents if each["test"]["p_value"] is not None]
    corrected = holm([each["test"]["p_value"] for each in testable])
    for document, p_value in zip(testable, corrected, strict=True):
        document["test"] |= {"p_value": p_value, "uncorrected": document["test"]["p_value"], "correction": "holm"}
        document["conclusion"] = conclude(document)
    return {"schema": SCHEMA, "runs": list(names), "comparisons": documents}
