"""The numbers of one or more runs, from their rows in one pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.domain.planning import BUCKETS, Attempts, Bucket, Ledger, Mark, bucket_of, mark_of
from evalkit.domain.rows import SCHEMA, Row, Usage
from evalkit.domain.statistics import Distribution, pass_at_k, wilson_interval


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a summary needs to know of a run besides its rows."""

    name: str
    instance_ids: Sequence[str]
    attempts: Attempts
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Spending:
    """Sums of what rows say was spent."""

    llm_calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    rows: int = 0
    unknown_costs: int = 0

    def add(self, usages: Sequence[Usage]) -> None:
        for usage in usages:
            self.llm_calls += usage.llm_calls
            self.input_tokens += usage.input_tokens
            self.cached_tokens += usage.cached_tokens
            self.output_tokens += usage.output_tokens
            self.reasoning_tokens += usage.reasoning_tokens
            self.cost_usd += usage.known_cost_usd
            self.unknown_costs += usage.cost_usd is None
        self.rows += len(usages)

    def describe(self) -> dict[str, Any]:
        all_unknown = self.unknown_costs == self.rows > 0
        return {
            "llm_calls": self.llm_calls,
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cost_usd": None if all_unknown else round(self.cost_usd, 6),
            "cost_unknown": self.unknown_costs,
        }


class Tally:
    """Takes rows as they come, many at a time; memory depends on the number of instances, not of rows."""

    def __init__(self, runs: Iterable[RunFacts]) -> None:
        self.runs = list(runs)
        self.ledgers = [Ledger.of(run.instance_ids) for run in self.runs]
        self.seconds = Distribution()
        self.spending = Spending()
        self.metrics: dict[str, dict[str, float]] = {}

    def add(self, rows: Sequence[Row], run: int = 0) -> None:
        ledger = self.ledgers[run]
        standings = ledger.standings
        unknown = {row.instance_id for row in rows if row.instance_id not in standings}
        if unknown:
            ledger.unknown_ids |= unknown
            rows = [row for row in rows if row.instance_id not in unknown]
        for row in rows:
            standings[row.instance_id].record(row.attempt, mark_of(row))
            if row.metrics:
                for name, value in row.metrics.items():
                    self.metrics.setdefault(name, {})[row.instance_id] = value
        self.seconds.add([row.seconds for row in rows])
        self.spending.add([row.usage for row in rows])

    @property
    def unknown_ids(self) -> set[str]:
        return {name for ledger in self.ledgers for name in ledger.unknown_ids}

    def _marks(self) -> dict[str, list[Mark]]:
        """What stands of each instance, its attempts in the order of runs and numbers."""
        marks: dict[str, list[Mark]] = {}
        for ledger in self.ledgers:
            for name, standing in ledger.standings.items():
                marks.setdefault(name, []).extend(standing.in_order())
        return marks

    def summary(self, *, by: Sequence[str] = ()) -> dict[str, Any]:
        marks = self._marks()
        placed = {name: bucket_of(each) for name, each in marks.items()}
        buckets = Counter(placed.values())
        ids: dict[str, list[str]] = {bucket: [] for bucket in BUCKETS}
        for name, bucket in placed.items():
            ids[bucket].append(name)
        failures = Counter(mark.failure for each in marks.values() for mark in each if mark.failure is not None)
        low, high = wilson_interval(buckets["resolved"], len(marks))
        return {
            "schema": SCHEMA,
            "runs": [run.name for run in self.runs],
            "total": len(marks),
            "buckets": {bucket: buckets[bucket] for bucket in BUCKETS},
            "resolve_rate": {
                "value": buckets["resolved"] / len(marks) if marks else None,
                "low": low,
                "high": high,
                "confidence": 0.95,
                "method": "wilson",
            },
            "pass_at": self._pass_at(),
            "failures": dict(sorted(failures.items())),
            "groups": {name: self._group(name, placed) for name in by},
            "metrics": {
                name: {"mean": math.fsum(values.values()) / len(values), "instances": len(values)}
                for name, values in sorted(self.metrics.items())
            },
            "usage": self.spending.describe(),
            "seconds": {
                "total": round(self.seconds.total, 3),
                "p50": self.seconds.percentile(0.5),
                "p95": self.seconds.percentile(0.95),
            },
            "ids": ids,
        }

    def _pass_at(self) -> dict[str, float]:
        """A sample that is missing or failed counts as not resolved, so an unfinished run never looks better."""
        samples: Counter[str] = Counter()
        correct: Counter[str] = Counter()
        for run, ledger in zip(self.runs, self.ledgers, strict=True):
            drawn = range(1, run.attempts.count + 1) if run.attempts.stop_on == "never" else (1,)
            for name in run.instance_ids:
                marks = ledger.standings[name].marks
                samples[name] += len(drawn)
                for attempt in drawn:
                    mark = marks.get(attempt)
                    correct[name] += mark is not None and mark.bucket == "resolved"
        # Many instances have drawn the same, so that each estimate is made once.
        draws = Counter((samples[name], correct[name]) for name in samples)
        most = min(samples.values(), default=0)
        return {
            str(k): math.fsum(pass_at_k(*draw, k) * number for draw, number in draws.items()) / len(samples)
            for k in range(1, most + 1)
        }

    def _group(self, field_name: str, placed: Mapping[str, Bucket]) -> dict[str, dict[str, int]]:
        value_of: dict[str, str] = {}
        for run in self.runs:
            for name, value in zip(run.instance_ids, run.fields.get(field_name, ()), strict=False):
                value_of.setdefault(name, value)
        groups: dict[str, dict[str, int]] = {}
        for name, bucket in placed.items():
            group = groups.setdefault(value_of.get(name, ""), {"total": 0, **dict.fromkeys(BUCKETS, 0)})
            group["total"] += 1
            group[bucket] += 1
        return dict(sorted(groups.items()))
