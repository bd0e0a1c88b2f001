"""The numbers of one or more runs, from their rows in one pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.domain.planning import BUCKETS, Attempts, Ledger, mark_of
from evalkit.domain.rows import SCHEMA, Row, RowUsage
from evalkit.domain.statistics import Distribution, pass_at_k, wilson_interval

_RUN_STRIDE = 1_000_000  # attempts of the n-th run follow those of the ones before it


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

    def add(self, usages: Sequence[RowUsage]) -> None:
        for usage in usages:
            self.llm_calls += usage.llm_calls
            self.input_tokens += usage.input_tokens
            self.cached_tokens += usage.cached_tokens
            self.output_tokens += usage.output_tokens
            self.reasoning_tokens += usage.reasoning_tokens
            self.cost_usd += usage.least_cost_usd
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
        self.ledger = Ledger.of(name for run in self.runs for name in run.instance_ids)
        self.seconds = Distribution()
        self.spending = Spending()
        self.metrics: dict[str, dict[str, float]] = {}

    def add(self, rows: Sequence[Row], run: int = 0) -> None:
        standings, first = self.ledger.standings, run * _RUN_STRIDE
        unknown = {row.instance_id for row in rows if row.instance_id not in standings}
        if unknown:
            self.ledger.unknown_ids |= unknown
            rows = [row for row in rows if row.instance_id not in unknown]
        for row in rows:
            standings[row.instance_id].record(first + row.attempt, mark_of(row))
            if row.metrics:
                for name, value in row.metrics.items():
                    self.metrics.setdefault(name, {})[row.instance_id] = value
        self.seconds.add([row.seconds for row in rows])
        self.spending.add([row.usage for row in rows])

    def summary(self, *, by: Sequence[str] = ()) -> dict[str, Any]:
        standings = self.ledger.standings
        bucket_of = {name: standing.bucket for name, standing in standings.items()}
        buckets = Counter(bucket_of.values())
        ids: dict[str, list[str]] = {bucket: [] for bucket in BUCKETS}
        for name, bucket in bucket_of.items():
            ids[bucket].append(name)
        failures = Counter(
            mark.failure
            for standing in standings.values()
            for mark in standing.marks.values()
            if mark.failure is not None
        )
        low, high = wilson_interval(buckets["resolved"], len(standings))
        return {
            "schema": SCHEMA,
            "runs": [run.name for run in self.runs],
            "total": len(standings),
            "buckets": {bucket: buckets[bucket] for bucket in BUCKETS},
            "resolve_rate": {
                "value": buckets["resolved"] / len(standings) if standings else None,
                "low": low,
                "high": high,
                "confidence": 0.95,
                "method": "wilson",
            },
            "pass_at": self._pass_at(),
            "failures": dict(sorted(failures.items())),
            "groups": {name: self._group(name, bucket_of) for name in by},
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
        for index, run in enumerate(self.runs):
            drawn = range(1, run.attempts.count + 1) if run.attempts.stop_on == "never" else (1,)
            for name in run.instance_ids:
                marks = self.ledger.standings[name].marks
                samples[name] += len(drawn)
                for attempt in drawn:
                    mark = marks.get(index * _RUN_STRIDE + attempt)
                    correct[name] += mark is not None and mark.bucket == "resolved"
        # Many instances have drawn the same, so that each estimate is made once.
        draws = Counter((samples[name], correct[name]) for name in samples)
        most = min(samples.values(), default=0)
        return {
            str(k): math.fsum(pass_at_k(*draw, k) * number for draw, number in draws.items()) / len(samples)
            for k in range(1, most + 1)
        }

    def _group(self, field_name: str, bucket_of: Mapping[str, str]) -> dict[str, dict[str, int]]:
        value_of: dict[str, str] = {}
        for run in self.runs:
            for name, value in zip(run.instance_ids, run.fields.get(field_name, ()), strict=False):
                value_of.setdefault(name, value)
        groups: dict[str, dict[str, int]] = {}
        for name, bucket in bucket_of.items():
            group = groups.setdefault(value_of.get(name, ""), {"total": 0, **dict.fromkeys(BUCKETS, 0)})
            group["total"] += 1
            group[bucket] += 1
        return dict(sorted(groups.items()))
