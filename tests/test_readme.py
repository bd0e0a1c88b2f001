"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.cli import Evalkit
from tests.support.requirements import require_program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def cookbook() -> list[str]:
    (block,) = blocks("sh")
    return block.splitlines()


def test_every_line_of_the_cookbook_runs(evalkit: Evalkit) -> None:
    require_program("jq")
    evalkit("infer", "--limit", "3", "--run-id", "first")
    evalkit("infer", "--limit", "3", "--run-id", "second", "--agent", "command", "--set", "agent.command=false")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in cookbook():
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=evalkit.folder,
            env=evalkit.environment() | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_config_that_is_shown_is_one(evalkit: Evalkit) -> None:
    (example, *_) = (block for block in blocks("toml") if "[benchmark]" in block)
    (evalkit.folder / "evalkit.toml").write_text(example)
    finished = evalkit("config")
    assert finished.code == 0, finished.stderr
    assert finished.document["config"]["run"]["attempts"] == 3
