"""Child processes: their status is told, and nothing of them is left, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from evalkit.system import processes
from tests.support.processes import all_end, processes_of, running
from tests.support.waiting import eventually


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


pytestmark = pytest.mark.anyio


async def run(folder: Path, argv: Sequence[str], groups: set[int] | None = None) -> tuple[int, str]:
    """Its status, and what it wrote to both streams."""
    with (folder / "said").open("wb") as said:
        environment = {"PATH": os.environ["PATH"], "MARK": str(folder)}
        code = await processes.run(
            argv, env=environment, cwd=folder, stdout=said, stderr=said, groups=groups
        )  # fmt: skip
    return code, (folder / "said").read_text()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)]
)
async def test_the_status_is_as_a_shell_tells_it(tmp_path: Path, script: str, code: int) -> None:
    assert await run(tmp_path, ("sh", "-c", f"echo out; echo err >&2; {script}")) == (code, "out\nerr\n")


async def test_a_program_that_cannot_start_is_127_and_a_line_says_why(tmp_path: Path) -> None:
    assert await run(tmp_path, ("no-such-program",)) == (127, "no-such-program: No such file or directory\n")
    (tmp_path / "file").write_text("text")
    assert await run(tmp_path, (str(tmp_path / "file"),)) == (127, f"{tmp_path}/file: Permission denied\n")


async def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    code, _ = await run(tmp_path, ("sh", "-c", "sleep 1000 & sleep 1000 & exit 0"))
    assert code == 0
    assert all_end(tmp_path, "sleep 1000")


async def test_cancelled_the_whole_group_ends_before_anything_goes_on(tmp_path: Path) -> None:
    script = "trap '' TERM INT; sleep 1000 & : > ready; sleep 1000"
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, tmp_path, ("sh", "-c", script))
            assert await anyio.to_thread.run_sync(eventually, (tmp_path / "ready").exists)
            assert processes_of(tmp_path)
            scope.cancel()
    assert all_end(tmp_path)


async def test_another_task_can_end_its_group(tmp_path: Path) -> None:
    groups: set[int] = set()
    codes: list[int] = []

    async def start() -> None:
        codes.append((await run(tmp_path, ("sh", "-c", ": > ready; sleep 1000"), groups))[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        assert await anyio.to_thread.run_sync(eventually, (tmp_path / "ready").exists)
        (group,) = groups
        processes.kill_group(group)
    assert codes == [128 + signal.SIGKILL]
    assert groups == set()
    processes.kill_group(group)  # it is gone, and nobody minds


# Orphans are adopted for as long as a process lives, so another one than that of the tests does it.
ADOPT = """
import subprocess, sys, time
from pathlib import Path
from evalkit.system import processes
processes.adopt_orphans()
root, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])

def daemon(folder, seconds, mark):
    subprocess.run(["setsid", "sh", "-c", f"sleep {seconds} & sleep {seconds} & exit 0"], cwd=folder, env={"M": mark})

def names():
    found = set()
    for pid in Path("/proc/self/task").glob("*/children"):
        found |= {Path("/proc", each, "cmdline").read_text() for each in pid.read_text().split()}
    return {name.replace(chr(0), " ").strip() for name in found}

daemon(elsewhere, 1001, "ours")
daemon(root, 1002, "other")
daemon(elsewhere, 1003, "other")
while not {"sleep 1001", "sleep 1002", "sleep 1003"} <= names():
    time.sleep(0.01)
processes.end_orphans("M=ours", root)
print(*sorted(names()), sep=",")
"""


def test_orphans_are_ended_by_their_mark_or_their_folder_and_the_last_ones_at_the_end(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    command = [sys.executable, "-c", ADOPT, str(root), str(elsewhere)]
    environment = os.environ | {"TEST": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "sleep 1003\n"
    assert eventually(lambda: not running("sleep 1003"))


@pytest.mark.parametrize(("soft", "hard", "expected"), [(100, 500, 150), (100, 120, 120), (100, 100, 100)])
def test_more_files_may_be_open_as_far_as_that_is_allowed(soft: int, hard: int, expected: int) -> None:
    program = f"""
import resource
from evalkit.system.processes import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_open_files(50)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected} {hard}\n"
