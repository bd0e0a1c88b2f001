"""Whole runs in unpacked images: as root and as an ordinary user, with a real registry."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Evalkit
from tests.support.engine import Engine
from tests.support.pages import commands, run_line
from tests.support.processes import all_end
from tests.support.requirements import require
from tests.support.rootfs import BUSYBOX, make_store, require_kind
from tests.support.tasks import make_task
from tests.support.waiting import eventually
from tests.workspaces.test_escapes import Machine, machine

__all__ = ["machine"]

KINDS = ["rootfs", pytest.param("apptainer", marks=pytest.mark.slow)]


@pytest.fixture
def at_home(evalkit: Evalkit) -> Evalkit:
    """A command line whose cache has an image."""
    make_store(evalkit.folder / "cache" / "images")
    evalkit.variables["EVALKIT_CACHE"] = str(evalkit.folder / "cache")
    return evalkit


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_works_in_the_image_of_its_task_and_is_graded_there(at_home: Evalkit, kind: str) -> None:
    require_kind(kind)
    environment = f'[environment]\ndocker_image = "{BUSYBOX}"\n[environment.env]\nFROM_TASK = "yes"\n'
    tests = 'grep -q 42 answer && [ -e /root/left ] && [ "$FROM_TASK" = yes ] && [ "$FROM_IMAGE" = yes ]'
    make_task(
        at_home.folder / "tasks" / "one", tests=tests, solution="echo 42 >answer; touch /root/left", toml=environment
    )
    finished = at_home("infer", "tasks", "--workspace", kind, "--agent", "gold")
    assert finished.document["buckets"]["resolved"] == 1, finished.stderr
    at_home.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_the_page_run_in_unpacked_images(at_home: Evalkit, kind: str) -> None:
    """In the first task of an array of four, with an image that is there; its folder is this test's own."""
    require_kind(kind)
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_COUNT": "4"}
    given = {**array, "SLURM_ARRAY_TASK_MIN": "1", "EVALKIT_WORKSPACE_IMAGE": BUSYBOX, "EVALKIT_AGENT_NAME": "nop"}
    lines = [line for line in commands("docs/clusters.md") if kind in line]
    for line in lines:
        done = run_line(at_home, line, **given)
        assert done.returncode == 0, done.stderr
    assert len(lines) == 2
    assert len((at_home.runs / "big" / "1-of-4" / "results.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", ["rootfs", "apptainer"])
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("workspace.runtime=runsc", "workspace.runtime"),
        ("images.agent=codex@1.0.0", "images.agent"),
        ("workspace.network=host", "know no network 'host'"),
    ],
)
def test_what_only_an_engine_has_is_refused_by_its_name(
    at_home: Evalkit, kind: str, setting: str, complaint: str
) -> None:
    make_task(at_home.folder / "tasks" / "one")
    finished = at_home("infer", "tasks", "--workspace", kind, "--agent", "nop", "--set", setting)
    assert finished.code != 0
    assert complaint in finished.stderr
    assert at_home.rows_so_far() == []


def test_an_image_that_is_to_be_built_is_refused_before_anything_starts(at_home: Evalkit) -> None:
    require_kind("rootfs")
    make_task(at_home.folder / "tasks" / "one", files={"Dockerfile": "FROM scratch\n"})
    finished = at_home("infer", "tasks", "--workspace", "rootfs", "--agent", "nop")
    assert finished.code != 0
    assert "no engine builds it" in finished.stderr
    assert at_home.rows_so_far() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rootfs", "apptainer"])
def test_nothing_outlives_a_killed_run(at_home: Evalkit, kind: str) -> None:
    require_kind(kind)
    make_task(at_home.folder / "tasks" / "one")
    script = "(setsid sh -c 'while :; do sleep 543.27; done' &); touch /work/up; sleep 543.27"
    given = ("--workspace", kind, "--agent", "command", "--set", f'agent.command=sh -c "{script}"')
    run = at_home.start("infer", "tasks", *given, "--set", f"workspace.image={BUSYBOX}")
    assert eventually(lambda: subprocess.run(["pgrep", "-fx", "sleep 543.27"], check=False).returncode == 0)
    run.kill()
    run.communicate(timeout=30)
    assert all_end(Path("543.27"))
    assert eventually(lambda: not list(at_home.temporary.glob("evalkit-*")))


@pytest.mark.slow
@pytest.mark.engine
def test_an_image_of_a_real_registry_is_pulled_and_used(machine: Machine, engine: Engine) -> None:
    registry = os.environ.get("EVALKIT_TEST_REGISTRY")
    require("engine", registry, 'no registry for tests: eval "$(.ci/services start)"')
    repository = f"{registry}/evalkit-test/rootfs"
    engine.api.tag(engine.python, repository, "python")
    assert "error" not in engine.api.push(repository, "python")
    engine.api.remove_image(f"{repository}:python")
    image = f"{repository}:python"
    task = make_task(
        machine.folder / "tasks" / "one",
        tests='python3 -c \'import ssl; assert open("answer").read() == "42\\n"\'',
        toml=f'[environment]\ndocker_image = "{image}"\n',
    )
    (task / "environment").mkdir(exist_ok=True)
    script = "id -u; touch /usr/new /root/new; rm -r /usr/share/doc; cp -a /etc /etc2; git --version; echo 42 >answer"
    machine.environment["EVALKIT_CACHE"] = str(machine.home / "cache")
    row, log = machine.infer(["sh", "-c", script], "--workspace", "rootfs")
    assert row["verdict"] == "resolved", log
    assert "0" in log.splitlines()
    (config,) = (machine.home / "cache").glob("images/roots/*/config.json")
    assert json.loads(config.read_bytes())["os"] == "linux"
    assert not (config.parent / "rootfs" / "usr" / "new").exists()
    assert not list((machine.folder / "tmp").iterdir())
