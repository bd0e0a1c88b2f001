"""Child processes: each in a session of its own, awaited without a thread, and ended with its process group."""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

_PR_SET_CHILD_SUBREAPER = 36
_OWN_FILES = 64
_started: set[int] = set()


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: IO[Any] | int = subprocess.DEVNULL,
    stdout: IO[Any],
    stderr: IO[Any],
    groups: set[int] | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run a program to its end and return its status. Its process group ends with it, and when this is cancelled.

    While it runs, its process group is in `groups`, so that another task can end it.
    """
    try:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        stderr.write(f"{argv[0]}: {error.strerror}\n".encode())
        stderr.flush()
        return 127
    registers = (_started, groups if groups is not None else set())
    for register in registers:
        register.add(process.pid)
    try:
        await _ended(process)
    finally:
        kill_group(process.pid)
        code = process.wait()
        for register in registers:
            register.discard(process.pid)
    return code if code >= 0 else 128 - code


async def _ended(process: subprocess.Popen[bytes]) -> None:
    if not hasattr(os, "pidfd_open"):
        await anyio.to_thread.run_sync(
            process.wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )  # one limiter each: the thread waits as long as the process runs
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def allow_open_files(wanted: int) -> str | None:
    """Raise the soft limit on open files, which is too low for many workspaces.

    Returns a warning if the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft + wanted if hard == resource.RLIM_INFINITY else min(hard, soft + wanted)
    if soft != resource.RLIM_INFINITY and enough > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    needed = _OWN_FILES + wanted
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return None
    return f"at most {hard} files can be open, and {needed} may be needed: use fewer workers, or raise `ulimit -Hn`"


def adopt_orphans() -> None:
    """Make this process the parent of orphaned daemons, so that they can be found and ended.

    https://man7.org/linux/man-pages/man2/prctl.2.html, PR_SET_CHILD_SUBREAPER
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        atexit.register(_end, lambda: _adopted(lambda _pid: True))


def end_orphans(marker: str, root: Path) -> None:
    """Kill and reap adopted processes with this entry in their environment or working in this folder.

    Processes that have dropped both are ended together with evalkit.
    """
    _end(lambda: _adopted(lambda pid: _belongs(pid, marker.encode(), root)))


def _end(find: Callable[[], list[int]]) -> None:
    while orphans := find():
        for pid in orphans:
            kill_group(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _adopted(is_wanted: Callable[[int], bool]) -> list[int]:
    own_session = os.getsid(0)
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for pid in map(int, listing.read_text().split()):
                if pid not in _started and os.getsid(pid) != own_session and is_wanted(pid):
                    found.append(pid)
    return found


def _belongs(pid: int, marker: bytes, root: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        # A zombie has no environment left; outside of our session it can only be an adopted one.
        return not environment or marker in environment.split(b"\0") or _works_in(pid, root)
    except OSError:
        return False


def _works_in(pid: int, root: Path) -> bool:
    return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(root)
