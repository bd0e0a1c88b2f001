"""Git repositories: one of given files, and a small one with a bug."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A repository whose history continues after the base commit, up to the fix."""

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
    base = make_repository(folder, {"calc.py": BUGGY, "tests.py": TESTS, "run_tests.py": RUNNER, "data.bin": "x"})
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


def make_repository(folder: Path, files: Mapping[str, str]) -> str:
    """Make a repository of these files with one commit, and return its hash."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git("init", "-q", "-b", "main", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-qm", "Base", cwd=folder)
    return git("rev-parse", "HEAD", cwd=folder)


def diff_of(folder: Path, changes: Mapping[str, str]) -> str:
    """The patch that gives these files this content. The repository is not changed."""
    for name, content in changes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git("add", "-A", "-N", cwd=folder)
    patch = git("diff", cwd=folder) + "\n"
    git("reset", "-q", cwd=folder)
    git("checkout", "-q", ".", cwd=folder)
    git("clean", "-qfd", cwd=folder)
    return patch
