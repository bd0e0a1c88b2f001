"""evalkit infer in the local workspace, with real tasks and real processes."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalkit.benchmarks.task_folders import BUNDLED, is_task
from tests.support.cli import PLUGINS, Evalkit
from tests.support.tasks import make_task
from tests.support.waiting import wait_until

THOUSAND = 1000
ODD_NAMES = PLUGINS / "evalkit_trial" / "odd_names.json"


def bundled_ids() -> list[str]:
    return sorted(path.name for path in BUNDLED.iterdir() if is_task(path))


@pytest.mark.slow
def test_gold_resolves_all_bundled_tasks(evalkit: Evalkit) -> None:
    """Without config, arguments or anything else."""
    finished = evalkit("infer")
    assert finished.code == 0, finished.stderr
    assert len(bundled_ids()) >= 24
    assert sorted(finished.document["ids"]["resolved"]) == bundled_ids()
    assert finished.document["buckets"]["resolved"] == finished.document["total"] == len(bundled_ids())
    evalkit.assert_nothing_left()


@pytest.mark.slow
def test_nop_resolves_no_bundled_task(evalkit: Evalkit) -> None:
    finished = evalkit("infer", "--agent", "nop")
    assert finished.code == 0, finished.stderr
    assert sorted(finished.document["ids"]["empty"]) == bundled_ids()
    assert finished.document["resolve_rate"]["value"] == 0.0


@pytest.mark.slow
def test_the_tests_of_bundled_tasks_refuse_what_changes_nothing(evalkit: Evalkit) -> None:
    """nop leaves nothing to grade; a file that helps nobody is graded, and fails."""
    agent = "agent.command=" + shlex.join(["touch", "a-file-that-helps-nobody"])
    finished = evalkit("infer", "--agent", "command", "--set", agent)
    assert finished.code == 0, finished.stderr
    assert sorted(finished.document["ids"]["unresolved"]) == bundled_ids()
    assert all(row["failure"] is None for row in evalkit.rows())


def test_any_string_is_an_id(evalkit: Evalkit) -> None:
    """Each has a folder of its own inside the run, and is done once."""
    finished = evalkit("infer", "--benchmark", "odd-names", "--workspace", "local")
    assert finished.code == 0, finished.stderr
    names = json.loads(ODD_NAMES.read_text())
    assert finished.document["ids"]["resolved"] == names
    folders = [evalkit.run_directory() / row["artifacts"] for row in evalkit.rows()]
    assert len(folders) == len({str(each).casefold() for each in folders}) == len(names)
    inside = evalkit.run_directory() / "instances"
    assert all(each.resolve().is_relative_to(inside) and each.is_dir() for each in folders)
    assert sorted(each.name for each in evalkit.folder.iterdir()) == ["runs", "tmp"]
    assert evalkit("resume", "--dry-run").document["attempts"] == 0


def count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


@pytest.mark.slow
def test_a_limit_on_open_files_that_is_too_low_is_said_on_the_screen(tmp_path: Path) -> None:
    program = "import resource; resource.setrlimit(7, (100, 100)); from evalkit.__main__ import main; main()"
    command = ("infer", "--select", "csv-quoting", "--agent", "nop", "--workers", "30", "--quiet")
    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "at most 100 files can be open, and 424 may be needed: use fewer workers, or raise" in done.stderr
    assert json.loads(done.stdout)["total"] == 1


@pytest.mark.slow
def test_a_thousand_local_workers(evalkit: Evalkit) -> None:
    """Real processes that all wait for each other: with fewer than a thousand at once, none would end."""
    evalkit.choose_sandbox(sandboxed=False)
    for number in range(THOUSAND + 20):
        make_task(evalkit.folder / "tasks" / f"task-{number:04}", tests="grep -q . answer")
    meeting = evalkit.folder / "meeting"
    meeting.mkdir()
    os.mkfifo(meeting / "gate")
    # To open a pipe for reading is to wait for somebody who writes.
    script = f"echo $EVALKIT_INSTANCE_ID > answer; : > {meeting}/$EVALKIT_INSTANCE_ID; : < {meeting}/gate"
    process = evalkit.start(
        "infer", "tasks", "--workspace", "local", "--agent", "command", "--workers", THOUSAND, "--quiet",
        "--set", "workspace.unsandboxed=true", "--set", f"agent.command={shlex.join(['sh', '-c', script])}",
    )  # fmt: skip
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1024, 16 * THOUSAND))  # as most machines have it
    try:
        patience = time.monotonic() + 400
        wait_until(lambda: count(meeting) > THOUSAND or time.monotonic() > patience, process)
        assert count(meeting) == THOUSAND + 1
        opened = count(Path(f"/proc/{process.pid}/fd"))
    except AssertionError:
        process.kill()
        raise
    gate = os.open(meeting / "gate", os.O_RDWR)
    try:
        _, err = process.communicate()
    finally:
        os.close(gate)
    assert process.returncode == 0, err
    rows = evalkit.rows()
    assert len(rows) == len({row["instance_id"] for row in rows}) == THOUSAND + 20
    assert {(row["outcome"], row["verdict"], row["retries"]) for row in rows} == {("submitted", "resolved", 0)}
    for row in rows:
        assert row["instance_id"] in (evalkit.run_directory() / row["patch"]["path"]).read_text()
    assert opened < 7 * THOUSAND, opened  # the pipe of its output has two ends
    evalkit.assert_nothing_left()


@pytest.mark.slow
def test_networks_and_hosts_are_flags(evalkit: Evalkit) -> None:
    hosts = ("--allow-host", "PyPI.org.", "--allow-host", "*.pythonhosted.org")
    finished = evalkit("infer", "--limit", 1, "--run-id", "run", "--network", "allowlist", *hosts)
    assert finished.code == 0, finished.stderr
    workspace = json.loads((evalkit.runs / "run/run.json").read_text())["config"]["workspace"]
    assert (workspace["network"], workspace["allow_hosts"]) == ("allowlist", ["pypi.org", "*.pythonhosted.org"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--allow-host", "pypi.org"), ("workspace.allow_hosts", "--network allowlist")),
        (("--network", "bridge", "--allow-host", "pypi.org"), ("workspace.allow_hosts", "--network allowlist")),
        (("--network", "allowlist", "--allow-host", "https://pypi.org/"), ("workspace.allow_hosts", "not a URL, port")),
        (("--network", "allowlist", "--allow-host", "pypi.org:443"), ("workspace.allow_hosts", "not a URL, port")),
    ],
)
def test_hosts_that_are_none_or_have_no_effect_are_refused(
    evalkit: Evalkit, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    evalkit("infer", *arguments).refused(2, "config", *words)
    assert not evalkit.runs.exists()


@pytest.mark.slow
def test_a_run_in_which_all_fail_alike_stops_and_can_go_on(evalkit: Evalkit) -> None:
    few = ("--agent", "command", "--workers", "1", "--set")
    stopped = evalkit("infer", *few, "agent.command=sh -c 'echo boom; exit 3'", "--run-id", "hopeless")
    stopped.refused(3, "breaker", "5 instances in a row failed with agent: sh exited with status 3: boom")
    assert "evalkit resume" in stopped.document["error"]["hint"]
    assert stopped.document["buckets"]["error"] == len(evalkit.rows()) == 5
    again = evalkit("resume", "hopeless", "--set", "run.breaker=7")
    again.refused(3, "breaker", "7 instances in a row")
    assert len(evalkit.rows()) == 12
    evalkit.assert_nothing_left()


def test_a_variable_of_the_agent_that_is_not_set_is_an_error_before_anything_starts(evalkit: Evalkit) -> None:
    arguments = ("infer", "--agent", "command", "--set", "agent.command=true", "--set", "agent.env=HOME,NOT_SET_HERE")
    evalkit(*arguments).refused(2, "config", "NOT_SET_HERE is not set", "export NOT_SET_HERE=")
    assert not list(evalkit.runs.glob("*")), "and the name of the run is free"
    assert evalkit("infer", "--agent", "nop", "--limit", "1", "--set", "agent.env=NOT_SET_HERE").code == 0
