"""Calls to the engine that main containers and those of services have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path, PurePosixPath

import anyio
import anyio.from_thread

from evalkit.containers import archives
from evalkit.containers.api import Client
from evalkit.containers.connection import Refused
from evalkit.domain.outputs import OutputLimit

_BLOCK = 1 << 18
_NOT_FOUND, _SERVER_ERROR = 404, 500
_KILLED = 137
_LINK = 1 << 27
"""Of a mode as Go has them: https://pkg.go.dev/io/fs#FileMode"""


def cancellable(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """In a worker thread, stop at the next block once the task that waits for it is cancelled."""
    for block in blocks:
        anyio.from_thread.check_cancelled()
        yield block


async def fetch_files(client: Client, container: str, source: PurePosixPath, target: Path, limit: OutputLimit) -> None:
    """Copy a file or the contents of a directory out of a container."""

    def fetch() -> None:
        blocks, status = client.api.get_archive(container, str(source), chunk_size=_BLOCK)
        try:
            if status and status["mode"] & _LINK:  # Docker would give the link, and Podman what it leads to
                raise FileNotFoundError(f"{source} is a link in the container")
            archives.unpack(cancellable(blocks), target, limit)
        finally:
            blocks.close()

    await client.call(fetch)


async def fetch_if_there(
    client: Client,
    container: str,
    source: PurePosixPath,
    target: Path,
    limit: OutputLimit,
    *,
    exists: Callable[[], Awaitable[bool]],
) -> None:
    """Like `fetch_files`; FileNotFoundError where the container exists and there is nothing to fetch in it."""
    try:
        await fetch_files(client, container, source, target, limit)
    except Refused as error:
        if error.status >= _SERVER_ERROR:
            # The engine fails at links that lead to themselves, and at nothing else in the container.
            try:
                await fetch_files(client, container, source, target, limit)
            except Refused:
                await client.call(_begin_to_read_root, client, container)
            else:
                return
        elif error.status != _NOT_FOUND or not await exists():
            raise
        raise FileNotFoundError(f"there is no {source} in the container") from error


def _begin_to_read_root(client: Client, container: str) -> None:
    blocks, _ = client.api.get_archive(container, "/", chunk_size=_BLOCK)
    blocks.close()


async def find_status(client: Client, exec_id: str) -> int | None:
    """The status of a command whose output has ended; None if it still runs.

    The engine may learn it a moment after the output has ended.
    """
    for pause in (0.0, 0.001, 0.01, 0.05, *[0.2] * 50):
        await anyio.sleep(pause)
        facts = await client.call(client.api.exec_inspect, exec_id)
        if not facts["Running"]:
            return _KILLED if facts["ExitCode"] is None else int(facts["ExitCode"])
    return None
