"""An agent that follows a script."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio

from evalkit.domain.protocols import Workspace
from evalkit.domain.records import Job, Meter, Usage
from evalkit.logs import logger
from evalkit.testing.script import Script

Behaviour = Callable[[Job, Workspace, Meter], Awaitable[None]]

ANSWER = "answer"
RIGHT = "right"
"""The answer that FakeBenchmark grades as resolved."""


async def submit(workspace: Workspace, content: bytes) -> None:
    """Write an answer to the file that FakeBenchmark reads."""
    await workspace.write(content, workspace.places.work / ANSWER)


def answer(text: str = RIGHT) -> Behaviour:
    async def behave(_job: Job, workspace: Workspace, _meter: Meter) -> None:
        await submit(workspace, text.encode("utf-8", "surrogatepass"))

    return behave


def spend(usage: Usage) -> Behaviour:
    async def behave(_job: Job, _workspace: Workspace, meter: Meter) -> None:
        meter.add(usage)

    return behave


def print_text(text: str) -> Behaviour:
    """Print in every way that Python knows, and log."""

    async def behave(_job: Job, _workspace: Workspace, _meter: Meter) -> None:
        print(text)  # noqa: T201  # the purpose of this function
        os.write(1, text.encode() + b"\n")
        logger.info("%s", text)

    return behave


def resist(seconds: float, *, then: BaseException | None = None) -> Behaviour:
    """Work until cancelled, treat the cancellation as an error, clean up for a while, and return or raise."""

    async def behave(_job: Job, _workspace: Workspace, _meter: Meter) -> None:
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001  # the mistake that this agent imitates
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)
        if then is not None:
            raise then

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    async def behave(job: Job, workspace: Workspace, meter: Meter) -> None:
        for behaviour in behaviours:
            await behaviour(job, workspace, meter)

    return behave


class FakeAgent:
    """Gives the right answer, or follows `script`, which has an action for each try at an instance."""

    def __init__(
        self, default: Behaviour | None = None, script: Mapping[str, Sequence[Behaviour]] | None = None
    ) -> None:
        self.script: Script[Behaviour] = Script(default or answer(), script)
        self.jobs: list[Job] = []
        self.at_work = 0
        self.most_at_work = 0

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        self.jobs.append(job)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await self.script.next(job.instance.id)(job, workspace, meter)
        finally:
            self.at_work -= 1
