"""A place to build images, with a real engine and a real registry."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cli import Evalkit, Finished, Process
from tests.support.processes import all_end
from tests.support.requirements import require
from tests.support.tasks import make_task
from tests.support.waiting import eventually


@dataclass
class Builds:
    """An engine, a registry, and a command line with an image repository of its own."""

    evalkit: Evalkit
    repository: str
    registry: str
    busybox: str
    python: str

    @property
    def tasks(self) -> Path:
        return self.evalkit.folder / "tasks"

    def task(self, name: str, *lines: str, base: str = "", tests: str = "exit 0") -> Path:
        text = "\n".join([f"FROM {base or self.busybox}", *lines]) + "\n"
        return make_task(self.tasks / name, files={"Dockerfile": text}, tests=tests)

    def settings(self, **keys: object) -> list[str]:
        known = {
            "images.repository": self.repository,
            "images.agent_base": self.python,
            "images.network": "host",
            "workspace.image": self.busybox,
        }
        given = known | {f"images.{key}": value for key, value in keys.items()}
        return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]

    def build(self, *arguments: object, **keys: object) -> Finished:
        return self.evalkit("build-images", self.tasks, *arguments, *self.settings(**keys), timeout=1800)

    def build_below(self, limit: str, *arguments: object) -> Finished:
        """Build after a line of shell has limited the resources of the process."""
        argv = self.evalkit.argv("build-images", self.tasks, *arguments, *self.settings())
        command = ["/bin/sh", "-c", f'{limit} && exec "$@"', "sh", *argv]
        ended = subprocess.run(
            command, cwd=self.evalkit.folder, env=self.evalkit.environment(), capture_output=True, check=False
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr.decode())

    def infer(self, *arguments: object, **keys: object) -> Finished:
        small = ("--set", "workspace.memory=128m", "--workspace", "docker")
        return self.evalkit("infer", self.tasks, *arguments, *small, *self.settings(**keys), timeout=1800)

    def start(self, *arguments: object, **keys: object) -> Process:
        return self.evalkit.start("build-images", self.tasks, *arguments, *self.settings(**keys))

    def tags(self) -> set[str]:
        """Our images on the engine, without the agent's."""
        listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", self.repository).split()
        return {tag for tag in listed if ":agent-" not in tag}

    def run(self, tag: str, *command: str) -> str:
        return docker("run", "--rm", "--network", "none", tag, *command)

    def manifest(self) -> list[dict[str, Any]]:
        path = self.evalkit.folder / "builds" / "tasks-tasks" / "manifest.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def assert_nothing_left(self) -> None:
        assert all_end(self.evalkit.folder)
        assert eventually(lambda: list(self.evalkit.temporary.iterdir()) == [])
        assert eventually(lambda: self.untagged() == [])

    def untagged(self) -> list[str]:
        wanted = ("--filter", "dangling=true", "--filter", "label=evalkit.image", "--format", "{{json .}}")
        ids = docker("image", "ls", "--no-trunc", "--quiet", *wanted[:4]).split()
        labels = [
            docker("image", "inspect", "--format", '{{index .Config.Labels "evalkit.image"}}', each) for each in ids
        ]
        return [label for label in labels if label.startswith(self.repository)]


def docker(*arguments: str) -> str:
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, (arguments, ended.stderr)
    return ended.stdout.strip()


@contextmanager
def open_builds(evalkit: Evalkit) -> Iterator[Builds]:
    """Open a place to build in, and remove its images afterwards."""
    known = [os.environ.get(f"EVALKIT_TEST_{name}") for name in ("REGISTRY", "BUSYBOX_IMAGE", "PYTHON_IMAGE")]
    require("engine", os.environ.get("DOCKER_HOST") and all(known), 'no engine for tests: eval "$(.ci/services start)"')
    registry, busybox, python = map(str, known)
    made = Builds(evalkit, f"{registry}/test-{secrets.token_hex(4)}", registry, busybox, python)
    yield made
    ids = docker("image", "ls", "--quiet", made.repository).split()
    if ids:
        docker("image", "rm", "--force", *dict.fromkeys(ids))


def by_instance(finished: Finished) -> dict[str, dict[str, Any]]:
    return {name: row for row in finished.document["images"] for name in row["instances"]}


def counts(finished: Finished) -> tuple[int, int, int, int]:
    document = finished.document
    return document["planned"], document["built"], document["skipped"], document["failed"]
