"""Does nothing: shows that graders do not resolve what nobody solved."""

from __future__ import annotations

from evalkit.config import Config
from evalkit.domain.models import Job, Meter
from evalkit.domain.protocols import Benchmark, Workspace


class NopAgent:
    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        pass


def create(_config: Config, _benchmark: Benchmark) -> NopAgent:
    return NopAgent()
