"""How much memory evalkit's processes use, and how much they may."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_SECONDS_BETWEEN_LOOKS = 1.0
_LARGEST_SHARE_OF_TIME = 0.02


def available_memory() -> int:
    """The memory that this process may use: the tightest limit of its cgroups, else what the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return min([machine, *_cgroup_limits(Path("/proc/self/cgroup"), _CGROUP_ROOT)])


def _cgroup_limits(membership: Path, root: Path) -> list[int]:
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
    """Limits of a group and of all groups around it; "max" is none."""
    group = root / path.lstrip("/")
    limits = []
    for place in (group, *group.parents):
        if place.is_relative_to(root):
            with suppress(OSError, ValueError):
                limits.append(int((place / file).read_text()))
    return limits


def tree_memory(pid: int | None = None) -> int:
    """Resident memory of a process and all its descendants, in bytes."""
    total, waiting = 0, [os.getpid() if pid is None else pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        with suppress(OSError):
            total += int((process / "statm").read_text().split()[1]) * _PAGE
            for task in (process / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return total


@dataclass(slots=True)
class Governor:
    """Says when nothing new may start because evalkit's processes use too much memory."""

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
