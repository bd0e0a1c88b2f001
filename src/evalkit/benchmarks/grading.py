"""What graders share: files of an earlier grading are kept, and tests killed for lack of memory say nothing."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from evalkit.domain.failures import Failed, WorkspaceEnded
from evalkit.domain.protocols import Exit

_KILLED = 137


def set_aside(folder: Path, *names: str) -> None:
    """Rename what an earlier grading left, so that it is kept and never taken for the new one's."""
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        return
    earlier = next(place for number in count(1) if not (place := folder / f"grading-{number}").exists())
    earlier.mkdir()
    for path in there:
        path.rename(earlier / path.name)


def require_not_killed(end: Exit) -> None:
    """Nothing but lack of memory kills the tests as a whole, where their workspace is still there."""
    require_workspace(end, "the tests")
    if end.code == _KILLED:
        raise Failed("oom", "the tests were killed")


def require_workspace(end: Exit, command: str) -> None:
    if end.workspace_ended:
        raise WorkspaceEnded(command)


def require_resources(end: Exit) -> None:
    """For tests that failed, after they went on although a process of theirs was killed or could not be made."""
    if end.lacked_memory:
        raise Failed("oom", "a process of the tests was killed for lack of memory")
    if end.lacked_processes:
        raise Failed("workspace", "the tests could not start a process, as there were too many")
