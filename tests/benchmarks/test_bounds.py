"""Answers without end: they cost no more than a limit, are judged, and nobody is asked again."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import structs

from evalkit.benchmarks.repository import Repository
from evalkit.domain.outputs import OutputLimit, TooLarge
from evalkit.domain.protocols import Workspace
from tests.support.cli import Evalkit
from tests.support.engine import Engine
from tests.support.repositories import git
from tests.support.tasks import make_task
from tests.support.workspaces import MEGABYTE, Place, open_place

KINDS = ["local", pytest.param("docker", marks=pytest.mark.engine)]
AGENT = """["sh", "-c", "echo began; cat agent >/dev/null; sh agent"]"""


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def solve(evalkit: Evalkit, kind: str, image: str, agent: str, *, tests: str = "exit 0") -> dict[str, Any]:
    """The row of an agent that does this, whose run ends as if nothing was wrong."""
    make_task(evalkit.folder / "tasks" / "one", tests=tests, files={"agent": agent})
    settings = (f"agent.command={AGENT}", f"workspace.image={image}", "workspace.memory=512m")
    options = [word for each in settings for word in ("--set", each)]
    finished = evalkit("infer", "tasks", "--workspace", kind, "--agent", "command", *options, timeout=300)
    assert finished.code == 0, finished.stderr
    assert finished.document["ids"]["unresolved"] == ["one"]
    (row,) = evalkit.rows()
    assert (row["outcome"], row["verdict"], row["failure"], row["retries"]) == ("submitted", "unresolved", None, 0)
    log = evalkit.run_directory() / row["artifacts"] / "agent.log"
    assert log.read_text().count("began\n") == 1
    evalkit.assert_nothing_left()
    assert evalkit("resume").document["ids"]["unresolved"] == ["one"]
    assert len(evalkit.rows()) == 1
    return row


LEFT = {
    r"more than 50,\d+ files": "mkdir many; cd many; seq 50001 | xargs touch",
    "folders more than 200 deep": "i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done",
    "more than 1024 MB": "dd if=/dev/zero of=holes bs=1 count=1 seek=2000000000",
}


@pytest.mark.attack("output", "local as root", "docker")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "note", [pytest.param(note, marks=pytest.mark.slow if "files" in note else ()) for note in LEFT]
)
def test_a_work_folder_that_is_too_large(evalkit: Evalkit, kind: str, engine: Engine, note: str) -> None:
    row = solve(evalkit, kind, engine.busybox, LEFT[note])
    assert re.fullmatch(f"what was left behind has {note}", row["note"])
    assert size_of(evalkit.run_directory()) < MEGABYTE


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_that_is_too_large(evalkit: Evalkit, kind: str, engine: Engine) -> None:
    tests = 'head -c 5000000 /dev/zero >"$EVALKIT_LOGS/verifier/reward.json"'
    row = solve(evalkit, kind, engine.busybox, "echo x >x", tests=tests)
    assert row["note"] == "the file of rewards has more than 4 MB"


@pytest.mark.parametrize("kind", KINDS)
def test_a_trajectory_that_is_too_large_is_left_out(evalkit: Evalkit, kind: str, engine: Engine) -> None:
    agent = 'dd if=/dev/zero of="$EVALKIT_TRAJECTORY" bs=1 count=1 seek=300000000; echo x >x'
    row = solve(evalkit, kind, engine.busybox, agent, tests="exit 1")
    assert row["note"] is None
    folder = evalkit.run_directory() / row["artifacts"]
    assert not (folder / "trajectory.jsonl").exists()
    assert "the trajectory has more than 256 MB: it is left out" in (folder / "agent.log").read_text()


def test_a_git_of_the_agent_that_prints_without_end(engine: Engine, tmp_path: Path) -> None:
    """In a container, where its owner can put anything in the place of git."""
    limit = OutputLimit("the patch", bytes=MEGABYTE)
    project, patch = tmp_path / "project", tmp_path / "patch.diff"
    project.mkdir()
    git("init", "-q", cwd=project)
    (project / "file").write_text("one\n")
    git("add", "-A", cwd=project)
    git("commit", "-qm", "First", cwd=project)

    async def work(workspace: Workspace) -> None:
        await workspace.write(project, workspace.places.work)
        repository = Repository(workspace, workspace.places.work, limit)
        start = await repository.scrub("HEAD", tmp_path / "scratch")
        await workspace.exec(("/bin/sh", "-c", "echo two >file"))
        await repository.diff(start, patch)
        assert "+two\n" in patch.read_text()
        patch.unlink()
        lying = r"""printf '#!/bin/sh\ncase "$*" in *--cached*) exec yes ;; esac; exec real-git "$@"\n' >/usr/bin/git"""
        replace_git = f"mv /usr/bin/git /usr/bin/real-git; {lying}; chmod +x /usr/bin/git"
        assert (await workspace.exec(("/bin/sh", "-c", replace_git))).code == 0
        with pytest.raises(TooLarge, match="the patch has more than 1 MB"):
            await repository.diff(start, patch)
        await workspace.exec(("/bin/sh", "-c", r"printf '#!/bin/sh\nexec yes\n' >/usr/bin/git"))
        with pytest.raises(TooLarge, match="no end"):
            await repository.diff(start, patch)

    with open_place("docker", tmp_path, engine) as place:
        run_with_git(place, engine, work)
    assert not patch.exists()


def run_with_git(place: Place, engine: Engine, work: Callable[[Workspace], Awaitable[None]]) -> None:
    async def opened() -> None:
        spec = place.spec()
        job = structs.replace(spec.job, instance=structs.replace(spec.job.instance, image=engine.python))
        async with place.workspaces.open(replace(spec, job=job)) as workspace:
            await work(workspace)

    anyio.run(opened)
