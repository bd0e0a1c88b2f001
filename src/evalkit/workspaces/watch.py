"""Checks what sandboxed commands use, where the kernel cannot limit it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import anyio

from evalkit.domain.failures import Failed
from evalkit.system import memory
from evalkit.workspaces.groups import PROCESSES, Groups

_SECONDS_BETWEEN_LOOKS = 0.25
_LARGEST_SHARE_OF_TIME = 0.02


class Watched(Protocol):
    """A workspace whose commands can be ended."""

    @property
    def leaders(self) -> set[int]:
        """The processes that its commands descend from."""
        ...

    @property
    def memory(self) -> int:
        """The memory limit for all of them together; 0 where the kernel enforces it."""
        ...

    def end(self, reason: Failed | str) -> None: ...


@dataclass(slots=True)
class ResourceWatch:
    """Ends workspaces with too much memory or too many processes, where no control group limits them."""

    _watched: list[Watched] = field(default_factory=list)
    _anything: anyio.Event = field(default_factory=anyio.Event)

    def add(self, workspace: Watched) -> None:
        self._watched.append(workspace)
        self._anything.set()

    def remove(self, workspace: Watched) -> None:
        self._watched.remove(workspace)

    async def run(self) -> None:
        """Poll, as there is no event to wait for. This takes a small share of the time, none while nothing runs."""
        pause = _SECONDS_BETWEEN_LOOKS
        while True:
            if not self._watched:
                self._anything = anyio.Event()
                await self._anything.wait()
            await anyio.sleep(pause)
            start = anyio.current_time()
            for workspace in [each for each in self._watched if each.memory and each.leaders]:
                look(workspace)
            pause = max(_SECONDS_BETWEEN_LOOKS, (anyio.current_time() - start) / _LARGEST_SHARE_OF_TIME)


def describe_limits(groups: Groups | None) -> str:
    """The limits that hold on this machine."""
    seconds = f"looked at every {_SECONDS_BETWEEN_LOOKS:g} s"
    disk = "disk: see workspace.disk; who fills it is ended"
    if groups is None:
        return f"no control groups can be made here: memory and processes are {seconds}, CPUs not limited; {disk}"
    names = {"memory": "memory", "pids": "processes", "cpu": "CPUs"}
    held = [name for key, name in names.items() if key in groups.parents]
    missing = "" if "cpu" in groups.parents else "; CPUs not limited"
    return f"{', '.join(held)} limited by control groups{missing}; {disk}"


def look(workspace: Watched) -> None:
    for leader in list(workspace.leaders):
        if len(processes := list(memory.tree(leader))) > PROCESSES:
            workspace.end(f"ended: more than {PROCESSES} processes")
            return
        if memory.resident(processes) > workspace.memory and memory.proportional(processes) > workspace.memory:
            used = f"{workspace.memory >> 20} MB"
            workspace.end(Failed("oom", f"ended, because its processes used more than {used} of memory"))
            return
