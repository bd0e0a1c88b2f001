"""The engine as a command finds it, before any workspace: is it there, what has it got, what was left on it?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalkit.containers import labels
from evalkit.containers.api import connect, typed_errors
from evalkit.containers.connection import EngineError
from evalkit.containers.docker_host import find_endpoint
from evalkit.containers.labels import Owner
from evalkit.errors import EngineUnavailable

_SMALLEST_RESERVE = 1 << 30
_RESERVED_SHARE = 0.1
_SECONDS = 20.0
_DRIVERS_WITH_QUOTA = ("btrfs", "zfs")
_SMALLEST_SLACK = 64 << 20


def look(scratch: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the engine says of its version and of itself."""
    endpoint = find_endpoint(os.environ, scratch)
    with needed():
        api = connect(endpoint, seconds=_SECONDS)
        with typed_errors(endpoint.host):
            return api.version(), api.info()


def sweep(scratch: Path) -> list[str]:
    """Remove what evalkit processes of this machine left there that are no more; returns the names."""
    endpoint = find_endpoint(os.environ, scratch)
    with needed():
        return labels.sweep(connect(endpoint), Owner.this_process(), endpoint.host)


def memory_budget(info: Mapping[str, Any]) -> int | None:
    """The engine's memory, less what it and the system need themselves."""
    total = int(info.get("MemTotal") or 0)
    return max(total - max(_SMALLEST_RESERVE, int(total * _RESERVED_SHARE)), total // 2) or None


def may_have_quota(info: Mapping[str, Any]) -> bool:
    """Whether its storage driver may hold a container to a size: overlayfs can on XFS with project quotas."""
    driver, status = info.get("Driver"), dict(info.get("DriverStatus") or ())
    return driver in _DRIVERS_WITH_QUOTA or (driver == "overlay2" and status.get("Backing Filesystem") == "xfs")


def with_quota(body: Mapping[str, Any], disk: int) -> dict[str, Any]:
    """A container that can write hardly more than that, however fast: the watch tells that it did, and ends it."""
    size = str(disk + max(_SMALLEST_SLACK, disk // 8))
    return {**body, "HostConfig": {**body["HostConfig"], "StorageOpt": {"size": size}}}


@contextmanager
def needed() -> Iterator[None]:
    """Without an engine, a command cannot go on."""
    try:
        yield
    except EngineError as error:
        raise EngineUnavailable(
            str(error), hint="start Docker, or set DOCKER_HOST, or use --workspace local; see `evalkit doctor`"
        ) from error
