"""The processes of this machine."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import eventually


def unmeasured() -> dict[str, str]:
    """The environment of a process that must import nothing else, as coverage.py does where tests are measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def processes_of(folder: Path) -> dict[int, str]:
    """The command lines of processes that know of a folder, by their arguments or their environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if int(entry.name) != os.getpid() and os.fsencode(folder) in command + (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def all_processes() -> dict[int, str]:
    """All processes there are, zombies included, with their names."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may just have ended
            found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def all_end(folder: Path, containing: str = "") -> bool:
    """The processes that know of this folder end; one that was killed may take a moment to be gone."""
    return eventually(lambda: not [each for each in processes_of(folder).values() if containing in each])


def running(command: str) -> list[str]:
    """Processes of containers and builds are processes of this machine too."""
    listed = subprocess.run(["pgrep", "-fx", command], capture_output=True, text=True, check=False)
    return listed.stdout.split()
