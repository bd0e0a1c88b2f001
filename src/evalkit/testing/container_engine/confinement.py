"""Root folders and namespaces for containers of an ordinary user, by means of bubblewrap.

A container's processes cannot see or signal those of this machine, so it is safe to kill "everything" inside. Root
inside is the user of this process; there are no other users, and no process has any capability.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.workspaces.sandbox import find_bubblewrap

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SETTINGS = ("/etc/alternatives", "/etc/ld.so.cache")
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--uid", "0", "--gid", "0")
_UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
_LOOK_SECONDS = 0.001


class CannotConfine(Exception):
    """This machine lacks, or does not allow, something that containers need."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """How the processes of one container are confined."""

    root: Path
    network: bool = False
    programs: bool = True
    """Whether the programs of this machine are visible, read-only. Else the root holds only the image's files."""

    def start_command(self, argv: Sequence[str], *, work: str = "/", report: int | None = None) -> list[str]:
        """The command that runs a program in new namespaces, and writes the pid of their first process to `report`."""
        # With --die-with-parent, bubblewrap ends with the thread that started it, so that thread has to stay:
        # https://man7.org/linux/man-pages/man2/prctl.2.html, PR_SET_PDEATHSIG
        command = [_find("bwrap"), "--die-with-parent", *_NAMESPACES]
        command += [] if self.network else ["--unshare-net"]
        command += [] if report is None else ["--info-fd", str(report)]
        command += ["--bind", str(self.root), "/"]
        if self.programs:
            for place in map(Path, _PROGRAMS):
                if os.path.lexists(self.root / place.name) and place.is_symlink():
                    continue  # left by an earlier start
                if place.is_symlink():
                    command += ["--symlink", str(place.readlink()), str(place)]
                elif place.is_dir():
                    command += ["--ro-bind", str(place), str(place)]
            for name in _SETTINGS:
                command += ["--ro-bind-try", name, name]
        return [*command, "--proc", "/proc", "--dev", "/dev", "--chdir", work, "--", *argv]

    def join_command(self, first: int, argv: Sequence[str], *, work: str = "/") -> list[str]:
        """The command that runs a program in the namespaces of a process, as the leader of a session."""
        command = [_find("nsenter"), "--target", str(first), "--user", "--preserve-credentials", "--mount", "--pid"]
        command += [] if self.network else ["--net"]
        enter = [] if work == "/" else ["/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", work]
        return [*command, "--", *_UNPRIVILEGED, "setsid", *enter, *argv]

    def has_program(self, name: str) -> bool:
        """Whether the root has a program with this absolute path."""
        brought = self.root / name.lstrip("/")
        return brought.exists() or brought.is_symlink() or (self.programs and Path(name).exists())


def require_programs() -> None:
    """Raise CannotConfine here, rather than in the middle of a request, if containers do not work on this machine."""
    for name in ("bwrap", "nsenter", "setpriv", "setsid", "tar"):
        _find(name)


def wait_for_root(first: int) -> None:
    """Return once bubblewrap has set the namespaces up, or is gone: it starts the program then, as its second process.

    A process that joined earlier would see the root of this machine.
    """
    process = Path("/proc", str(first))
    try:
        while not ((process / "task" / str(first) / "children").read_text() or _has_ended(process)):
            time.sleep(_LOOK_SECONDS)
    except OSError:
        return


def _has_ended(process: Path) -> bool:
    """Whether it waits for its parent, which may be this process, to notice that it is gone."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")


def _find(name: str) -> str:
    if name == "bwrap":
        found = find_bubblewrap()
        program = None if found is None else found.program
    else:
        program = shutil.which(name)
    if program is None:
        raise CannotConfine(f"the containers of a fake engine need {name}, which is not here or does not work")
    return program
