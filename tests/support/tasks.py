"""Makes task directories, for the benchmark without a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def make_task(
    folder: Path,
    *,
    tests: str = "exit 0",
    solution: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    toml: str = "",
) -> Path:
    """A task directory. Its tests are a shell script that starts in the work folder."""
    _write(folder / "instruction.md", f"Do {folder.name}.\n")
    _write(folder / "tests" / "test.sh", f"#!/bin/sh\n{tests}\n")
    if solution is not None:
        _write(folder / "solution" / "solve.sh", f"#!/bin/sh\n{solution}\n")
    if toml:
        _write(folder / "task.toml", toml)
    for name, content in (files or {}).items():
        _write(folder / "environment" / name, content)
    return folder


def make_tasks(folder: Path, count: int, make: Callable[..., Path] = make_task, **contents: Any) -> Path:
    for number in range(count):
        make(folder / f"task-{number:03}", **contents)
    return folder


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
