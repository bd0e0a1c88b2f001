"""Runs attempts: many at once, each of them to exactly one row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread
from msgspec import structs

from evalkit import logs
from evalkit.domain.budget import Budgets
from evalkit.domain.failures import Breaker, unwrap
from evalkit.domain.planning import Step
from evalkit.domain.protocols import (
    Agent,
    Benchmark,
    Critic,
    Observer,
    Purpose,
    Workspace,
    Workspaces,
    WorkspaceSpec,
)
from evalkit.domain.records import (
    Answer,
    Failure,
    Grade,
    Instance,
    Job,
    Limits,
    Meter,
    Recorded,
    Result,
    checked,
    grade_key,
)
from evalkit.engine.admission import Admission
from evalkit.engine.attempt import Attempt
from evalkit.engine.observing import Guarded
from evalkit.errors import CredentialsRefused, EngineUnavailable, EvalkitError
from evalkit.logs import logger


class Journal(Protocol):
    """Where results become durable."""

    async def append(self, result: Result) -> None: ...


class Store(Protocol):
    """Where an attempt keeps its files."""

    def artifacts(self, instance_id: str, attempt: int) -> str: ...

    def attempt_folder(self, instance_id: str, attempt: int) -> Path: ...

    def fresh_attempt_folder(self, instance_id: str, attempt: int) -> Path: ...


@dataclass(frozen=True, slots=True)
class Run:
    """The parts of a run, wired by a command."""

    run_id: str
    benchmark: Benchmark
    agent: Agent
    workspaces: Workspaces
    store: Store
    journal: Journal
    critic: Critic
    observer: Observer
    scratch: Path
    limits: Limits
    pinned: frozenset[str] = frozenset()
    """Limits that no instance overrides, because the command line says so."""
    workers: int = 1
    retries: int = 2
    network: str = "none"
    budgets: Budgets = field(default_factory=Budgets)
    grader_version: str = ""
    held: Callable[[], str | None] = lambda: None
    _scratch_numbers: count[int] = field(default_factory=count)

    def job(self, attempt: Attempt) -> Job:
        instance, number = attempt.instance, attempt.step.attempt
        place = self.store.attempt_folder if attempt.solved else self.store.fresh_attempt_folder
        return Job(
            run_id=self.run_id,
            instance=instance,
            attempt=number,
            folder=place(instance.id, number),
            scratch=self.scratch / str(next(self._scratch_numbers)),
            limits=attempt.limits,
            resource_factor=attempt.resource_factor,
        )


async def attempt_once(attempt: Attempt, run: Run) -> None:
    """One try: solve, then grade what can be graded. Whatever fails becomes part of the attempt."""
    attempt.begin_try()
    with attempt.catching():
        job = run.job(attempt)
        logs.route_to(job.log)
        try:
            if not attempt.solved:
                await _solve(attempt, job, run)
            if attempt.solved and attempt.is_to_be_graded:
                await _grade(attempt, job, run)
        finally:
            await _remove(job.scratch)


async def _solve(attempt: Attempt, job: Job, run: Run) -> None:
    spec = _spec(job, "solve", network_of(job.instance, run.network))
    async with AsyncExitStack() as stack:
        workspace = await _open(attempt, spec, run, stack)
        with attempt.within("prepare", job.limits.open):
            await run.benchmark.prepare(job, workspace)
        with attempt.solving(job.limits.solve):
            await run.agent.solve(job, workspace, attempt.meter)
        with attempt.within("collect", job.limits.collect):
            if attempt.timed_out:
                await workspace.interrupt()
            attempt.answer = checked(Answer, await run.benchmark.collect(job, workspace))
        if job.instance.grades_in_place:
            await _judge(attempt, job, run, workspace)
        else:
            attempt.solved = attempt.failure is None


async def _grade(attempt: Attempt, job: Job, run: Run) -> None:
    spec = _spec(job, "grade", run.benchmark.grader_network(job.instance))
    async with AsyncExitStack() as stack:
        workspace = await _open(attempt, spec, run, stack)
        await _judge(attempt, job, run, workspace)


async def _judge(attempt: Attempt, job: Job, run: Run, workspace: Workspace) -> None:
    if attempt.answer is not None and attempt.is_to_be_graded:
        with attempt.within("grade", job.limits.grade):
            attempt.grade = checked(Grade, await run.benchmark.grade(job, attempt.answer, workspace))


async def _open(attempt: Attempt, spec: WorkspaceSpec, run: Run, stack: AsyncExitStack) -> Workspace:
    with attempt.within("open", spec.job.limits.open):
        return await stack.enter_async_context(run.workspaces.open(spec))
    raise AssertionError("within() raises when its time is up")


def network_of(instance: Instance, configured: str) -> str:
    """The network of an agent. A way to the model alone leads nowhere else."""
    return "none" if instance.offline and configured != "model" else configured


def _spec(job: Job, purpose: Purpose, network: str) -> WorkspaceSpec:
    return WorkspaceSpec(
        job=job,
        purpose=purpose,
        network=network,
        memory=job.limits.memory * job.resource_factor,
        cpus=job.limits.cpus * job.resource_factor,
    )


async def _remove(folder: Path) -> None:
    if folder.exists():
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


class Scheduler:
    """Admits attempts, repeats what failed for no fault of the agent, and makes every result durable."""

    def __init__(
        self,
        run: Run,
        instances: Mapping[str, Instance],
        steps: Sequence[Step],
        recorded: Mapping[tuple[str, int], Recorded] | None = None,
    ) -> None:
        """Attempts with a recorded answer, by id and number, are graded and not made again."""
        self._run = run
        self._observer = Guarded(run.observer)
        self._instances = instances
        self._recorded = recorded or {}
        self._admission = Admission(
            supply=map(self._begin, steps),
            capacity=run.workers,
            memory_budget=run.workspaces.memory_budget,
            held=run.held,
            on_hold=self._observer.held,
        )
        self._breaker = Breaker(instances=len(steps), tries=run.retries + 1)
        self._began = 0.0

    async def execute(self) -> None:
        """Take all steps and those that follow from them. Raises EvalkitError when the run cannot go on."""
        self._began = anyio.current_time()
        try:
            async with anyio.create_task_group() as tasks:
                while (attempt := await self._admission.next()) is not None:
                    tasks.start_soon(self._work, attempt)
        except BaseExceptionGroup as group:
            fatal, _ = group.split(EvalkitError)
            raise unwrap(fatal or group) from group

    async def _work(self, attempt: Attempt) -> None:
        spent = attempt.meter.budget.exhausted(ignoring="attempt")
        if spent is not None:
            attempt.failure = Failure(kind="budget", message=str(spent), stage="open")
        else:
            await attempt_once(attempt, self._run)
        retry = attempt.plan_retry(self._run.retries)
        if retry is None:
            await self._finish(attempt)
        self._admission.release(attempt)
        self._stop_if_tripped(attempt)
        if retry is not None:
            attempt.queue_again(retry)
            self._admission.add(attempt, delay=retry.delay)

    async def _finish(self, attempt: Attempt) -> None:
        """Make the result durable before anything else may start, then go on to what follows from it."""
        result = self._result(attempt)
        await self._run.journal.append(result)
        self._observer.finished(result)
        following = attempt.step.following(accepted=result.accepted)
        if following:
            self._observer.added(following.instance_id, following.attempt)
            self._admission.add(self._begin(following, anyio.current_time()))

    def _result(self, attempt: Attempt) -> Result:
        artifacts = self._run.store.artifacts(attempt.instance.id, attempt.step.attempt)
        result = attempt.result(artifacts)
        if attempt.failure is not None:
            return result
        accepted = False
        with attempt.catching():
            accepted = bool(self._run.critic(result))
        if attempt.failure is not None:
            return attempt.result(artifacts)
        key = None
        if attempt.grade is not None and attempt.answer is not None:
            key = grade_key(attempt.answer, attempt.instance, self._run.grader_version)
        return structs.replace(result, accepted=accepted, grade_key=key)

    def _begin(self, step: Step, queued_since: float | None = None) -> Attempt:
        instance = self._instances[step.instance_id]
        limits = self._run.limits.adjusted(instance.overrides, pinned=self._run.pinned)
        meter = Meter(self._run.budgets.for_attempt(step.instance_id))
        since = self._began if queued_since is None else queued_since
        attempt = Attempt(instance, step, limits, self._observer, meter, queued_since=since)
        recorded = self._recorded.get((step.instance_id, step.attempt))
        if recorded is not None:
            attempt.answer, attempt.timed_out, attempt.solved = recorded.answer, recorded.timed_out, True
            attempt.meter.add(recorded.usage)
        return attempt

    def _stop_if_tripped(self, attempt: Attempt) -> None:
        kind = attempt.failure.kind if attempt.failure else None
        self._breaker.observe(kind, began=attempt.try_began, now=anyio.current_time())
        self._admission.pause(self._breaker.pause)
        if self._breaker.tripped_by is None or attempt.failure is None:
            return
        logger.error("run stopped: %s", attempt.failure.message)
        if self._breaker.tripped_by == "model_auth":
            raise CredentialsRefused(
                f"the model endpoint refuses the credentials: {attempt.failure.message}",
                hint="set the key that model.api_key_env names, then `evalkit resume --retry model_auth`",
            )
        raise EngineUnavailable(
            f"the environment fails every instance: {attempt.failure.message}",
            hint="see `evalkit doctor`, then finish the run with `evalkit resume`",
        )
