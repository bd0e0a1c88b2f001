"""A result line, as planning and summaries read it: light to import, and read by the million."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec

Outcome = Literal["submitted", "empty", "timeout", "error"]
Verdict = Literal["resolved", "unresolved", "ungraded"]

SCHEMA = 1


class RowFailure(msgspec.Struct, frozen=True, gc=False):
    kind: str = "internal"
    stage: str = ""
    message: str = ""


class RowPatch(msgspec.Struct, frozen=True, gc=False):
    path: str = ""
    bytes: int = 0
    sha256: str = ""


class RowUsage(msgspec.Struct, frozen=True, gc=False):
    llm_calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    known_cost_usd: float = 0.0

    @property
    def least_cost_usd(self) -> float:
        return self.known_cost_usd if self.cost_usd is None else self.cost_usd


class Row(msgspec.Struct, frozen=True, gc=False):
    """What planning and summaries read of a result line.

    Leaner and more lenient than Result: a row of a newer evalkit with other fields or kinds is still a result.
    """

    instance_id: str
    attempt: int
    outcome: Outcome
    verdict: Verdict
    score: float | None = None
    failure: RowFailure | None = None
    patch: RowPatch | None = None
    usage: RowUsage = RowUsage()
    seconds: float = 0.0
    artifacts: str = ""
    accepted: bool = False
    grade_key: str | None = None
    metrics: dict[str, float] | None = None


def timestamp(moment: datetime | None = None) -> str:
    moment = moment or datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
