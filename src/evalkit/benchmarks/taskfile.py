"""Reads one task directory, in the layout that Harbor and Terminal-Bench use."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evalkit import files
from evalkit.benchmarks.places import INSTRUCTION, TASK_FILE
from evalkit.config import Size, parse_size
from evalkit.domain.models import Instance, Overrides
from evalkit.errors import DatasetError

CONTAINER_FILES = ("Dockerfile", ".dockerignore", "docker-compose.yaml", "docker-compose.yml")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Variables = dict[str, str]


class _Table(BaseModel):
    # Other tools keep fields of their own in the same file.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Timed(_Table):
    timeout_sec: Seconds | None = None
    env: Variables = Field(default_factory=dict)


def _megabytes(value: Any) -> Any:
    return value << 20 if isinstance(value, int) else parse_size(value)


class _Environment(_Table):
    docker_image: str | None = None
    cpus: float | None = Field(None, gt=0)
    memory: Size | None = None
    memory_mb: Annotated[int, BeforeValidator(_megabytes)] | None = None


class _Solution(_Table):
    env: Variables = Field(default_factory=dict)


class _Evalkit(_Table):
    grade: Literal["fresh", "in_place"] | None = None


class TaskFile(_Table):
    metadata: dict[str, Any] = Field(default_factory=dict)
    agent: _Timed = _Timed()
    verifier: _Timed = _Timed()
    solution: _Solution = _Solution()
    environment: _Environment = _Environment()
    evalkit: _Evalkit = _Evalkit()


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


def read_task(folder: Path, *, in_containers: bool) -> Instance:
    """The instance that a task directory is. In containers, a Dockerfile or an image replaces copied files."""
    try:
        statement = (folder / INSTRUCTION).read_text(encoding="utf-8", errors="replace")
        task = Task(folder=folder, file=_read_file(folder / TASK_FILE))
        if not (task.tests / "test.sh").is_file():
            raise DatasetError(f"task {folder} has no tests/test.sh", hint="add the script that grades the task")
        digest = files.digest(folder)
    except FileNotFoundError as error:
        raise DatasetError(f"task {folder} has no {Path(error.filename).name}") from error
    except OSError as error:
        raise DatasetError(f"task {folder} cannot be read: {error}") from error
    file = task.file
    image = file.environment.docker_image if in_containers else None
    build = task.environment if in_containers and image is None and task.dockerfile else None
    grade = file.evalkit.grade or ("in_place" if image or build else "fresh")
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
        ),
        grades_in_place=grade == "in_place",
        digest=digest,
        data=task,
    )


def _read_file(path: Path) -> TaskFile:
    try:
        return TaskFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return TaskFile()
    except ValidationError as error:
        problem = error.errors()[0]
        raise DatasetError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
