"""Waiting for what must come, on a machine that may be slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from commandline import processes_of

_LONGEST = 60.0


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + _LONGEST
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def all_end(folder: Path, containing: str = "") -> bool:
    """The processes that know of this folder end; one that was killed may take a moment to be gone."""
    return eventually(lambda: not [each for each in processes_of(folder).values() if containing in each])
