"""A plugin for benches: instances that only take time, in workspaces that cost nothing, with trajectories of any size.

What is left is what evalkit itself costs. BENCH_INSTANCES, BENCH_SECONDS and BENCH_MEGABYTES say how much of each;
with BENCH_IMAGE, the instances are containers for `--workspace docker`, in which the agent runs one command.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any

import anyio

from evalkit.benchmarks.patches import describe_patch
from evalkit.benchmarks.swebench import harness
from evalkit.config import Config
from evalkit.domain.protocols import Exit, Places, Workspace, WorkspaceSpec
from evalkit.domain.records import Answer, Grade, Instance, Job, Meter, Usage
from evalkit.trajectories.events import FILE, Trajectory

INSTANCES = int(os.environ.get("BENCH_INSTANCES", "300"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "0.5"))
MEGABYTES = float(os.environ.get("BENCH_MEGABYTES", "0"))
IMAGE = os.environ.get("BENCH_IMAGE")
MESSAGES = 20


class Nowhere:
    """Workspaces without a place."""

    memory_budget = None
    model = None
    places = Places(*map(PurePosixPath, ("/work", "/tests", "/logs", "/solution")))

    @asynccontextmanager
    async def open(self, _spec: WorkspaceSpec) -> AsyncIterator[Workspace]:
        yield self

    async def missing_images(self, _instances: Iterable[Instance]) -> Mapping[str, str]:
        return {}

    async def exec(self, *_argv: Any, **_more: Any) -> Exit:
        return Exit(0)

    async def write(self, *_what: Any) -> None: ...

    async def read(self, *_what: Any) -> None: ...

    async def interrupt(self) -> None: ...

    async def change_network(self, *_what: Any) -> None: ...


class Sleep:
    grader_version = "1"

    def load(self) -> Iterator[Instance]:
        for number in range(INSTANCES):
            yield Instance(id=f"sleep-{number:06}", statement="sleep", image=IMAGE, grades_in_place=True)

    def grader_network(self, _instance: Instance) -> str:
        return "none"

    async def prepare(self, _job: Job, _workspace: Workspace) -> None: ...

    async def apply_solution(self, _job: Job, _workspace: Workspace) -> None: ...

    async def collect(self, _job: Job, _workspace: Workspace) -> Answer:
        return Answer(text="slept")

    async def grade(self, _job: Job, _answer: Answer, _workspace: Workspace) -> Grade:
        return Grade(verdict="resolved", score=1.0)


class Rows(Sleep):
    """Rows of SWE-bench's schema, of which only the tests are left out."""

    def __init__(self, config: Config) -> None:
        self._rows = harness.create(config)

    def load(self) -> Iterator[Instance]:
        yield from self._rows.load()

    def read_instance(self, outline: Instance) -> Instance:
        return self._rows.read_instance(outline)

    def reference_patch(self, instance: Instance) -> bytes:
        return self._rows.reference_patch(instance)

    async def collect(self, job: Job, _workspace: Workspace) -> Answer:
        patch = job.folder / "patch.diff"
        patch.write_text(job.instance.data["patch"])
        return describe_patch(patch, job)


class Sleeper:
    """Sleeps, and writes its trajectory as the `shell` agent does: each message as it comes."""

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        if IMAGE:
            await workspace.exec(("sleep", f"{SECONDS:g}"))
            return
        if not MEGABYTES:
            await anyio.sleep(SECONDS)
            return
        content = "x" * int(MEGABYTES * 1e6 / MESSAGES)
        with Trajectory(job.folder / FILE) as trajectory:
            for _ in range(MESSAGES):
                await anyio.sleep(SECONDS / MESSAGES)
                trajectory.add("message", role="assistant", content=content)
                meter.add(Usage(llm_calls=1, input_tokens=100, output_tokens=10))


def create_agent(_config: Any, _benchmark: Any) -> Sleeper:
    return Sleeper()


def create_benchmark(_config: Any) -> Sleep:
    return Sleep()


def create_rows(config: Config) -> Rows:
    return Rows(config)


def create_workspaces(_config: Any, _scope: Any) -> Nowhere:
    return Nowhere()
