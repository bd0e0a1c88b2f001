"""The table of the instances of a run, in columns, from one pass over its rows."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from evalkit.domain.json_values import mapping_of, number_or_none
from evalkit.domain.planning import Mark, bucket_of, mark_of, replaces
from evalkit.domain.results import Row, TimedRow, round_money
from evalkit.domain.samples import Sample
from evalkit.reports.format import Statements, TableChunk
from evalkit.runs.summarize import AnyRun
from evalkit.store.run_directory import RunDirectory

ROWS = 2000
"""The rows of one document."""
_LONGEST_VALUE = 200


@dataclass(slots=True)
class StandingAttempt:
    """The row that stands of an attempt, as far as the table shows it."""

    mark: Mark
    verdict: str
    score: float | None
    failure: str | None
    message: str | None
    finished: float | None
    """Seconds since the epoch."""
    stages: Mapping[str, float]

    @property
    def outcome(self) -> Any:
        return self.mark.outcome

    @property
    def accepted(self) -> bool:
        return self.mark.accepted

    @property
    def trouble(self) -> str | None:
        """The kind of its failure. An answer that was graded although time was up says so too."""
        return self.failure or ("timeout" if self.outcome == "timeout" and self.verdict != "ungraded" else None)


@dataclass(slots=True)
class InstanceRecord:
    """What the rows of one instance say together."""

    places: array[int] = field(default_factory=lambda: array("Q"))
    """Of its rows in the file."""
    attempts: dict[int, StandingAttempt] = field(default_factory=dict)
    cost_usd: float = 0.0
    """NaN where that of any row is unknown."""
    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0
    _bucket: str | None = None

    def add(self, row: Row, place: int | None) -> None:
        usage, self._bucket = row.usage, None
        if place is not None:
            self.places.append(place)
        self.cost_usd += math.nan if usage.cost_usd is None else usage.cost_usd
        self.tokens += usage.tokens
        self.steps += usage.llm_calls
        self.seconds += row.seconds
        if replaces(row, self.attempts.get(row.attempt)):
            self.attempts[row.attempt] = _stand(row)

    @property
    def is_known(self) -> bool:
        return bool(self.attempts)

    @property
    def last(self) -> StandingAttempt | None:
        return self.attempts[max(self.attempts)] if self.attempts else None

    @property
    def cost(self) -> float | None:
        return round_money(self.cost_usd) if self.attempts and not math.isnan(self.cost_usd) else None

    @property
    def bucket(self) -> str:
        if self._bucket is None:
            self._bucket = bucket_of([self.attempts[number].mark for number in sorted(self.attempts)])
        return self._bucket

    @property
    def score(self) -> float | None:
        given = [each.score if each.score is not None else each.mark.value for each in self.attempts.values()]
        known = [each for each in given if each is not None]
        return math.fsum(known) / len(known) if known else None

    @property
    def finished(self) -> float | None:
        return max((each.finished for each in self.attempts.values() if each.finished is not None), default=None)

    @property
    def stages(self) -> Mapping[str, float]:
        """Seconds in each stage, over all attempts."""
        if len(self.attempts) == 1:
            return next(iter(self.attempts.values())).stages
        total: dict[str, float] = {}
        for each in self.attempts.values():
            for name, seconds in each.stages.items():
                total[name] = total.get(name, 0.0) + seconds
        return total


def _stand(row: Row) -> StandingAttempt:
    finished_at, stages = (row.finished_at, row.stages) if isinstance(row, TimedRow) else (None, None)
    failure = row.failure
    return StandingAttempt(
        mark=mark_of(row),
        verdict=row.verdict,
        score=row.score,
        failure=failure.kind if failure else None,
        message=failure.message.partition("\n")[0][:_LONGEST_VALUE] if failure else None,
        finished=moment_of(finished_at),
        stages=_numbers_of(stages),
    )


def _numbers_of(value: Any) -> dict[str, float]:
    known = ((name, number_or_none(each)) for name, each in mapping_of(value).items())
    return {name: each for name, each in known if each is not None}


def moment_of(value: Any) -> float | None:
    """A time in seconds since the epoch, where it is one."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds > 0 else None


@dataclass(slots=True)
class InstanceTable:
    """All instances of a run, in its order."""

    records: Mapping[str, InstanceRecord]
    began: float | None
    """When the run began, in seconds since the epoch."""
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.ids = list(self.records)

    @classmethod
    def of(cls, run: AnyRun, ids: Iterable[str]) -> InstanceTable:
        """A table without rows."""
        began = moment_of(run.manifest.created_at) if isinstance(run, RunDirectory) else None
        return cls({name: InstanceRecord() for name in ids}, began)

    def add(self, row: Row, place: int | None) -> None:
        if (record := self.records.get(row.instance_id)) is not None:
            record.add(row, place)

    @property
    def chunks(self) -> int:
        return -(-len(self.records) // ROWS)

    def places_of(self, chunk: int) -> Sequence[int]:
        first = chunk * ROWS
        return range(first, min(first + ROWS, len(self.records)))

    def rows(
        self,
        places: Sequence[int],
        keys: Mapping[str, str],
        fields: Mapping[str, Sequence[str]],
        rated: Mapping[str, Sample],
    ) -> TableChunk:
        """The instances at these places of the run's order."""
        ids = [self.ids[place] for place in places]
        records = [self.records[name] for name in ids]
        last = [record.last for record in records]
        stages = [record.stages for record in records]
        names = list(dict.fromkeys(name for each in stages for name in each))
        return TableChunk(
            ids=ids,
            keys=[keys[name] for name in ids],
            buckets=[record.bucket for record in records],
            rates=[rated[name].mean if name in rated else None for name in ids],
            counted=[len(rated[name].values) if name in rated else 0 for name in ids],
            attempts=[len(record.attempts) for record in records],
            scores=[record.score for record in records],
            costs_usd=[record.cost for record in records],
            tokens=[record.tokens if record.is_known else None for record in records],
            steps=[record.steps if record.is_known else None for record in records],
            seconds=[round(record.seconds, 3) if record.seconds else None for record in records],
            finished=[self.since_start(record.finished) for record in records],
            failures=[None if each is None else each.trouble for each in last],
            messages=[None if each is None else each.message for each in last],
            stages={name: [_rounded(each.get(name)) for each in stages] for name in names},
            fields={
                name: [values[place][:_LONGEST_VALUE] for place in places if place < len(values)]
                for name, values in fields.items()
            },
        )

    def since_start(self, moment: float | None) -> float | None:
        return None if moment is None or self.began is None else round(max(0.0, moment - self.began), 3)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def make_statements(texts: Sequence[str | None], most: int) -> Statements:
    """The beginnings of statements, with their white space narrowed."""
    return Statements(texts=[" ".join((text or "")[: 2 * most].split())[:most] for text in texts])
