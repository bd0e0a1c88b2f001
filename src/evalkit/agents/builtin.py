"""Agents without a model: one applies the reference solution, one does nothing, one stands for recorded answers."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.config import Config
from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Benchmark, Workspace
from evalkit.domain.records import Job, Meter

RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class GoldAgent:
    """Applies the reference solution: shows that instances can be resolved, and that graders see it."""

    benchmark: Benchmark

    async def solve(self, job: Job, workspace: Workspace, _meter: Meter) -> None:
        await self.benchmark.apply_solution(job, workspace)


class NopAgent:
    """Does nothing: shows that graders do not resolve what nobody solved."""

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        pass


class RecordedAgent:
    """Stands for answers that were made elsewhere and are only graded here."""

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        raise Failed("agent", "there is no recorded answer: give it to `evalkit grade --predictions`")


def create_gold(_config: Config, benchmark: Benchmark) -> GoldAgent:
    return GoldAgent(benchmark)


def create_nop(_config: Config, _benchmark: Benchmark) -> NopAgent:
    return NopAgent()


def create_recorded(_config: Config, _benchmark: Benchmark) -> RecordedAgent:
    return RecordedAgent()
