"""evalkit trajectory, as it is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.store.run_directory import RunDirectory
from evalkit.trajectories.events import FILE, Trajectory
from tests.support.runs import make_manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = RunDirectory.create(tmp_path / "run", make_manifest(["one", "a/../b"]))
    for instance_id, attempt in (("one", 1), ("a/../b", 1), ("a/../b", 2)):
        folder = directory.fresh_attempt_folder(instance_id, attempt)
        with Trajectory(folder / FILE) as trajectory:
            trajectory.add(
                "start", evalkit="1", run="run", instance_id=instance_id, attempt=attempt, agent="shell", model="m"
            )
            trajectory.add("message", role="user", text="[bold]fix it[/bold]")
    return directory.path


def show(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evalkit", "trajectory", str(run), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVALKIT_")}
    return subprocess.run(command, capture_output=True, text=True, cwd=run.parent, env=environment, check=False)


def test_text_is_for_people_and_the_document_for_machines(run: Path) -> None:
    done = show(run, "one")
    assert done.returncode == 0
    assert "[bold]fix it[/bold]" in done.stderr
    document = json.loads(done.stdout)
    assert (document["instance_id"], document["attempt"], document["end"]) == ("one", 1, None)


@pytest.mark.parametrize(("format", "key"), [("atif", "schema_version"), ("mini", "trajectory_format")])
def test_formats_go_to_standard_output(run: Path, format: str, key: str) -> None:
    done = show(run, "one", "--format", format)
    assert json.loads(done.stdout)[key]
    assert done.stderr == ""


def test_an_attempt_without_steps_is_no_atif(run: Path) -> None:
    path = RunDirectory.open(run).attempt_folder("one", 1) / FILE
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    done = show(run, "one", "--format", "atif")
    assert done.returncode == 2
    assert "has no steps yet" in json.loads(done.stdout)["error"]["message"]


def test_the_last_attempt_that_began(run: Path) -> None:
    assert json.loads(show(run, "a/../b").stdout)["attempt"] == 2
    assert json.loads(show(run, "a/../b", "--attempt", "1").stdout)["attempt"] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [((), "has 2 instances: name one"), (("none",), "has no instance none"), (("one", "--attempt", "3"), "attempt 3")],
)
def test_what_is_not_there_is_named(run: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = show(run, *arguments)
    assert done.returncode == 2
    assert complaint in json.loads(done.stdout)["error"]["message"]
    assert "Traceback" not in done.stderr
