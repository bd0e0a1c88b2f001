"""Lists the processes of a container by its engine, and by no program in it, which an agent could have replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a container as its engine sees them: the first, and each with its parent."""

    first: int
    parents: Mapping[int, int]


def processes_in_docker(api: Any, name: str) -> Processes:
    """By the numbers that they have on the engine's machine."""
    first = int(api.inspect_container(name)["State"]["Pid"])
    listed = api.top(name, "-eo pid,ppid")["Processes"] or ()
    return Processes(first, {int(pid): int(parent) for pid, parent, *_ in listed})


def processes_in_podman(api: Any, name: str) -> Processes:
    """By the numbers that they have in the container: given options of ps, Podman would run that of the container.

    https://docs.podman.io/en/latest/markdown/podman-top.1.html
    """
    listed = api.top(name, "pid,ppid")["Processes"] or ()
    return Processes(1, {int(pid): int(parent) for pid, parent, *_ in listed})
