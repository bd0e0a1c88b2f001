"""Applies the reference solution: shows that instances can be resolved, and that graders see it."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.config import Config
from evalkit.domain.protocols import Benchmark, Workspace
from evalkit.domain.records import Job, Meter


@dataclass(frozen=True, slots=True)
class GoldAgent:
    benchmark: Benchmark

    async def solve(self, job: Job, workspace: Workspace, _meter: Meter) -> None:
        await self.benchmark.apply_solution(job, workspace)


def create(_config: Config, benchmark: Benchmark) -> GoldAgent:
    return GoldAgent(benchmark)
