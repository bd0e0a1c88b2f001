"""Tests that ran out of memory say nothing about an answer."""

from __future__ import annotations

from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Exit

_KILLED = 137


def require_not_killed(end: Exit) -> None:
    """Nothing but lack of memory kills the tests as a whole."""
    if end.code == _KILLED:
        raise Failed("oom", "the tests were killed")


def require_memory(*, lacked: bool) -> None:
    """For tests that went on although one of their processes was killed."""
    if lacked:
        raise Failed("oom", "a process of the tests was killed for lack of memory")
