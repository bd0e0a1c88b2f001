"""Files of an attempt that a new grading makes again."""

from __future__ import annotations

from itertools import count
from pathlib import Path


def set_aside(folder: Path, *names: str) -> None:
    """Rename what an earlier grading left, so that it is kept and never taken for the new one's."""
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        return
    earlier = next(place for number in count(1) if not (place := folder / f"grading-{number}").exists())
    earlier.mkdir()
    for path in there:
        path.rename(earlier / path.name)
