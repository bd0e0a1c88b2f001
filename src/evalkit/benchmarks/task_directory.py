"""Reads one task directory, in the layout that Harbor and Terminal-Bench use."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from msgspec import structs

from evalkit.benchmarks.compose import COMPOSE_FILE, ComposeSettings, read_composition
from evalkit.benchmarks.compose_file import ComposeRefused
from evalkit.benchmarks.task_steps import file_of_step
from evalkit.benchmarks.taskfile import (
    MAIN,
    EnvironmentTable,
    TaskFile,
    TaskStep,
    describe_missing,
    read_file,
    resolve,
    without_root,
)
from evalkit.domain.networks import BRIDGE, OFFLINE, NetworkPolicy, grader_policy
from evalkit.domain.records import Environment, HealthCheck, Instance, Overrides
from evalkit.domain.services import Composition
from evalkit.errors import DatasetError, first_few
from evalkit.sources.contents import INSTRUCTION, TASK_FILE
from evalkit.system import files

DOCKERFILE = "Dockerfile"
SETUP = "setup.sh"
CONTAINER_FILES = (DOCKERFILE, ".dockerignore", COMPOSE_FILE)

_CANARY = re.compile(r"(<!--.*canary.*-->|#.*canary.*)", re.IGNORECASE)
_LONGEST_FIELD = 80
_GRADES: Mapping[str | None, Literal["fresh", "in_place"]] = {"shared": "in_place", "separate": "fresh"}


@dataclass(frozen=True, slots=True)
class Task:
    """A task directory, or one step of it."""

    folder: Path
    file: TaskFile
    """task.toml, with the settings of the step."""
    step: TaskStep | None = None
    """The step, if this is one of a task with several."""
    whole: TaskFile | None = None
    """task.toml of the task, if this is a step."""
    follows: Literal["shared", "separate"] | None = None
    """The mode of the verifier of the previous step."""

    @property
    def is_last(self) -> bool:
        """Whether no other step follows."""
        steps = self.whole.steps if self.whole else None
        return self.step is None or not steps or self.step.name == steps[-1].name

    @property
    def environment(self) -> Path:
        return self.folder / "environment"

    @property
    def tests(self) -> Path:
        return self.folder / "tests"

    @property
    def test_folders(self) -> list[Path]:
        """The folders with tests. Files of a later folder replace those of an earlier one."""
        folders = [self.tests] if self.step is None else [self.tests, self.own / "tests"]
        return [folder for folder in folders if folder.is_dir()]

    @property
    def test_script(self) -> Path | None:
        return next((path for each in reversed(self.test_folders) if (path := _file_in(each, "test.sh"))), None)

    @property
    def solution(self) -> Path:
        own = self.own / "solution"
        return own if (own / "solve.sh").is_file() else self.folder / "solution"

    @property
    def own(self) -> Path:
        """The folder with the files of this step only."""
        return self.folder if self.step is None else self.folder / "steps" / self.step.name

    @property
    def setup_script(self) -> Path | None:
        """What prepares the step, once its files are in the work folder."""
        return None if self.step is None else _file_in(self.own / "workdir", SETUP)

    @property
    def dockerfile(self) -> Path | None:
        return _file_in(self.environment, DOCKERFILE)

    @property
    def brings_files(self) -> bool:
        """Whether its files are copied into the work folder, because no image contains them.

        Where answers are patches, an image has all files, so that a patch shows what the agent changed.
        """
        if _file_in(self.environment, DOCKERFILE, COMPOSE_FILE) is not None:
            return False
        if self.file.environment.docker_image is None:
            return True
        has_files = self.environment.is_dir() and any(self.environment.iterdir())
        return has_files and self.file.evalkit.grade != "fresh"

    @property
    def has_tests_in_image(self) -> bool:
        """Whether its verifier has an image of its own, which contains the tests."""
        return self.verifier_image is not None

    @property
    def verifier_image(self) -> VerifierImage | None:
        """The image of a separate verifier, if it has one of its own: that of the step, else that of the task."""
        if not self.file.is_separate:
            return None
        places = [((self.whole or self.file).verifier.environment, self.tests)]
        if self.step is not None:
            places.insert(0, (self.step.verifier.environment, self.own / "tests"))
        for table, folder in places:
            name = table.docker_image if table is not None else None
            if name is not None or _file_in(folder, DOCKERFILE, COMPOSE_FILE) is not None:
                return VerifierImage(name, folder)
        return None


@dataclass(frozen=True, slots=True)
class VerifierImage:
    name: str | None
    folder: Path
    """The folder to build it from, unless it has a name."""

    @property
    def build(self) -> Path | None:
        return self.folder if self.name is None and _file_in(self.folder, DOCKERFILE) else None


def _file_in(folder: Path, *names: str) -> Path | None:
    return next((path for name in names if (path := folder / name).is_file()), None)


def read_task(
    folder: Path,
    *,
    in_containers: bool,
    starts_services: bool = True,
    collect_seconds: float = 0.0,
    network: NetworkPolicy = OFFLINE,
) -> Instance:
    """The instance of a task directory.

    In containers, a Dockerfile or an image takes the place of copied files. A task that is refused has a problem, and
    may lack files that other tasks need. The time of its hooks is added to the time for collecting. `network` is what
    the run gives to tasks that ask for none.
    """
    try:
        file = read_file(folder / TASK_FILE)
        digest = files.digest(folder)
        read = partial(
            _read_one,
            in_containers=in_containers,
            starts_services=starts_services,
            collect_seconds=collect_seconds,
            network=network,
            digest=digest,
        )
        whole = read(Task(folder, file))
        if not file.steps or whole.problem is not None:
            return whole
        return _join(whole, {step.name: read(task) for step, task in _split(folder, file)})
    except FileNotFoundError as error:
        missing = Path(error.filename)
        name = missing.relative_to(folder) if missing.is_relative_to(folder) else missing.name
        raise DatasetError(f"task {folder} has no {name}") from error
    except OSError as error:
        raise DatasetError(f"task {folder} cannot be read: {error}") from error


def _split(folder: Path, file: TaskFile) -> Iterator[tuple[TaskStep, Task]]:
    before: Literal["shared", "separate"] | None = None
    for step in file.steps or ():
        task = Task(folder, file_of_step(file, step), step, file, before)
        yield step, task
        before = "separate" if task.file.is_separate else "shared"


def _join(whole: Instance, parts: Mapping[str, Instance]) -> Instance:
    """The instance of a task of several steps. If a step is refused, the whole task is."""
    refused = next((part for part in parts.values() if part.problem is not None), whole)
    return structs.replace(
        whole,
        statement="\n\n".join(part.statement for part in parts.values()),
        parts=parts,
        problem=refused.problem,
        problem_kind=refused.problem_kind,
    )


def _read_one(
    task: Task,
    *,
    in_containers: bool,
    starts_services: bool,
    collect_seconds: float,
    network: NetworkPolicy,
    digest: str,
) -> Instance:
    """The instance of a whole task or of a step."""
    variables, problem = _resolve(task.file)
    services = _read_services(task, variables, can_start=in_containers and starts_services)
    image = _image_of(task, services.of_agent) if in_containers else None
    build = task.environment if in_containers and image is None and task.dockerfile else None
    in_place = _grades_in_place(task.file, in_image=bool(image or build))
    unsupported = list(_unsupported(task.file))
    refusals = [
        *(f"task.toml: {problem}" for problem in task.file.contradictions()),
        *unsupported,
        *_refusals(task, in_containers=in_containers),
        *services.refused,
    ]
    statement = "" if task.file.steps else _read_statement(task, is_needed=not refusals)
    if refusals:
        problem = f"{'; '.join(refusals)}; leave the task out with --select"
    table, metadata = task.file.environment, task.file.metadata
    return Instance(
        id=task.folder.name,
        statement=statement,
        image=image,
        build=build,
        build_seconds=table.build_timeout_sec,
        env={**services.of_agent.main.env, **variables},
        workdir=table.workdir or services.of_agent.main.working_dir,
        needs_workdir=_needs_workdir(table, services.of_agent),
        services=services.of_agent,
        user=_user_in(task.file.agent.user or services.of_agent.main.user, in_containers=in_containers),
        healthcheck=_health_of(table if task.step is None else task.step),
        setup_network=_setup_network(task, network) if in_containers else None,
        gpus=table.gpus or 0,
        mcp_servers=tuple(each.plain() for each in table.mcp_servers),
        skills_dir=table.skills_dir or None,
        fields=_fields_in(metadata),
        overrides=_overrides(task.file, services.of_agent, collect_seconds),
        grades_in_place=in_place,
        verifier=None if problem or task.file.steps else _make_verifier(task, variables, services.of_verifier, network),
        network=_network_of(task.file.agent_policy, in_containers=in_containers),
        problem=problem,
        problem_kind="unsupported" if unsupported else "setup",
        digest=digest,
        data=task,
    )


def _fields_in(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What tasks can be grouped by: short values, and not who wrote them."""
    told = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in metadata.items()
        if isinstance(value, str | int | float)
    }
    return {
        name: value
        for name, value in told.items()
        if 0 < len(value) <= _LONGEST_FIELD and "\n" not in value and not name.startswith("author")
    }


def _network_of(asked: NetworkPolicy | None, *, in_containers: bool) -> NetworkPolicy | None:
    """The network of its agent. In local workspaces, only the run decides whether agents have a public network."""
    return None if asked == NetworkPolicy(BRIDGE) and not in_containers else asked


@dataclass(frozen=True, slots=True)
class _Services:
    """The services of the compose files of a task, and the reasons for refusing them."""

    of_agent: Composition
    of_verifier: Composition
    refused: tuple[str, ...]


def _read_services(task: Task, variables: Mapping[str, str], *, can_start: bool) -> _Services:
    """A verifier with an image of its own has the services of its own file, any other those of the agent."""
    agents, refused = _read_file(task, task.environment, task.file.environment, variables)
    verifiers = agents
    if (own := task.verifier_image) is not None:
        table = task.file.verifier_environment
        verifiers, more = _read_file(task, own.folder, table, variables)
        refused += more
    if not can_start and not refused and (agents.services or verifiers.services):
        refused = (f"environment/{COMPOSE_FILE} asks for services, which --workspace docker starts",)
    return _Services(agents, verifiers, refused)


def _read_file(
    task: Task, folder: Path, table: EnvironmentTable, variables: Mapping[str, str]
) -> tuple[Composition, tuple[str, ...]]:
    settings = ComposeSettings(task.folder, variables, table.docker_image, table.cpus, table.memory or table.memory_mb)
    try:
        return read_composition(folder, settings) or Composition(), ()
    except ComposeRefused as refused:
        where = f"{folder.relative_to(task.folder)}/{COMPOSE_FILE}"
        return Composition(), (f"{where} asks for what evalkit cannot give: {first_few(refused.problems)}",)


def _image_of(task: Task, services: Composition) -> str | None:
    """The name of the image. A compose file takes precedence over task.toml."""
    named = task.file.environment.docker_image
    return named if task.dockerfile and named is None else services.main.image or named


def _overrides(file: TaskFile, services: Composition, collect_seconds: float) -> Overrides:
    """The limits of the compose file take precedence over those of task.toml, as in Harbor."""
    table = file.environment
    hooks = sum(hook.timeout_sec for hook in file.verifier.collect)
    return Overrides(
        solve=file.agent.timeout_sec,
        collect=collect_seconds + hooks if hooks else None,
        grade=file.verifier.timeout_sec,
        memory=services.main.memory or table.memory or table.memory_mb,
        cpus=services.main.cpus or table.cpus,
        disk=table.storage or table.storage_mb,
    )


def _setup_network(task: Task, given: NetworkPolicy) -> NetworkPolicy | None:
    """What set-up and health check may reach, if there are any: what the environment asks for, else what is given."""
    has_check = (task.file.environment if task.step is None else task.step).healthcheck is not None
    return task.file.environment.policy or given if has_check or task.setup_script is not None else None


def _make_verifier(
    task: Task, variables: Mapping[str, str], services: Composition, network: NetworkPolicy
) -> Environment | None:
    """The environment of a separate verifier: an image of its own, or a fresh one of the agent's."""
    file = task.file
    if not file.is_separate:
        return None
    own, table, image = file.verifier.environment, file.verifier_environment, task.verifier_image
    build = image.build if image else None
    name = (image.name or services.main.image) if image and build is None else None
    return Environment(
        image=name,
        build=build,
        build_seconds=table.build_timeout_sec or file.environment.build_timeout_sec,
        env={**services.main.env, **(variables if own is None else resolve(own.env, os.environ))},
        services=services,
        workdir=table.workdir or services.main.working_dir,
        needs_workdir=_needs_workdir(table, services),
        user=file.verifier.user or services.main.user,
        healthcheck=_health_of(table),
        setup_network=grader_policy(table.policy, network) if table.healthcheck else None,
        gpus=table.gpus or 0,
        overrides=Overrides(
            memory=services.main.memory or table.memory or table.memory_mb,
            cpus=services.main.cpus or table.cpus,
            disk=table.storage or table.storage_mb,
        ),
    )


def _needs_workdir(table: EnvironmentTable, services: Composition) -> bool:
    """Whether the work folder has to be in the image: a mount may be what makes it."""
    return table.workdir is not None and not services.main.mounts


def _health_of(table: EnvironmentTable | TaskStep) -> HealthCheck | None:
    return table.healthcheck.plain() if table.healthcheck else None


def _user_in(user: str | None, *, in_containers: bool) -> str | None:
    """The user. Local workspaces have no users: a task that names one is refused there."""
    return user if in_containers else None


def _grades_in_place(file: TaskFile, *, in_image: bool) -> bool:
    if file.steps:
        return True
    asked = file.evalkit.grade or _GRADES.get(file.verifier.mode)
    return in_image if asked is None else asked == "in_place"


def _unsupported(file: TaskFile) -> Iterator[str]:
    """Requirements that no machine with evalkit meets."""
    tables = {"environment": file.environment}
    if file.verifier.environment is not None:
        tables["verifier.environment"] = file.verifier.environment
    for name, table in tables.items():
        if table.os != "linux":
            yield f"task.toml asks for {name}.os = {table.os}, and evalkit runs Linux only"
        if table.tpu is not None:
            yield f"task.toml asks for {name}.tpu, which no engine gives to a container here"


def _refusals(task: Task, *, in_containers: bool) -> Iterator[str]:
    """Requirements that evalkit does not meet, by field or file."""
    if not _file_in(task.environment, COMPOSE_FILE) and (names := _services_asked(task.file)):
        yield f"task.toml collects from {', '.join(names)}, and there is no environment/{COMPOSE_FILE}"
    if not in_containers and (refused := [name for name, is_asked in _of_containers(task).items() if is_asked]):
        yield f"task.toml asks for {', '.join(refused)}, which --workspace docker gives"
    excluded = _file_in(task.tests, DOCKERFILE, COMPOSE_FILE)
    if task.file.verifier.mode == "separate" and not task.file.is_separate and excluded:
        yield f"tests/{excluded.name} asks for an image of the verifier's own, which evalkit.grade excludes"


def _services_asked(file: TaskFile) -> list[str]:
    """The services, other than the agent's, that artifacts and hooks name."""
    named = [*(each.service for each in file.artifacts), *(hook.service for hook in file.verifier.collect)]
    return list(dict.fromkeys(name for name in named if name != MAIN))


def _of_containers(task: Task) -> dict[str, bool]:
    """Fields that only containers support."""
    file = task.file
    return {
        "steps": bool(file.steps),
        "environment.docker_image": file.environment.docker_image is not None,
        "environment.workdir": file.environment.workdir is not None,
        "environment.skills_dir": bool(file.environment.skills_dir),
        "environment.gpus": bool(file.environment.gpus),
        "agent.user": without_root(file.agent.user) is not None,
        "verifier.user": without_root(file.verifier.user) is not None,
        "verifier.environment_mode": file.is_separate,
        "verifier.collect": bool(file.verifier.collect),
    }


def _read_statement(task: Task, *, is_needed: bool) -> str:
    path = task.own / INSTRUCTION
    if not is_needed and not path.exists():
        return ""
    statement = path.read_text(encoding="utf-8", errors="replace")
    if is_needed and not task.has_tests_in_image and task.test_script is None:
        raise DatasetError(f"task {task.folder} has no tests/test.sh", hint="add the script that grades the task")
    return strip_canary(statement)


def strip_canary(statement: str) -> str:
    """The statement without the canary at its start, which marks it as part of a benchmark."""
    lines = statement.split("\n")
    marks = list(itertools.takewhile(lambda line: _CANARY.fullmatch(line.strip()), lines))
    return "\n".join(lines[len(marks) :]).lstrip("\n") if marks else statement


def _resolve(file: TaskFile) -> tuple[dict[str, str], str | None]:
    """The variables of the environment, and the name of one that is not set, as the reason for refusing the task."""
    try:
        variables = resolve(file.environment.env, os.environ)
        resolve(file.verifier.env, os.environ)
        resolve(file.verifier_environment.env, os.environ)
    except KeyError as missing:
        return {}, describe_missing(missing)
    return variables, None
