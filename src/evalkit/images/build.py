"""Makes the images of a plan: each is skipped, built or failed, whatever becomes of the others."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import anyio

from evalkit.config import Config
from evalkit.containers import reference
from evalkit.containers.docker_cli import Docker, LocalImages
from evalkit.containers.existence import Existence, backoff
from evalkit.containers.registry import Found, Missing, Unknown
from evalkit.domain.failures import unwrap
from evalkit.domain.rows import timestamp
from evalkit.errors import EngineUnavailable, EvalkitError
from evalkit.images.builder import Builder, find_builder
from evalkit.images.disk import Disk
from evalkit.images.dockerfile import LABEL
from evalkit.images.plan import ImageSpec, Plan
from evalkit.images.pool import Pool, WorkerDied
from evalkit.images.worker import BuildCommand, BuildReport, Order

ImageStatus = Literal["built", "skipped", "failed"]
_LONGEST_ERROR = 1000
_LAST_LINES = 8
# As BuildKit shows what a step printed: its number, the time, the line.
_PRINTED = re.compile(r"#\d+ \d+\.\d+ (.*)")

T = TypeVar("T")


class ImageFailed(Exception):
    """One image cannot be made. The others can."""


class AgentImageFailed(EvalkitError):
    """The agent cannot be installed, so no image can have it."""

    kind = "agent_image"


class BuildObserver(Protocol):
    """Is told what happens to images."""

    def entered(self, name: str, stage: str) -> None: ...

    def left(self, name: str) -> None:
        """What is no image of the plan itself is done, or given up."""
        ...

    def retrying(self, tag: str, problem: str, delay: float) -> None: ...

    def finished(self, tag: str, status: ImageStatus, seconds: float, problem: str | None) -> None: ...


@dataclass(slots=True)
class Making:
    """One image under way, and what it has come to."""

    tag: str | None
    base: str
    instances: Sequence[str] = ()
    status: ImageStatus = "built"
    tries: int = 0
    pushed: bool = False
    error: str | None = None
    log: Path | None = None
    stages: dict[str, float] = field(default_factory=dict)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def seconds(self) -> float:
        """Of work, without the time that it waited for its turn or for what others need too."""
        return round(sum(self.stages.values()), 3)

    def spend(self, stages: Mapping[str, float]) -> None:
        for stage, seconds in stages.items():
            self.stages[stage] = round(self.stages.get(stage, 0.0) + seconds, 3)

    def row(self) -> dict[str, Any]:
        return {
            "tag": self.tag,
            "base": self.base,
            "status": self.status,
            "attempts": self.tries,
            "seconds": self.seconds,
            "log": str(self.log) if self.log and self.log.exists() else None,
            "error": self.error,
            "pushed": self.pushed,
            "instances": list(self.instances),
            "started_at": timestamp(self.started_at),
            "finished_at": timestamp(),
            "stages": self.stages,
        }


class Once(Generic[T]):
    """Work that many wait for, and that is done once. All of them get what came of it."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._lock = anyio.Lock()
        self._results: list[T] = []
        self._problem: ImageFailed | EvalkitError | None = None

    async def __call__(self) -> T:
        async with self._lock:
            if self._problem is not None:
                raise self._problem
            if not self._results:
                try:
                    self._results.append(await self._work())
                except (ImageFailed, EvalkitError) as error:
                    self._problem = error
                    raise
            return self._results[0]


@dataclass(slots=True)
class Batch:
    plan: Plan
    config: Config
    docker: Docker
    existence: Existence
    pool: Pool
    disk: Disk
    scratch: Path
    agent_folder: Path
    """The context of the agent's image."""
    secrets: Mapping[str, Path]
    log_of: Callable[[str], Path]
    record: Callable[[dict[str, Any]], None]
    observer: BuildObserver
    force: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    agent_row: dict[str, Any] | None = None
    _local: LocalImages = field(default_factory=lambda: LocalImages({}, {}))
    _builder: Once[Builder] = field(init=False)
    _agent: Once[None] = field(init=False)
    _bases: dict[str, Once[None]] = field(default_factory=dict)
    _pulled: set[str] = field(default_factory=set)
    _uses: Counter[str] = field(default_factory=Counter)
    _pulls: anyio.CapacityLimiter = field(init=False)
    _stopped: EvalkitError | None = None

    def __post_init__(self) -> None:
        self._builder = Once(self._find_builder)
        self._agent = Once(self._make_agent)
        self._pulls = anyio.CapacityLimiter(self.config.images.pulls)

    async def make(self) -> None:
        """Record what becomes of each image. Raises EvalkitError where the rest cannot be made; it can be later."""
        for problem in self.plan.unplanned:
            self._finish(Making(None, problem.base, problem.instances, "failed", error=problem.reason))
        self._local = await self.docker.images()
        self._uses.update(base for image in self.plan.images for base in image.needs)
        try:
            async with anyio.create_task_group() as tasks:
                for image in self.plan.images:
                    tasks.start_soon(self._make, image)
        except BaseExceptionGroup as group:
            fatal, _ = group.split(EvalkitError)
            raise unwrap(fatal or group) from group
        if self._stopped is not None:
            raise self._stopped
        if any(row["status"] == "built" for row in self.rows):
            await self.docker.prune_untagged(LABEL)

    async def _make(self, image: ImageSpec) -> None:
        making = Making(image.tag, image.base, image.instances, log=self.log_of(image.tag))
        in_registry = False
        try:
            in_registry = await self._bring_about(image, making)
        except ImageFailed as error:
            making.status, making.error = "failed", str(error)
        except EvalkitError as error:
            self._stopped = self._stopped or error
            return
        self._finish(making)
        self._uses.subtract(image.needs)
        if in_registry and self.config.images.drop_after_push:
            await self._drop(image)

    async def _bring_about(self, image: ImageSpec, making: Making) -> bool:
        """Whether the image has come to be in the registry too."""
        is_local = image.tag in self._local and not self.force
        pushes = self.config.images.push
        began = time.monotonic()
        is_complete = not self.force and await self._is_complete(image.tag, is_local=is_local)
        making.spend({"look": time.monotonic() - began})
        if is_complete:
            making.status = "skipped"
            return pushes
        if is_local:
            making.status = "skipped"
        else:
            await self._provide_parts(image)
        await self._carry_out(making, lambda: self._order(image, is_local=is_local))
        making.pushed = pushes
        return pushes

    async def _provide_parts(self, image: ImageSpec) -> None:
        """What the image is made from, each made or pulled once for all images."""
        if self.plan.agent is not None:
            await self._agent()
        for base in image.needs:
            if base not in self._local:
                await self._bases.setdefault(base, Once(partial(self._pull, base)))()

    async def _is_complete(self, tag: str, *, is_local: bool) -> bool:
        """Whether nothing is left to do. A registry that does not say is no reason to build, nor to skip."""
        image = reference.parse(tag)
        if not self.config.images.push and (is_local or image.host == reference.DOCKER_HUB):
            return is_local
        answer = await self.existence.ask(image)
        if isinstance(answer, Unknown):
            raise ImageFailed(f"nobody knows whether it exists: {answer.reason}")
        return isinstance(answer, Found)

    async def _order(self, image: ImageSpec, *, is_local: bool) -> Order:
        builder = await self._builder()
        images, commands, files = self.config.images, [], {}
        if not is_local:
            name = image.tag.rpartition(":")[2]
            dockerfile = self.scratch / f"{name}.Dockerfile"
            files[str(dockerfile)] = self.plan.dockerfile(image, builder.syntax)
            context = image.context or self.scratch / "empty"
            arguments = [f"--build-arg={key}={value}" for key, value in images.build_args.items() if image.context]
            installs = self.plan.agent is not None and self.plan.agent.strategy == "install"
            commands.append(self._build_command(builder, image.tag, dockerfile, context, arguments, secret=installs))
        if images.push:
            push = (builder.program, "push", image.tag)
            commands.append(BuildCommand("push", push, self.config.timeouts.build, images.stall))
        return Order(image.tag, tuple(commands), files, builder.environment, str(self.log_of(image.tag)))

    def _build_command(
        self, builder: Builder, tag: str, dockerfile: Path, context: Path, arguments: Sequence[str], *, secret: bool
    ) -> BuildCommand:
        images = self.config.images
        options = ["--tag", tag, "--file", str(dockerfile), *arguments]
        if images.network != "default":
            options += ["--network", images.network]
        if images.platform:
            options += ["--platform", images.platform]
        if secret:
            options += [f"--secret=id={name},src={path}" for name, path in self.secrets.items()]
        argv = builder.command(*options, str(context))
        return BuildCommand("build", argv, self.config.timeouts.build, images.stall)

    async def _carry_out(self, making: Making, make_order: Callable[[], Awaitable[Order]]) -> None:
        """Build, and build again, until it is done or hopeless."""
        while True:
            async with self.pool.worker() as worker:
                if self._stopped is not None:
                    raise self._stopped
                await self.disk.require_room()
                order = await make_order()
                making.tries += 1
                self.observer.entered(str(making.tag), "build")
                try:
                    report = await worker.carry_out(order)
                except WorkerDied as error:
                    report = BuildReport(str(error), "", {})
            making.spend(report.seconds)
            if report.problem is None:
                return
            if not await self.docker.answers():
                raise EngineUnavailable(
                    "the engine does not answer any more", hint="start it, and run the same command again"
                )
            problem = _describe(report)
            if report.final or making.tries > self.config.images.retries:
                raise ImageFailed(problem)
            delay = backoff(making.tries)
            self.observer.retrying(str(making.tag), problem, delay)
            await anyio.sleep(delay)

    async def _find_builder(self) -> Builder:
        builder = await find_builder(self.docker)
        if self.secrets and not builder.syntax.mounts:
            raise AgentImageFailed(
                "images.install_env, pip_conf and ca_bundle need BuildKit, and only the classic builder works here",
                hint="install Docker's buildx plugin",
            )
        return builder

    async def _make_agent(self) -> None:
        """The image that all others copy from or install from."""
        assert self.plan.agent is not None
        tag, base = self.plan.agent.tag, self.plan.agent.base
        making = Making(tag, base.name if base else "scratch", log=self.log_of(tag))
        try:
            if tag in self._local and not self.force:
                making.status = "skipped"
            else:
                if base is not None and base.name not in self._local:
                    await self._pull(base.name)
                await self._carry_out(making, self._order_agent)
        except ImageFailed as error:
            raise AgentImageFailed(f"the agent cannot be installed: {error}", hint=f"see {making.log}") from error
        finally:
            self.observer.left(tag)
        self.agent_row = making.row()

    async def _order_agent(self) -> Order:
        agent = self.plan.agent
        assert agent is not None
        builder = await self._builder()
        dockerfile = self.scratch / "agent.Dockerfile"
        installs = agent.strategy == "layer"
        command = self._build_command(builder, agent.tag, dockerfile, self.agent_folder, (), secret=installs)
        files = {str(dockerfile): agent.dockerfile(builder.syntax)}
        return Order(agent.tag, (command,), files, builder.environment, str(self.log_of(agent.tag)))

    async def _pull(self, name: str) -> None:
        tries = 0
        while True:
            async with self._pulls:
                self.observer.entered(name, "pull")
                said = await self.docker.pull(name, self.config.images.platform, self.config.timeouts.build)
                self.observer.left(name)
            if said.code == 0:
                break
            tries += 1
            # The registry says in numbers what Docker's command says in words.
            answer = await self.existence.ask(reference.parse(name))
            if isinstance(answer, Missing):
                raise ImageFailed(f"there is no image {name}")
            if tries > self.config.images.retries:
                raise ImageFailed(f"{name} cannot be pulled: {said.last_line}")
            await anyio.sleep(backoff(tries))
        self._pulled.add(name)
        architectures = await self.docker.architectures([name])
        obstacle = self.plan.agent.obstacle(architectures.get(name)) if self.plan.agent else None
        if obstacle:
            raise ImageFailed(f"{name}: {obstacle}")

    def _finish(self, making: Making) -> None:
        row = making.row()
        self.rows.append(row)
        self.record(row)
        self.observer.finished(making.tag or making.base, making.status, making.seconds, making.error)

    async def _drop(self, image: ImageSpec) -> None:
        """The image, and the bases that were only pulled for it and those before it."""
        done = [base for base in image.needs if base in self._pulled and not self._uses[base]]
        await self.disk.drop([image.tag, *done])


def _describe(report: BuildReport) -> str:
    """What went wrong, and the last that was said by what did it rather than by the builder."""
    lines = [line.strip() for line in report.tail.splitlines() if line.strip()]
    printed = [found[1] for line in lines if (found := _PRINTED.fullmatch(line))]
    last = " | ".join((printed or lines)[-_LAST_LINES:])
    return f"{report.problem}: {last[-_LONGEST_ERROR:]}" if last else str(report.problem)
