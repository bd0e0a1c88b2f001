"""Rules for all graders: keep files of earlier gradings, and give no verdict where resources ran out."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from evalkit.domain.failures import Failed, WorkspaceEnded
from evalkit.domain.protocols import Exit

_KILLED = 137


def set_aside(folder: Path, *names: str) -> None:
    """Rename files of an earlier grading, so that they are kept and never mistaken for new ones."""
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        return
    earlier = next(place for number in count(1) if not (place := folder / f"grading-{number}").exists())
    earlier.mkdir()
    for path in there:
        path.rename(earlier / path.name)


def require_not_killed(end: Exit) -> None:
    """Raise a failure where the tests were killed. If their workspace still runs, the cause is lack of memory."""
    require_workspace(end, "the tests")
    if end.code == _KILLED:
        raise Failed("oom", "the tests were killed")


def require_workspace(end: Exit, command: str) -> None:
    if end.workspace_ended:
        raise WorkspaceEnded(command)


def require_resources(end: Exit) -> None:
    """Raise a failure where tests failed after one of their processes was killed or could not start."""
    if end.lacked_memory:
        raise Failed("oom", "a process of the tests was killed for lack of memory")
    if end.lacked_processes:
        raise Failed("workspace", "the tests could not start a process, as there were too many")
