"""Array jobs: each task starts or finishes its shard, and the folder of shards is one run to every command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Evalkit, Finished
from tests.support.pages import commands, run_line
from tests.support.tasks import make_task

SHARD = ("--shard", "auto", "--go-on", "--workspace", "local", "--quiet")


def task(evalkit: Evalkit, number: int, *more: object, count: int = 3) -> Finished:
    """What the task of a Slurm array does."""
    return evalkit(
        "infer", "tasks", *SHARD, *more,
        SLURM_ARRAY_JOB_ID="7",
        SLURM_ARRAY_TASK_ID=str(number),
        SLURM_ARRAY_TASK_MIN="1",
        SLURM_ARRAY_TASK_MAX=str(count),
        SLURM_ARRAY_TASK_COUNT=str(count),
    )  # fmt: skip


@pytest.fixture
def tasks(evalkit: Evalkit) -> Evalkit:
    for name in ("a", "b", "c", "d"):
        make_task(evalkit.folder / "tasks" / name, solution="echo done > answer", tests="grep -q done answer")
    return evalkit


def ids(document: Any, bucket: str = "resolved") -> list[str]:
    found: list[str] = document["ids"][bucket]
    return found


@pytest.mark.slow
def test_tasks_of_an_array_start_finish_and_read_as_one_run(tasks: Evalkit) -> None:
    limits = ("--run-id", "big", "--set", "run.max_cost_usd=3", "--set", "model.max_in_flight=7")
    finished = [task(tasks, number, *limits) for number in (1, 2)]
    assert [(each.code, ids(each.document)) for each in finished] == [(0, ["a", "d"]), (0, ["b"])]
    rows = (tasks.runs / "big" / "1-of-3" / "results.jsonl").read_bytes()
    again = task(tasks, 1, *limits)
    assert again.document == finished[0].document
    assert (tasks.runs / "big" / "1-of-3" / "results.jsonl").read_bytes() == rows, "nothing was left to be done"
    manifest = json.loads((tasks.runs / "big" / "2-of-3" / "run.json").read_text())
    assert manifest["shares"] == {"run.max_cost_usd": 1.0, "model.max_in_flight": 2}
    assert manifest["config"]["run"]["max_cost_usd"] == 3.0
    partial = tasks("aggregate", "big")
    assert (partial.code, partial.document["total"]) == (1, 4)
    assert (ids(partial.document), ids(partial.document, "incomplete")) == (["a", "b", "d"], ["c"])
    assert "not started: shard 3/3; their instances count as incomplete" in partial.stderr
    assert task(tasks, 3, *limits).code == 0
    whole = tasks("aggregate")
    assert (whole.code, whole.document["runs"], len(ids(whole.document))) == (0, ["runs/big"], 4)


@pytest.mark.slow
def test_every_command_takes_a_folder_of_shards(tasks: Evalkit) -> None:
    for number in (1, 2, 3):
        assert task(tasks, number).code == 0
    (tasks.runs / "slurm-7" / "1-of-3" / "results.jsonl").write_bytes(b"")
    finished = tasks("resume", "slurm-7", "--quiet")
    assert (finished.code, finished.document["run"], len(ids(finished.document))) == (0, "runs/slurm-7", 4)
    graded = tasks("grade", "slurm-7", "--force", "--quiet")
    assert (graded.code, graded.document["run"], len(ids(graded.document))) == (0, "runs/slurm-7", 4)
    lines = tasks("predictions", "slurm-7").stdout.decode().splitlines()
    assert {json.loads(line)["instance_id"] for line in lines} == {"a", "b", "c", "d"}
    assert all(json.loads(line)["model_patch"] for line in lines)
    shown = tasks("show", "slurm-7", "b", "--quiet").document
    assert shown["folder"] == "runs/slurm-7/2-of-3/instances/b/attempt-1"
    assert shown["patch"]["added"] == 1
    assert [(each["id"], each["done"]) for each in tasks("runs").document["runs"]] == [("slurm-7", 4)]
    compared = tasks("compare", "slurm-7", "runs/slurm-7/1-of-3").document
    assert compared["both"] == 2
    assert tasks("audit", "slurm-7").document["runs"][0]["run"] == "runs/slurm-7"
    assert tasks("power", "slurm-7", "--difference", "20").document["instances"] == 4
    assert len(tasks("aggregate", "slurm-7", "--rows").stdout.splitlines()) == 4
    assert tasks("report", "slurm-7", "--output", "report", "--quiet").code == 0
    assert tasks("trajectory", "slurm-7", "c").document["error"]["message"].startswith("attempt 1 at c has no")
    shutil.move(tasks.runs / "slurm-7", tasks.folder / "elsewhere")
    assert len(ids(tasks("aggregate", "elsewhere").document)) == 4


@pytest.mark.slow
def test_the_lines_of_the_page_run(evalkit: Evalkit) -> None:
    """The first line in each of four tasks, the others after them."""
    first, *others = [line for line in commands("docs/clusters.md") if not re.search("rootfs|apptainer|^export", line)]
    for number in "1234":
        array = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_COUNT": "4"}
        done = run_line(evalkit, first, SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=number, **array)
        assert done.returncode == 0, done.stderr
        assert (evalkit.runs / "big" / f"{number}-of-4").is_dir()
    for line in others:
        done = run_line(evalkit, line)
        assert (done.returncode, json.loads(done.stdout).get("total", 3)) == (0, 3), done.stderr
    assert len((evalkit.runs / "whole" / "results.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_what_does_not_fit_the_others_is_refused(tasks: Evalkit) -> None:
    assert task(tasks, 1, "--run-id", "big").code == 0
    alone = task(tasks, 1, "--run-id", "big", count=1)
    assert (alone.code, alone.document["error"]["message"]) == (2, "runs/big has shards of 3, and this is 1/1")
    assert "--shard auto/3" in alone.document["error"]["hint"]
    changed = task(tasks, 1, "--run-id", "big", "--agent", "nop")
    assert (changed.code, "agent.name" in changed.document["error"]["message"]) == (2, True)
    unnamed = tasks("infer", "tasks", "--shard", "1/3", "--go-on")
    assert (unnamed.code, "--run-id" in unnamed.document["error"]["hint"]) == (2, True)
    assert tasks("infer", "tasks", "--go-on").code == 2


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("benchmark", "shard", "x/y"),
        (None, "selection", {"instance_ids": ["a"]}),
        (None, "selection", {"fingerprint": 1}),
    ],
)
def test_a_damaged_shard_is_named(tasks: Evalkit, section: str | None, key: str, value: object) -> None:
    assert task(tasks, 1, "--run-id", "big").code == 0
    file = tasks.runs / "big" / "1-of-3" / "run.json"
    document = json.loads(file.read_text())
    (document["config"][section] if section else document)[key] = value
    file.write_text(json.dumps(document))
    tasks("aggregate", "big").refused(2, "usage", "big/1-of-3/run.json")


def test_a_run_without_shards_goes_on_too(tasks: Evalkit) -> None:
    command = ("infer", "tasks", "--workspace", "local", "--run-id", "one", "--go-on", "--quiet")
    assert ids(tasks(*command).document) == ["a", "b", "c", "d"]
    assert ids(tasks(*command).document) == ["a", "b", "c", "d"]
    assert len((tasks.runs / "one" / "results.jsonl").read_text().splitlines()) == 4


def test_a_shard_of_nothing_is_done(tasks: Evalkit) -> None:
    empty = task(tasks, 6, "--run-id", "many", count=6)
    assert (empty.code, empty.document["total"]) == (0, 0)


@pytest.mark.slow
def test_the_job_script_of_the_example_runs(tasks: Evalkit) -> None:
    """As Slurm runs it: with the variables of a task, in the folder of the submission."""
    script = Path(__file__).parents[2] / "examples" / "slurm" / "job.sh"
    array = {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "2"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for number in ("1", "2", "1"):
        variables = array | {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_COUNT": "2", "PATH": path}
        subprocess.run(
            [script, "tasks", "--workspace", "local"],
            cwd=tasks.folder,
            env=tasks.environment() | variables,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    assert ids(tasks("aggregate", "slurm-4711").document) == ["a", "b", "c", "d"]
