"""Stands for answers that were made elsewhere and are only graded here."""

from __future__ import annotations

from evalkit.config import Config
from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Benchmark, Workspace
from evalkit.domain.records import Job, Meter

NAME = "recorded"


class RecordedAgent:
    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        raise Failed("agent", "there is no recorded answer: give it to `evalkit grade --predictions`")


def create(_config: Config, _benchmark: Benchmark) -> RecordedAgent:
    return RecordedAgent()
