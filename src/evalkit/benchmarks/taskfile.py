"""Reads one task directory, in the layout that Harbor and Terminal-Bench use."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evalkit.benchmarks.task_folders import INSTRUCTION, TASK_FILE
from evalkit.config import Size, parse_size
from evalkit.domain.records import Instance, Overrides
from evalkit.errors import DatasetError
from evalkit.system import files

COMPOSE = "docker-compose.yaml"
CONTAINER_FILES = ("Dockerfile", ".dockerignore", COMPOSE, "docker-compose.yml")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Variables = dict[str, str]
Network = Literal["no-network", "public", "allowlist"]

_GRADES: Mapping[str | None, Literal["fresh", "in_place"]] = {"shared": "in_place", "separate": "fresh"}
_ROOT = (None, "root", 0)
_TEMPLATE = re.compile(r"\$\{(?P<name>[^}:]+)(?::-(?P<default>.*))?\}")


def _check_version(value: Any) -> str:
    version = str(value)
    if version.partition(".")[0] != "1":
        raise ValueError(f"version {version} is not known, 1.0 to 1.4 are")
    return version


Version = Annotated[str, BeforeValidator(_check_version)]


class _Table(BaseModel):
    # Keep fields of other tools and later versions, so that warnings can name them.
    model_config = ConfigDict(frozen=True, extra="allow")


class _Phase(_Table):
    timeout_sec: Seconds | None = None
    user: str | int | None = None
    network_mode: Network | None = None
    allowed_hosts: list[str] | None = None


class _Verifier(_Phase):
    env: Variables = Field(default_factory=dict)
    environment_mode: Literal["shared", "separate"] | None = None
    environment: dict[str, Any] | None = None
    collect: list[dict[str, Any]] = Field(default_factory=list)


def _megabytes(value: Any) -> Any:
    return value << 20 if isinstance(value, int) else parse_size(value)


class _Environment(_Table):
    docker_image: str | None = None
    build_timeout_sec: Seconds | None = None
    os: Annotated[str, AfterValidator(str.lower)] = "linux"
    cpus: float | None = Field(None, gt=0, allow_inf_nan=False)
    memory: Size | None = None
    memory_mb: Annotated[int, BeforeValidator(_megabytes)] | None = None
    storage: Size | None = None
    storage_mb: Annotated[int, BeforeValidator(_megabytes)] | None = None
    gpus: int | None = Field(None, ge=0)
    gpu_types: list[str] | None = None
    tpu: dict[str, Any] | None = None
    env: Variables = Field(default_factory=dict)
    mcp_servers: list[dict[str, Any]] = Field(default_factory=list)
    skills_dir: str | None = None
    healthcheck: dict[str, Any] | None = None
    workdir: str | None = None
    network_mode: Network | None = None
    allow_internet: bool | None = None
    allowed_hosts: list[str] | None = None

    @property
    def network(self) -> Network | None:
        if self.network_mode is None and self.allow_internet is not None:
            return "public" if self.allow_internet else "no-network"
        return self.network_mode


class _Solution(_Table):
    env: Variables = Field(default_factory=dict)


class _Evalkit(_Table):
    model_config = ConfigDict(frozen=True, extra="forbid")

    grade: Literal["fresh", "in_place"] | None = None


class TaskFile(_Table):
    """All fields of the versions 1.0 to 1.4."""

    schema_version: Version = Field("1.0", validation_alias=AliasChoices("schema_version", "version"))
    task: dict[str, Any] | None = None
    source: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    agent: _Phase = _Phase()
    verifier: _Verifier = _Verifier()
    solution: _Solution = _Solution()
    environment: _Environment = _Environment()
    artifacts: list[Any] = Field(default_factory=list)
    steps: list[dict[str, Any]] | None = None
    multi_step_reward_strategy: str | None = None
    evalkit: _Evalkit = _Evalkit()

    @property
    def agent_network(self) -> Network | None:
        return self.agent.network_mode or self.environment.network

    @property
    def verifier_network(self) -> Network | None:
        return self.verifier.network_mode or self.environment.network

    @property
    def names_hosts(self) -> bool:
        """Whether a phase has an allow-list, or a table lists hosts without asking for one."""
        tables = (self.environment, self.agent, self.verifier)
        is_unclear = any(table.allowed_hosts and table.network_mode != "allowlist" for table in tables)
        return is_unclear or "allowlist" in (self.agent_network, self.verifier_network)

    @property
    def has_separate_verifier(self) -> bool:
        return self.verifier.environment_mode == "separate"

    def refused(self) -> Iterator[str]:
        """Fields that the task needs and evalkit lacks: without them, its verdict would be wrong."""
        environment, verifier = self.environment, self.verifier
        asked = {
            "steps": self.steps,
            "environment.os": environment.os != "linux",
            "environment.gpus": environment.gpus,
            "environment.tpu": environment.tpu,
            "environment.mcp_servers": environment.mcp_servers,
            "environment.healthcheck": environment.healthcheck,
            "environment.workdir": environment.workdir,
            "environment.skills_dir": environment.skills_dir,
            "agent.user": self.agent.user not in _ROOT,
            "verifier.user": verifier.user not in _ROOT,
            # It gets the artifacts and nothing else, where a fresh workspace here gets the whole work folder.
            "verifier.environment_mode": self.has_separate_verifier and self.evalkit.grade is None,
            "verifier.environment": verifier.environment is not None,
            "verifier.collect": verifier.collect,
            "allowed_hosts": self.names_hosts,
        }
        yield from (name for name, is_asked in asked.items() if is_asked)

    def without_effect(self) -> Iterator[str]:
        """Fields that are known, and change nothing here."""
        if self.artifacts:
            yield "artifacts"


_NO_FILE = TaskFile()
"""The fields of a task without task.toml."""


def unknown_fields(table: BaseModel, prefix: str = "") -> Iterator[str]:
    """Fields that no version has, each with the known one that may be meant."""
    known = type(table).model_fields
    for name in table.model_extra or ():
        nearest = difflib.get_close_matches(name, known, n=1)
        yield f"{prefix}{name}" + (f" (did you mean {nearest[0]}?)" if nearest else "")
    for name in known:
        value = getattr(table, name)
        if isinstance(value, _Table):
            yield from unknown_fields(value, f"{prefix}{name}.")


def resolve(variables: Variables, environment: Mapping[str, str]) -> dict[str, str]:
    """Replace ${NAME} and ${NAME:-default} by variables of this machine. Raises KeyError for an unset NAME."""
    resolved = {}
    for name, value in variables.items():
        template = _TEMPLATE.fullmatch(value)
        if template is None:
            resolved[name] = value
        elif template["name"] in environment:
            resolved[name] = environment[template["name"]]
        elif template["default"] is not None:
            resolved[name] = template["default"]
        else:
            raise KeyError(template["name"])
    return resolved


class Task(_Table):
    """A task directory, checked."""

    folder: Path
    file: TaskFile

    @property
    def environment(self) -> Path:
        return self.folder / "environment"

    @property
    def tests(self) -> Path:
        return self.folder / "tests"

    @property
    def solution(self) -> Path:
        return self.folder / "solution"

    @property
    def dockerfile(self) -> Path | None:
        path = self.environment / "Dockerfile"
        return path if path.is_file() else None


def read_task(folder: Path, *, in_containers: bool, network: str = "none") -> Instance:
    """The instance of a task directory, in a run whose agents get this network.

    In containers, a Dockerfile or an image takes the place of copied files. A task that is refused has a problem, and
    may lack files that other tasks need.
    """
    try:
        file = _read_file(folder / TASK_FILE)
        task = Task(folder=folder, file=file)
        image = file.environment.docker_image if in_containers else None
        build = task.environment if in_containers and image is None and task.dockerfile else None
        in_place = _grades_in_place(file, in_image=bool(image or build))
        refusals = [
            *_refusals(task, in_containers=in_containers),
            *_network_refusals(file, network, in_place=in_place),
        ]
        statement = _read_statement(task, is_needed=not refusals)
        variables, problem = _resolve(file)
        digest = files.digest(folder)
    except FileNotFoundError as error:
        raise DatasetError(f"task {folder} has no {Path(error.filename).name}") from error
    except OSError as error:
        raise DatasetError(f"task {folder} cannot be read: {error}") from error
    if refusals:
        problem = f"{'; '.join(refusals)}; leave the task out with --select"
    return Instance(
        id=folder.name,
        statement=statement,
        image=image,
        build=build,
        fields={name: str(file.metadata[name]) for name in ("difficulty", "category") if name in file.metadata},
        overrides=Overrides(
            solve=file.agent.timeout_sec,
            grade=file.verifier.timeout_sec,
            memory=file.environment.memory or file.environment.memory_mb,
            cpus=file.environment.cpus,
            disk=file.environment.storage or file.environment.storage_mb,
        ),
        grades_in_place=in_place,
        env=variables,
        offline=file.agent_network == "no-network",
        problem=problem,
        digest=digest,
        data=task,
    )


def leads_out(network: str) -> bool:
    """Whether this network reaches more than the model."""
    return network not in ("none", "model")


def _grades_in_place(file: TaskFile, *, in_image: bool) -> bool:
    asked = file.evalkit.grade or _GRADES.get(file.verifier.environment_mode)
    return in_image if asked is None else asked == "in_place"


def _refusals(task: Task, *, in_containers: bool) -> Iterator[str]:
    """What the task needs and evalkit lacks, by field or file."""
    if refused := list(task.file.refused()):
        yield f"task.toml asks for {', '.join(refused)}, which evalkit cannot give"
    if task.file.environment.docker_image and not in_containers:
        yield "task.toml asks for environment.docker_image, which --workspace docker gives"
    if (task.environment / COMPOSE).is_file():
        yield f"environment/{COMPOSE} asks for services, which evalkit does not start"
    if task.file.has_separate_verifier:
        for name in ("Dockerfile", COMPOSE):
            if (task.tests / name).is_file():
                yield f"tests/{name} asks for an environment of the verifier's own, which evalkit cannot give"


def _network_refusals(file: TaskFile, network: str, *, in_place: bool) -> Iterator[str]:
    """Tests in the agent's own workspace have its network, so a task that gives them another one is refused."""
    if not in_place:
        return
    asked = f"task.toml asks for {_describe_verifier_network(file)}"
    is_offline = file.agent_network == "no-network"
    has_network = leads_out(network) and not is_offline
    if file.verifier_network == "public" and is_offline:
        yield f"{asked}, and its tests run where the agent had no network"
    elif file.verifier.network_mode == "public" and not has_network:
        yield f"{asked}, which its tests have with workspace.network = bridge"
    elif file.verifier_network == "no-network" and has_network:
        yield f"{asked}, which its tests have with workspace.network = none"


def _describe_verifier_network(file: TaskFile) -> str:
    """The field that sets the network of the tests, with its value."""
    if file.verifier.network_mode is not None:
        return f"verifier.network_mode = {file.verifier.network_mode}"
    if file.environment.network_mode is not None:
        return f"environment.network_mode = {file.environment.network_mode}"
    return f"environment.allow_internet = {str(file.environment.allow_internet).lower()}"


def _read_statement(task: Task, *, is_needed: bool) -> str:
    path = task.folder / INSTRUCTION
    if not is_needed and not path.exists():
        return ""
    statement = path.read_text(encoding="utf-8", errors="replace")
    if is_needed and not (task.tests / "test.sh").is_file():
        raise DatasetError(f"task {task.folder} has no tests/test.sh", hint="add the script that grades the task")
    return statement


def _resolve(file: TaskFile) -> tuple[dict[str, str], str | None]:
    """The variables of the environment, and the reason why the task cannot run, if one is not set."""
    try:
        variables = resolve(file.environment.env, os.environ)
        resolve(file.verifier.env, os.environ)
    except KeyError as missing:
        return {}, describe_missing(missing)
    return variables, None


def describe_missing(variable: KeyError) -> str:
    return f"task.toml asks for the environment variable {variable.args[0]}, which is not set"


def _read_file(path: Path) -> TaskFile:
    try:
        return TaskFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return _NO_FILE
    except ValidationError as error:
        problem = error.errors()[0]
        raise DatasetError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: it is nested too deep") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
