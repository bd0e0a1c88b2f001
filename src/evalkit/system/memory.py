"""Measures the memory that evalkit's processes use, and the memory that they may use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_SECONDS_BETWEEN_LOOKS = 1.0
_LARGEST_SHARE_OF_TIME = 0.02


def available_memory() -> int:
    """The memory that this process may use: the tightest limit of its cgroups, or all memory of the machine."""
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return min([machine, *cgroup_limits(Path("/proc/self/cgroup"), _CGROUP_ROOT)])


def cgroup_limits(membership: Path, root: Path) -> list[int]:
    """Memory limits of a process's control groups, of version 1 and 2, by its /proc/PID/cgroup.

    https://man7.org/linux/man-pages/man7/cgroups.7.html
    """
    limits = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                limits += _limits_upwards(root, path, "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limits_upwards(root / "memory", path, "memory.limit_in_bytes")
    return limits


def _limits_upwards(root: Path, path: str, file: str) -> list[int]:
    """Limits of a group and of its ancestors. A group that says "max" has no limit."""
    group = root / path.lstrip("/")
    limits = []
    for place in (group, *group.parents):
        if place.is_relative_to(root):
            with suppress(OSError, ValueError):
                limits.append(int((place / file).read_text()))
    return limits


def tree_memory(pid: int | None = None) -> int:
    """Resident memory of a process and all its descendants, in bytes."""
    return resident(tree(os.getpid() if pid is None else pid))


def tree(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    waiting = [pid]
    while waiting:
        found = waiting.pop()
        yield found
        with suppress(OSError):
            for task in Path(f"/proc/{found}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def resident(pids: Iterable[int]) -> int:
    """The resident memory of processes, in bytes. Shared pages count for each of them."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def proportional(pids: Iterable[int]) -> int:
    """The resident memory of processes, in bytes. Shared pages count once, where the kernel lets us read PSS."""
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return resident([pid])


@dataclass(slots=True)
class Governor:
    """Holds new attempts back while evalkit's processes use too much memory."""

    share: float
    limit: int
    used: int = 0
    _look_again_at: float = float("-inf")

    def held(self) -> str | None:
        if time.monotonic() >= self._look_again_at:
            self._look()
        if self.used <= self.share * self.limit:
            return None
        return (
            f"evalkit's processes use {self.used >> 20} MB, more than {self.share:.0%} of {self.limit >> 20} MB"
            " (run.memory_share)"
        )

    def _look(self) -> None:
        start = time.monotonic()
        self.used = tree_memory()
        cost = time.monotonic() - start
        self._look_again_at = start + max(_SECONDS_BETWEEN_LOOKS, cost / _LARGEST_SHARE_OF_TIME)
