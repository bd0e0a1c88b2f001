"""What ends commands that use too much, where the kernel does not see to it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Exit, WorkspaceSpec
from evalkit.workspaces.local import LocalWorkspaces
from evalkit.workspaces.sandbox import Sandbox, find_bubblewrap
from evalkit.workspaces.watch import ResourceWatch
from tests.support.requirements import require
from tests.support.workspaces import MEGABYTE, make_job

FORKS = """
import os, time
for number in range(2500):
    if not os.fork():
        time.sleep(60)
time.sleep(60)
"""
SHARES = """
import os, time
kept = bytearray(b"x" * (60 << 20))
for number in range(5):
    if not os.fork():
        time.sleep(2)
        os._exit(0)
time.sleep(2)
"""
GROWS = """
import time
kept = []
while True:
    kept.append(bytearray(b"x" * (10 << 20)))
    time.sleep(0.02)
"""


def run_watched(folder: Path, argv: tuple[str, ...], watch: ResourceWatch) -> Exit:
    bubblewrap = find_bubblewrap()
    require("bubblewrap", bubblewrap, "there is no bwrap that works")
    assert bubblewrap is not None
    workspaces = LocalWorkspaces(folder, Sandbox(bubblewrap), watch=watch)

    async def run() -> Exit:
        spec = WorkspaceSpec(make_job(folder), "solve", memory=250 * MEGABYTE)
        async with workspaces.lasting(), workspaces.open(spec) as workspace:
            return await workspace.exec(argv)

    return anyio.run(run)


@pytest.mark.slow
def test_too_many_processes(tmp_path: Path) -> None:
    end = run_watched(tmp_path, ("python3", "-c", FORKS), ResourceWatch())
    assert end.code == 137
    assert "2048 processes" in end.tail


def test_too_much_memory(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="250 MB") as raised:
        run_watched(tmp_path, ("python3", "-c", GROWS), ResourceWatch())
    assert raised.value.kind == "oom"


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    assert run_watched(tmp_path, ("python3", "-c", SHARES), ResourceWatch()).code == 0
