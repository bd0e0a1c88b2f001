"""What build-images and infer have in common: which images there are to be, and how they come to be."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from msgspec import structs

from evalkit import console
from evalkit.config import Config
from evalkit.console.image_progress import ImageProgress
from evalkit.containers import docker_cli
from evalkit.domain.records import Instance
from evalkit.errors import ImagesMissing, Interrupted, Terminated, first_few
from evalkit.images import pool
from evalkit.images.build import Batch, BuildObserver
from evalkit.images.disk import Disk
from evalkit.images.inputs import Gathering
from evalkit.images.plan import Plan
from evalkit.images.sdist import Packing
from evalkit.runs.signals import until_signal
from evalkit.store.builds import BuildDirectory
from evalkit.system import scratch

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def build_directory(config: Config) -> BuildDirectory:
    """The same for the same data set, so that a later command goes on where an earlier one ended."""
    dataset = Path(config.benchmark.dataset).name if config.benchmark.dataset else ""
    name = _UNSAFE.sub("-", "-".join(filter(None, (config.benchmark.name, dataset)))).strip("-.")
    return BuildDirectory(config.images.build_dir / (name or "images"))


@contextmanager
def private_folder() -> Iterator[Path]:
    """For the sdist and what is made from it. Those that earlier commands had to leave behind are swept first."""
    parent = scratch.find_roomy_parent()
    if parent is None:
        console.say("temporary files are kept in memory here; set TMPDIR to a directory on disk")
    scratch.sweep_leftovers()
    with scratch.folder(parent) as folder:
        (folder / "empty").mkdir()
        yield folder


@dataclass(slots=True)
class Provision:
    """The images of some instances: planned, then made."""

    config: Config
    instances: Sequence[Instance]
    directory: BuildDirectory
    folder: Path
    packing: Packing = field(init=False)
    plan: Plan | None = None
    batch: Batch | None = None
    _gathering: Gathering | None = None
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.packing = Packing(self.folder, self.directory.logs / "sdist.log", self.config.timeouts.build)

    async def draw_up(self) -> None:
        docker = await docker_cli.find()
        self._gathering = Gathering(self.config, docker, self.packing, self.folder)
        self.plan = await self._gathering.plan(self.instances)

    async def make(self, observer: BuildObserver, *, force: bool = False) -> None:
        """Records each image as it is finished. Raises EvalkitError where the rest cannot be made."""
        assert self.plan is not None
        assert self._gathering is not None
        docker, images = self._gathering.docker, self.config.images
        secrets = self._gathering.secrets()
        with pool.opened(images.workers, self.folder) as workers:
            self.batch = Batch(
                plan=self.plan,
                config=self.config,
                docker=docker,
                existence=self._gathering.existence,
                pool=workers,
                disk=Disk(docker, images.disk_floor, images.repository, frozenset(self.plan.tags)),
                scratch=self.folder,
                agent_folder=self._gathering.agent_folder,
                secrets=secrets,
                log_of=self.directory.log_of,
                record=self.directory.append,
                observer=observer,
                force=force,
            )
            await self.batch.make()

    @property
    def planned(self) -> int:
        return len(self.plan.images) + len(self.plan.unplanned) if self.plan else 0

    def document(self) -> dict[str, Any]:
        rows = self.batch.rows if self.batch else []
        counts = {status: sum(row["status"] == status for row in rows) for status in ("built", "skipped", "failed")}
        return {
            "schema": 1,
            "build": str(self.directory.path),
            "planned": self.planned,
            **counts,
            "pushed": sum(row["pushed"] for row in rows),
            "seconds": round(time.monotonic() - self._began, 3),
            "sdist": self._describe_sdist(),
            "agent": self.batch.agent_row if self.batch else None,
            "images": rows,
        }

    def describe_plan(self) -> dict[str, Any]:
        assert self.plan is not None
        images = [
            {
                "tag": image.tag,
                "base": image.base,
                "context": str(image.context) if image.context else None,
                "needs": list(image.needs),
                "instances": list(image.instances),
                "error": None,
            }
            for image in self.plan.images
        ]
        problems = [
            {"tag": None, "base": each.base, "instances": list(each.instances), "error": each.reason}
            for each in self.plan.unplanned
        ]
        return {
            "schema": 1,
            "planned": self.planned,
            "sdist": self._describe_sdist(),
            "agent": self.plan.agent.tag if self.plan.agent else None,
            "images": [*images, *problems],
        }

    def _describe_sdist(self) -> dict[str, Any]:
        agent = self.plan.agent if self.plan else None
        return {
            "builds": self.packing.builds,
            "seconds": self.packing.seconds,
            "sha256": agent.sdist_sha256 if agent else None,
        }


def provide(config: Config, instances: Mapping[str, Instance], *, build: bool, quiet: bool) -> dict[str, Instance]:
    """The instances, each with the image that it runs in, which is built if it is missing and that is wanted."""
    directory = build_directory(config)
    with ExitStack() as stack:
        stack.enter_context(directory.writing())
        provision = Provision(config, list(instances.values()), directory, stack.enter_context(private_folder()))
        watch = stack.enter_context(console.watch_images(directory.log_of, quiet=quiet or not build))
        signal_number = anyio.run(until_signal, partial(_plan_or_make, provision, watch, build=build), watch.keep_fresh)
    if signal_number is not None:
        raise Interrupted("interrupted") if signal_number == signal.SIGINT else Terminated("terminated")
    assert provision.plan is not None
    return {
        name: structs.replace(instance, image=provision.plan.image_of[name]) for name, instance in instances.items()
    }


async def _plan_or_make(provision: Provision, watch: ImageProgress, *, build: bool) -> None:
    await provision.draw_up()
    assert provision.plan is not None
    problems = {each.base: each.reason for each in provision.plan.unplanned}
    if build:
        watch.expect(provision.planned)
        await provision.make(watch)
        assert provision.batch is not None
        problems = {
            row["tag"] or row["base"]: row["error"] for row in provision.batch.rows if row["status"] == "failed"
        }
    if problems:
        named = [f"{name} ({reason})" for name, reason in problems.items()]
        raise ImagesMissing(
            f"{len(named)} of {provision.planned} images cannot be made: {first_few(named)}",
            hint=f"see {provision.directory.path}" if build else "see `evalkit build-images --dry-run`",
        )
