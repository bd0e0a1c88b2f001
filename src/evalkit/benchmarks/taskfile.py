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

CONTAINER_FILES = ("Dockerfile", ".dockerignore", "docker-compose.yaml", "docker-compose.yml")

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

    def refused(self) -> Iterator[str]:
        """Features that the task needs and evalkit lacks: without them, its verdict would be wrong."""
        environment, verifier = self.environment, self.verifier
        asked = {
            "steps": self.steps,
            "environment.os": environment.os != "linux",
            "environment.gpus": environment.gpus,
            "environment.tpu": environment.tpu,
            "environment.mcp_servers": environment.mcp_servers,
            "environment.healthcheck": environment.healthcheck,
            "environment.workdir": environment.workdir,
            "agent.user": self.agent.user not in _ROOT,
            "verifier.user": verifier.user not in _ROOT,
            "verifier.environment": verifier.environment,
            "verifier.collect": verifier.collect,
            "allowed_hosts": "allowlist" in (self.agent_network, self.verifier_network),
        }
        yield from (name for name, is_asked in asked.items() if is_asked)

    def without_effect(self) -> Iterator[str]:
        """Fields that are known, and change nothing here."""
        environment = self.environment
        asked = {
            "artifacts": self.artifacts,
            "environment.skills_dir": environment.skills_dir,
        }
        yield from (name for name, is_asked in asked.items() if is_asked)


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
    problem: str | None = None
    """The reason why it cannot run here as intended."""

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


def read_task(folder: Path, *, in_containers: bool) -> Instance:
    """The instance of a task directory. In containers, a Dockerfile or an image takes the place of copied files."""
    try:
        statement = (folder / INSTRUCTION).read_text(encoding="utf-8", errors="replace")
        file = _read_file(folder / TASK_FILE)
        variables, problem = _resolve(file)
        task = Task(folder=folder, file=file, problem=problem)
        if not (task.tests / "test.sh").is_file():
            raise DatasetError(f"task {folder} has no tests/test.sh", hint="add the script that grades the task")
        digest = files.digest(folder)
    except FileNotFoundError as error:
        raise DatasetError(f"task {folder} has no {Path(error.filename).name}") from error
    except OSError as error:
        raise DatasetError(f"task {folder} cannot be read: {error}") from error
    image = file.environment.docker_image if in_containers else None
    build = task.environment if in_containers and image is None and task.dockerfile else None
    grade = (
        file.evalkit.grade or _GRADES.get(file.verifier.environment_mode) or ("in_place" if image or build else "fresh")
    )
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
        grades_in_place=grade == "in_place",
        env=variables,
        offline=file.agent_network == "no-network",
        digest=digest,
        data=task,
    )


def _resolve(file: TaskFile) -> tuple[dict[str, str], str | None]:
    """The variables of the environment, and the reason why the task cannot run, if there is one."""
    if refused := list(file.refused()):
        return {}, f"task.toml asks for {', '.join(refused)}, which evalkit cannot give"
    variables: dict[str, str] = {}
    try:
        variables = resolve(file.environment.env, os.environ)
        resolve(file.verifier.env, os.environ)
    except KeyError as missing:
        return {}, f"task.toml asks for the environment variable {missing.args[0]}, which is not set"
    return variables, None


def _read_file(path: Path) -> TaskFile:
    try:
        return TaskFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return _NO_FILE
    except ValidationError as error:
        problem = error.errors()[0]
        raise DatasetError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
