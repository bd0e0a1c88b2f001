"""A run of fake parts in a real run directory, driven by the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
from trio.testing import MockClock

from evalkit import logs
from evalkit.config import Config
from evalkit.domain.budget import Budgets
from evalkit.domain.critics import accept_any
from evalkit.domain.planning import Attempts, Step, plan
from evalkit.domain.records import Limits, Result, Usage
from evalkit.domain.rows import timestamp
from evalkit.engine.run import Run
from evalkit.engine.scheduler import Scheduler
from evalkit.store.manifest import Manifest
from evalkit.store.run_directory import RunDirectory
from evalkit.testing import FakeAgent, FakeBenchmark, FakeWorkspaces, RecordingObserver

Loop = Literal["asyncio", "trio", "virtual"]

ONE_ATTEMPT = Attempts()
GIGABYTE = 1 << 30
HOUR = 3600.0
LIMITS = Limits(open=300.0, solve=HOUR, collect=300.0, grade=1800.0, memory=GIGABYTE, cpus=1.0)


def on_loop(function: Callable[..., Any], *arguments: Any, loop: Loop = "virtual") -> Any:
    """Run an async function; in virtual time, the clock jumps to whatever happens next."""
    if loop == "virtual":
        options = {"clock": MockClock(autojump_threshold=0)}
        return anyio.run(function, *arguments, backend="trio", backend_options=options)
    return anyio.run(function, *arguments, backend=loop)


def make_manifest(ids: list[str], **changes: Any) -> Manifest:
    known: dict[str, Any] = {
        "run_id": "run",
        "created_at": timestamp(),
        "versions": {},
        "config": Config().model_dump(mode="json"),
        "origin": {},
        "given": {},
        "dataset": {"fingerprint": ""},
        "instance_ids": ids,
    }
    return Manifest(**(known | changes))


def make_result(instance_id: str = "a", attempt: int = 1, **changes: Any) -> Result:
    known: dict[str, Any] = {
        "instance_id": instance_id,
        "attempt": attempt,
        "outcome": "submitted",
        "verdict": "unresolved",
        "score": None,
        "failure": None,
        "patch": None,
        "usage": Usage(),
        "started_at": "",
        "finished_at": "",
        "seconds": 1.0,
        "stages": {},
        "retries": 0,
        "resource_factor": 1,
        "artifacts": "instances/a/attempt-1",
    }
    return Result(**(known | changes))


@dataclass
class AtOnce:
    """Appends without a thread, which virtual time would not wait for."""

    directory: RunDirectory

    async def append(self, result: Result) -> None:
        self.directory.append([result])


@dataclass
class Rig:
    folder: Path
    benchmark: FakeBenchmark = field(default_factory=FakeBenchmark)
    agent: FakeAgent = field(default_factory=FakeAgent)
    workspaces: FakeWorkspaces = None  # type: ignore[assignment]  # made below, in the folder
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    critic: Callable[[Result], bool] = accept_any
    limits: Limits = LIMITS
    attempts: Attempts = ONE_ATTEMPT
    workers: int = 2
    retries: int = 2
    max_cost_usd: float | None = None
    loop: Loop = "virtual"
    held: Callable[[], str | None] = lambda: None
    journal: Any = None

    def __post_init__(self) -> None:
        self.workspaces = self.workspaces or FakeWorkspaces(self.folder / "workspaces")
        self.instances = {instance.id: instance for instance in self.benchmark.load()}
        self.directory = RunDirectory.create(self.folder / "run", make_manifest(list(self.instances)))

    def execute(self, steps: list[Step] | None = None) -> list[dict[str, Any]]:
        """Take the steps, or all that are pending, and return the rows of the run so far, as they are on disk."""
        with self.directory.writing(), logs.written_to(self.directory.path / "run.log"):
            if steps is None:
                steps = plan(self.directory.ledger().standings, self.attempts)
            on_loop(self.run_steps, steps, loop=self.loop)
        return self.rows()

    async def run_steps(self, steps: list[Step]) -> None:
        run = Run(
            run_id="run",
            benchmark=self.benchmark,
            agent=self.agent,
            workspaces=self.workspaces,
            store=self.directory,
            journal=self.journal or AtOnce(self.directory),
            critic=self.critic,
            observer=self.observer,
            scratch=self.folder / "jobs",
            limits=self.limits,
            workers=self.workers,
            retries=self.retries,
            budgets=Budgets(run_usd=self.max_cost_usd),
            held=self.held,
        )
        await Scheduler(run, self.instances, steps).execute()

    def rows(self) -> list[dict[str, Any]]:
        path = self.directory.path / "results.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
