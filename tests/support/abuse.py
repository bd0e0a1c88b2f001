"""Runs in which agents follow a script in their task."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cli import Evalkit, Finished, Process
from tests.support.confinement import is_contained
from tests.support.tasks import make_task

assert is_contained(), "these agents run where tests/test_abuse.py puts them, and nowhere else"

DONE = "echo done > answer"
_TESTS = "grep -qx done answer"
_ACT = """["sh", "-c", "sh -c \\"$(cat act.sh)\\""]"""


@dataclass(frozen=True)
class Act:
    """The script of an agent, and the expected outcome."""

    script: str
    outcome: str = "submitted"
    verdict: str = "resolved"
    timeout: int | None = None


def hang(script: str) -> Act:
    """An agent that has written something by the time-out."""
    return Act(f"echo partial > answer; {script}", "timeout", "unresolved", timeout=6)


def make_acts(evalkit: Evalkit, acts: dict[str, Act]) -> None:
    for name, act in acts.items():
        toml = f"[agent]\ntimeout_sec = {act.timeout}\n" if act.timeout else ""
        make_task(evalkit.folder / "tasks" / name, tests=_TESTS, files={"act.sh": act.script}, toml=toml)


def infer(*more: object) -> list[object]:
    return [
        "infer", "tasks", "--workspace", "local", "--agent", "command", "--set", "workspace.unsandboxed=true",
        "--set", f"agent.command={_ACT}", *more,
    ]  # fmt: skip


def run_acts(evalkit: Evalkit, acts: dict[str, Act], *more: object) -> Finished:
    """Run all acts, and check that each ends as expected, with one row."""
    make_acts(evalkit, acts)
    finished = evalkit(*infer(*more))
    assert "Traceback" not in finished.stderr, finished.stderr
    rows = evalkit.rows()
    assert sorted(row["instance_id"] for row in rows) == sorted(acts), finished.stderr
    assert finished.document["buckets"]["incomplete"] == 0
    found = {row["instance_id"]: (row["outcome"], row["verdict"]) for row in rows}
    wrong = {name: found[name] for name, act in acts.items() if found[name] != (act.outcome, act.verdict)}
    assert not wrong, (wrong, [row["failure"] for row in rows if row["instance_id"] in wrong])
    return finished


def row_of(evalkit: Evalkit, name: str) -> dict[str, Any]:
    (row,) = (row for row in evalkit.rows() if row["instance_id"] == name)
    return row


def patch_of(evalkit: Evalkit, name: str) -> bytes:
    path: str = row_of(evalkit, name)["patch"]["path"]
    return (evalkit.run_directory() / path).read_bytes()


def watch_memory(process: Process) -> int:
    """Wait for a process that writes to files to end. Returns its own peak memory in KB."""
    peak = 0
    while process.poll() is None:
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(status.partition("VmHWM:")[2].split()[0])
        time.sleep(0.02)
    assert peak
    return peak
