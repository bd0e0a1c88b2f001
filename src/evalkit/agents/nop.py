"""Does nothing: shows that graders do not resolve what nobody solved."""

from __future__ import annotations

from evalkit.config import Config
from evalkit.domain.protocols import Benchmark, Workspace
from evalkit.domain.records import Job, Meter


class NopAgent:
    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        pass


def create(_config: Config, _benchmark: Benchmark) -> NopAgent:
    return NopAgent()
