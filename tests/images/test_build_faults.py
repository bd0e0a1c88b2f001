"""Builds that are cancelled, and builds whose `docker` fails: what is left, and what becomes of the other images."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import anyio
import pytest

from evalkit.config import Config
from evalkit.containers import docker_cli
from evalkit.containers.existence import Existence
from evalkit.containers.registry import Registry
from evalkit.images.build import Results, build
from evalkit.images.inputs import Sources
from evalkit.images.plan import ImageSpec, Plan
from evalkit.store.builds import BuildDirectory
from tests.support.cancellation import cancel_at_each_checkpoint
from tests.support.docker_cli import FakeDocker
from tests.support.processes import all_end, processes_of
from tests.support.registry import FakeRegistry, fake_registry
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes and files are looked for in /proc")


@dataclass
class Watch:
    """Remembers what it was told."""

    tries: list[str] = field(default_factory=list)
    retries: list[tuple[str, str]] = field(default_factory=list)

    def entered(self, name: str, stage: str) -> None:
        self.tries.append(name)

    def left(self, name: str) -> None:
        pass

    def retrying(self, tag: str, problem: str, delay: float) -> None:
        self.retries.append((tag, problem))

    def finished(self, tag: str, status: str, seconds: float, problem: str | None) -> None:
        pass


@dataclass
class Place:
    """A folder with all that a build writes, and a `docker` in front of all others."""

    folder: Path
    docker: FakeDocker
    registry: FakeRegistry
    config: Config = field(default_factory=Config)
    watch: Watch = field(default_factory=Watch)
    results: Results = field(init=False)

    @property
    def repository(self) -> str:
        return f"{self.registry.host}/evals"

    def configure(self, **images: Any) -> None:
        given = {"repository": self.repository, "disk_floor": 0, "retries": 0, "workers": 4, **images}
        self.config = Config.model_validate({"images": given})

    def image(self, name: str, *needs: str) -> ImageSpec:
        return ImageSpec(f"{self.repository}:{name}", "base", "FROM scratch\n", needs, None, (name,))

    async def build(self, *images: ImageSpec) -> Results:
        """As the command does, with a build folder and a private one."""
        (self.folder / "private").mkdir(exist_ok=True)
        (self.folder / "private" / "empty").mkdir(exist_ok=True)
        directory = BuildDirectory(self.folder / "builds")
        docker = await docker_cli.find()
        existence = Existence(Registry(lambda _host: None, frozenset({self.registry.host})), 0)
        self.results = Results(directory.append)
        with directory.writing():
            await build(
                Plan(images, (), {}),
                self.config,
                Sources(docker, existence),
                folder=self.folder / "private",
                log_of=directory.log_of,
                results=self.results,
                observer=self.watch,
            )
        return self.results

    def forget(self) -> None:
        """As if nothing had been built yet."""
        self.docker.reset()
        (self.folder / "builds" / "manifest.jsonl").unlink(missing_ok=True)

    def manifest(self) -> list[dict[str, Any]]:
        """Complete lines, each of them a row."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "builds" / "manifest.jsonl").read_text().splitlines()]
        return []

    def statuses(self) -> dict[str, str]:
        return {row["tag"].rpartition(":")[2]: row["status"] for row in self.results.rows}

    def errors(self) -> dict[str, str]:
        return {row["tag"].rpartition(":")[2]: row["error"] for row in self.results.rows if row["error"]}


def open_pipes() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if (target := str(link.readlink())).startswith(("pipe:", "socket:")):
                found.add(target)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Afterwards, no process, thread, pipe and temporary file of a build is left."""
    resource_tracker.ensure_running()
    docker = FakeDocker(tmp_path / "docker")
    monkeypatch.setenv("PATH", f"{docker.programs}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with fake_registry() as registry:
        threads = set(threading.enumerate())
        place = Place(tmp_path, docker, registry)
        place.configure()
        yield place
        assert all_end(tmp_path)
        assert list((tmp_path / "temporary").iterdir()) == []
        assert eventually(lambda: set(threading.enumerate()) <= threads)


# --- cancellation ---


async def settles(condition: Callable[[], bool]) -> bool:
    with anyio.move_on_after(10):
        while not condition():  # noqa: ASYNC110  # what is waited for is in other threads and processes
            await anyio.sleep(0.002)
    return condition()


async def nothing_is_left(place: Place, pipes: set[str], where: str) -> None:
    """What was cancelled has ended its processes before it ended itself; the kernel may take a moment."""
    assert await settles(lambda: not processes_of(place.folder)), (where, processes_of(place.folder))
    assert await settles(lambda: open_pipes() <= pipes), (where, open_pipes() - pipes)
    assert list((place.folder / "temporary").iterdir()) == [], where
    named = {row["tag"] for row in place.manifest()}
    assert named <= set(place.docker.pushed), f"{where}: what the manifest names is there"
    place.forget()


def test_cancelled_at_each_checkpoint_a_build_leaves_nothing(place: Place) -> None:
    place.configure(push=True, drop_after_push=True)
    image = place.image("one", "base:1")

    async def cancel() -> int:
        await place.build(image)
        pipes = open_pipes()
        place.forget()

        async def after(where: str) -> None:
            await nothing_is_left(place, pipes, where)

        return await cancel_at_each_checkpoint(lambda: place.build(image), after, of_tasks=True)

    assert anyio.run(cancel) > 15
    assert place.statuses() == {"one": "built"}, "the last one was not cancelled"


def test_cancelled_while_docker_hangs_a_build_leaves_nothing(place: Place) -> None:
    """At each of its calls, with a child of Docker's command that nobody but evalkit ends."""
    place.configure(push=True, drop_after_push=True)
    image = place.image("one", "base:1")

    async def cancel() -> list[str]:
        await place.build(image)
        pipes, calls = open_pipes(), place.docker.calls
        for number, call in enumerate(calls, 1):
            place.forget()
            place.docker.hang_at(number)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(place.build, image)
                assert await settles(lambda: place.docker.is_hanging), call
                tasks.cancel_scope.cancel()
            await nothing_is_left(place, pipes, call)
        return calls

    kinds = {" ".join(call.split()[:2]) for call in anyio.run(cancel)}
    assert {"buildx build", "image ls", "pull --quiet", "image rm", "system df", "context show"} <= kinds
