"""A bubblewrap sandbox around commands of the local workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_COVERED = Path("/tmp")  # noqa: S108  # the sandbox gets an empty one
# In a container bwrap often may start, but not mount what the sandbox needs.
_MOUNTS = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", str(_COVERED))
_PROBE = ("--die-with-parent", "--unshare-all", *_MOUNTS, "--", "true")

# bwrap fails where a mount of the machine goes away while it makes them all read-only, as those of containers do.
SETUP_TRIES = 20
_SETUP_FAILED = 1


@cache
def find_bubblewrap() -> str | None:
    """The bwrap program, if it is here and allowed to do its work."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    for _ in range(SETUP_TRIES):
        try:
            probe = subprocess.run([program, *_PROBE], capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if probe.returncode == 0:
            return program
    return None


@cache
def _own_places() -> list[Path]:
    """Where this Python and evalkit are, if that is in the temporary folder that is covered."""
    places = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]}
    return sorted(path for path in places if path.is_relative_to(_COVERED))


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A read-only system without network, in which one folder can be written and some cannot be seen."""

    program: str
    hidden: Sequence[Path] = ()

    def wrap(
        self,
        argv: Sequence[str],
        *,
        root: Path,
        cwd: Path,
        network: bool,
        door: Path | None = None,
        status: int | None = None,
    ) -> list[str]:
        """`door` is a socket of the host that can be reached too; what became of it all is written to `status`."""
        command = [self.program, "--die-with-parent", "--unshare-all", *(["--share-net"] if network else [])]
        if status is not None:
            command += ["--json-status-fd", str(status)]
        command += _MOUNTS
        for path in _own_places():
            command += ["--ro-bind", str(path), str(path)]
        for path in self.hidden:
            command += ["--tmpfs", str(path)]
        if door is not None:
            command += ["--bind", str(door), str(door)]
        command += ["--bind", str(root), str(root), "--chdir", str(cwd), "--"]
        # A shell gives a missing program its usual status, 127, which bwrap does not.
        return [*command, "/bin/sh", "-c", 'exec "$@"', "sh", *argv]


def could_not_be_set_up(code: int, status: int) -> bool:
    """Whether bwrap ended before the command began: only what has begun has an exit code."""
    return code == _SETUP_FAILED and b'"exit-code"' not in os.pread(status, 4096, 0)
