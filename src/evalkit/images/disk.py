"""Room on the engine's disk. When it runs out, evalkit removes only images that it built itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from evalkit.containers.docker_cli import Docker
from evalkit.errors import EvalkitError
from evalkit.images.decisions import find_obsolete
from evalkit.images.dockerfile import INSTALLER, LABEL


class DiskFloor(EvalkitError):
    """There is too little room for another image."""

    kind = "disk_floor"


@dataclass(slots=True)
class Disk:
    docker: Docker
    floor: int
    repository: str
    wanted: frozenset[str]
    """Images that are never removed."""
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    _lock: anyio.Lock = field(default_factory=anyio.Lock)

    async def require_room(self) -> None:
        """Make room if there is too little, or raise DiskFloor. The disk of a remote engine cannot be measured."""
        storage = self.docker.storage
        if storage is None or self.free(storage) >= self.floor:
            return
        async with self._lock:
            if self.free(storage) < self.floor:
                await self._prune()
        if (left := self.free(storage)) < self.floor:
            raise DiskFloor(
                f"{storage} has {left >> 20} MB left, less than images.disk_floor ({self.floor >> 20} MB)",
                hint="make room, or lower images.disk_floor; then run the same command again, it skips what exists",
            )

    async def drop(self, tags: Sequence[str]) -> None:
        async with self._lock:
            await self._drop(tags)

    async def _prune(self) -> None:
        """Remove images of earlier plans, and the build cache that only they used."""
        ours = (await self.docker.images(LABEL)).ids
        await self._drop(find_obsolete(ours, self.repository, self.wanted))
        await self.docker.prune_untagged(LABEL)
        installs = [each["ID"] for each in await self.docker.build_cache() if INSTALLER in each["Description"]]
        await self.docker.prune_cache(installs)

    async def _drop(self, tags: Sequence[str]) -> None:
        """Remove images, and the layers of theirs that would stay in the build cache alone."""
        shared = await self._shared_layers()
        await self.docker.remove(tags)
        await self.docker.prune_cache(sorted(shared - await self._shared_layers()))

    async def _shared_layers(self) -> set[str]:
        """The layers that the build cache shares with images."""
        return {each["ID"] for each in await self.docker.build_cache() if each["Shared"] == "true"}
