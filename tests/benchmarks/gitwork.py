"""A small repository with a bug, and workspaces that hold it as images hold theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from evalkit import logs
from evalkit.domain.critics import accept_any
from evalkit.domain.planning import Step
from evalkit.domain.protocols import Agent, Benchmark, Workspace, WorkspaceSpec
from evalkit.domain.records import Instance, Job, Limits, Meter, Recorded
from evalkit.engine.run import Run
from evalkit.engine.scheduler import Scheduler
from evalkit.store.journal import BatchingJournal
from evalkit.store.run_directory import RunDirectory
from evalkit.testing import FakeWorkspaces, RecordingObserver
from rig import make_manifest

BUGGY = "def add(a, b):\n    return a - b\n\n\ndef mul(a, b):\n    return a * b\n"
FIXED = BUGGY.replace("a - b", "a + b")
RUNNER = """import sys
sys.dont_write_bytecode = True
sys.path.insert(0, ".")
status = 0
import tests
for name in sorted(vars(tests)):
    if name.startswith("test_"):
        try:
            vars(tests)[name]()
            print("PASSED tests.py::" + name)
        except Exception as error:
            print("FAILED tests.py::" + name)
            status = 1
sys.exit(status)
"""
TESTS = "from calc import add, mul\n\n\ndef test_mul():\n    assert mul(2, 3) == 6\n"
HIDDEN_TESTS = TESTS + "\n\ndef test_add():\n    assert add(2, 3) == 5\n"


def git(*arguments: str, cwd: Path) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "someone@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Project:
    """A repository whose history goes on after the base commit, to the fix."""

    folder: Path
    base: str
    fix: str
    patch: str
    test_patch: str

    def row(self, **changes: object) -> dict[str, Any]:
        script = f"""#!/bin/bash
set -uxo pipefail
cd "$EVALKIT_WORK"
git checkout {self.base} tests.py
git apply -v - <<'EOF_114329324912'
{self.test_patch}
EOF_114329324912
: '>>>>> Start Test Output'
{sys.executable} run_tests.py
: '>>>>> End Test Output'
git checkout {self.base} tests.py
"""
        return {
            "instance_id": "me__calc-1", "repo": "me/calc", "version": "1.0", "base_commit": self.base,
            "problem_statement": "add() subtracts.", "patch": self.patch, "test_patch": self.test_patch,
            "FAIL_TO_PASS": '["tests.py::test_add"]', "PASS_TO_PASS": ["tests.py::test_mul"], "eval_script": script,
            "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail", **changes,
        }  # fmt: skip


def make_project(root: Path) -> Project:
    folder = root / "project"
    folder.mkdir()
    git("init", "-q", "-b", "main", cwd=folder)
    for name, content in {"calc.py": BUGGY, "tests.py": TESTS, "run_tests.py": RUNNER, "data.bin": "x"}.items():
        (folder / name).write_text(content)
    git("add", "-A", cwd=folder)
    git("commit", "-qm", "The bug", cwd=folder)
    base = git("rev-parse", "HEAD", cwd=folder)
    (folder / "calc.py").write_text(FIXED)
    patch = git("diff", cwd=folder) + "\n"
    git("commit", "-qam", "The fix", cwd=folder)
    fix = git("rev-parse", "HEAD", cwd=folder)
    (folder / "tests.py").write_text(HIDDEN_TESTS)
    test_patch = git("diff", cwd=folder)
    git("tag", "-a", "v2", "-m", "fixed", cwd=folder)
    git("branch", "later", cwd=folder)
    git("update-ref", "refs/remotes/origin/main", fix, cwd=folder)
    git("remote", "add", "origin", "https://example.org/me/calc", cwd=folder)
    (folder / "calc.py").write_text(FIXED + "# stashed fix\n")
    git("stash", "-q", cwd=folder)
    git("gc", "-q", cwd=folder)
    git("reset", "-q", "--hard", base, cwd=folder)
    return Project(folder, base, fix, patch, test_patch)


class ProjectWorkspaces(FakeWorkspaces):
    """Each workspace begins with a copy of the project, history and all."""

    def __init__(self, parent: Path, project: Path) -> None:
        super().__init__(parent)
        self._project = project

    @asynccontextmanager
    async def open(self, spec: WorkspaceSpec) -> AsyncIterator[Workspace]:
        async with super().open(spec) as workspace:
            shutil.copytree(self._project, Path(workspace.places.work), symlinks=True)
            yield workspace


@dataclass(frozen=True)
class ScriptAgent:
    """Works by a shell script. What it prints is in agent.log."""

    script: str

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        await workspace.exec(("/bin/sh", "-ec", self.script), stdout=job.log, stderr=job.log)


@dataclass(frozen=True)
class Outcome:
    row: dict[str, Any]
    folder: Path
    workspaces: ProjectWorkspaces

    @property
    def patch(self) -> bytes:
        return (self.folder / "patch.diff").read_bytes()

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    @property
    def report(self) -> Any:
        return json.loads((self.folder / "report.json").read_text())


def attempt(
    root: Path,
    project: Project,
    benchmark: Benchmark,
    agent: Agent,
    *,
    recorded: Recorded | None = None,
    answer: bytes = b"",
    grade_seconds: float = 60.0,
) -> Outcome:
    """One attempt at the first instance, through the real engine and into a real run directory."""
    instances: Mapping[str, Instance] = {each.id: each for each in benchmark.load()}
    (name,) = instances
    workspaces = ProjectWorkspaces(root / "workspaces", project.folder)
    directory = RunDirectory.create(root / "run", make_manifest([name]))
    folder = directory.attempt_folder(name, 1)
    if recorded is not None:
        folder.mkdir(parents=True)
        (folder / "patch.diff").write_bytes(answer)
    run = Run(
        run_id="run",
        benchmark=benchmark,
        agent=agent,
        workspaces=workspaces,
        store=directory,
        journal=BatchingJournal(directory.append),
        critic=accept_any,
        observer=RecordingObserver(),
        scratch=root / "jobs",
        limits=Limits(open=60, solve=60, collect=60, grade=grade_seconds, memory=1 << 30, cpus=1),
        retries=0,
        grader_version=benchmark.grader_version,
    )
    answers = {(name, 1): recorded} if recorded else None
    with directory.writing(), logs.written_to(directory.path / "run.log"):
        anyio.run(Scheduler(run, instances, [Step(name, 1)], answers).execute)
    (line,) = (directory.path / "results.jsonl").read_text().splitlines()
    return Outcome(json.loads(line), folder, workspaces)
