"""trajectory.jsonl: written event by event, read leniently. docs/trajectory.md describes the format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evalkit import masking
from evalkit.domain.rows import timestamp

FILE = "trajectory.jsonl"
SCHEMA = 1

Event = dict[str, Any]


class Trajectory:
    """The end of a trajectory file. Each event is one write, so whatever happens, what was done is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def add(self, type: str, **fields: Any) -> None:
        event = {"type": type, "at": timestamp(), **fields}
        line = masking.mask(json.dumps(event, separators=(",", ":"))).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file. A torn last line is left out: the agent was just writing it."""
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("type"), str):
                yield event
