"""A sandbox for harmful programs: they can write to one folder, and see only their own processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import unmeasured
from tests.support.requirements import require, require_program

ROOT = Path(__file__).parents[2]

# bwrap covers parts of /proc, and the kernel refuses to mount a new /proc in a user namespace while they are covered.
_UNCOVER = "sed -n 's|^[^ ]* \\(/proc/[^ ]*\\) .*|\\1|p' /proc/self/mounts | xargs -r umount; exec \"$@\""


def run_contained(folder: Path, argv: Sequence[str], *, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a program as root of a system without network, of which only this folder is writable."""
    bwrap = require_program("bwrap")
    confinement = [
        bwrap, "--die-with-parent", "--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL",
        "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", str(folder), str(folder),
        "--chdir", str(folder), "--", "sh", "-c", _UNCOVER, "sh",
    ]  # fmt: skip
    probe = subprocess.run([*confinement, "true"], capture_output=True, text=True, check=False)
    require("bubblewrap", probe.returncode == 0, f"bwrap cannot confine programs here: {probe.stderr.strip()}")
    environment = unmeasured() | {"TMPDIR": str(folder), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DOCKER_HOST", None)
    return subprocess.run(
        [*confinement, *argv],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def run_tests_contained(folder: Path, *arguments: str, timeout: float = 600) -> None:
    """Run tests of tests/abuse in the sandbox, and fail if they fail."""
    pytest = [sys.executable, "-m", "pytest", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    options = ["--basetemp", str(folder / "t"), "-p", "no:cacheprovider", "--numprocesses=0", "-v"]
    done = run_contained(folder, [*pytest, *options, *arguments], timeout=timeout)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}"


def is_contained() -> bool:
    """Whether this process runs in the sandbox."""
    places = (Path("/"), Path.home(), ROOT, Path(__file__), Path(sys.prefix))
    read_only = [os.statvfs(place).f_flag & os.ST_RDONLY for place in places if place != Path.cwd()]
    return all(read_only) and Path("/proc/1/comm").read_text().strip() == "bwrap"
