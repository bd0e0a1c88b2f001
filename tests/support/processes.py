"""The processes of this machine."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import eventually


def unmeasured() -> dict[str, str]:
    """The environment for a process that must import nothing extra: without coverage.py's start-up hook."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def processes_of(folder: Path) -> dict[int, str]:
    """The command lines of processes with this folder in their arguments or environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if int(entry.name) != os.getpid() and os.fsencode(folder) in command + (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def all_processes() -> dict[int, str]:
    """All processes with their names, including zombies."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended in the meantime
            found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def all_end(folder: Path, containing: str = "") -> bool:
    """Whether the processes with this folder in their arguments or environment end within a moment."""
    return eventually(lambda: not [each for each in processes_of(folder).values() if containing in each])


def running(command: str) -> list[str]:
    """The pids of processes with this command line, including those in containers and builds."""
    listed = subprocess.run(["pgrep", "-fx", command], capture_output=True, text=True, check=False)
    return listed.stdout.split()
