"""A bubblewrap sandbox around commands of the local workspace."""

from __future__ import annotations

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


@cache
def find_bubblewrap() -> str | None:
    """The bwrap program, if it is here and allowed to do its work."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    try:
        probe = subprocess.run([program, *_PROBE], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return program if probe.returncode == 0 else None


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

    def wrap(self, argv: Sequence[str], *, root: Path, cwd: Path, network: bool, door: Path | None = None) -> list[str]:
        """`door` is a socket of the host that can be reached too."""
        command = [self.program, "--die-with-parent", "--unshare-all", *(["--share-net"] if network else [])]
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
