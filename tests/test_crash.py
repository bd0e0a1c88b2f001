"""evalkit killed at any moment: nothing is lost, nothing counts twice, nothing is left over."""

from __future__ import annotations

import errno
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from evalkit.domain.results import Row
from evalkit.errors import EvalkitError, StoreError
from evalkit.store.run_directory import RunDirectory
from evalkit.system.process_identity import pid_scope, start_time
from tests.support.cli import Evalkit
from tests.support.engine import Engine, left_of
from tests.support.processes import processes_of, running
from tests.support.runs import make_manifest, make_result
from tests.support.tasks import make_task
from tests.support.waiting import eventually, wait_until

AGENT = "(setsid sleep 300 &) ; sleep 0.0$((EVALKIT_ATTEMPT + 1)); echo $EVALKIT_INSTANCE_ID > answer"
UNSANDBOXED = ("--set", "workspace.unsandboxed=true")
LOCAL = ("--workspace", "local", "--agent", "command", *UNSANDBOXED, "--workers", "3")


@pytest.mark.slow
@pytest.mark.parametrize("sandboxed", [True, False])
def test_killed_and_resumed_again_and_again(evalkit: Evalkit, sandboxed: bool) -> None:
    """Killed 25 times each; a last resume finishes, and every instance has exactly one result that counts."""
    evalkit.choose_sandbox(sandboxed)
    chance = random.Random(11)
    ids = [f"task-{number:02}" for number in range(40)]
    for name in ids:
        make_task(evalkit.folder / "tasks" / name, tests="grep -q . answer")
    command = ("--set", f"agent.command={shlex.join(['sh', '-c', AGENT])}", "--quiet")
    first: tuple[object, ...] = ("infer", "tasks", "--run-id", "run", *LOCAL, *command)
    for _ in range(25):
        started = (evalkit.runs / "run" / "run.json").exists()
        process = evalkit.start(*(("resume", "--quiet", "run") if started else first))
        time.sleep(chance.uniform(0.05, 0.8))
        process.kill()
        process.communicate()
        if not started and not (evalkit.runs / "run" / "run.json").exists():
            continue
    finished = evalkit("resume", "run") if evalkit.runs.exists() else evalkit(*first)
    assert finished.code == 0, finished.stderr
    rows = evalkit.rows()
    assert Counter(row["instance_id"] for row in rows) == Counter(ids)
    assert {(row["outcome"], row["verdict"]) for row in rows} == {("submitted", "resolved")}
    assert json.loads((evalkit.runs / "run" / "run.json").read_text())["instance_ids"] == ids
    assert finished.document["unreadable"] == []
    for row in rows:
        assert row["instance_id"] in (evalkit.runs / "run" / row["patch"]["path"]).read_text()
    until = time.monotonic() + 30  # the guards of killed processes may still be sweeping
    while (processes_of(evalkit.folder) or list(evalkit.temporary.iterdir())) and time.monotonic() < until:
        time.sleep(0.1)
    evalkit.assert_nothing_left()


SERVICE = """
services:
  main: {depends_on: {web: {condition: service_healthy}}, volumes: ["shared:/shared"]}
  web:
    image: BUSYBOX
    command: sh -c "mkdir -p /www && echo page >/www/index.html && exec httpd -f -p 80 -h /www"
    volumes: ["shared:/seen:ro"]
    mem_limit: 32m
    healthcheck: {test: "wget -qO- http://localhost/", interval: 200ms, retries: 100}
volumes: {shared: {}}
"""
SEPARATE = 'artifacts = ["/work/answer"]\n[verifier]\nenvironment_mode = "separate"\n'


@pytest.mark.slow
@pytest.mark.engine
def test_killed_and_resumed_with_services_and_verifiers_of_their_own(evalkit: Evalkit, engine: Engine) -> None:
    """Each instance has two containers, a network and a volume, and half of them are graded in another two."""
    chance, run = random.Random(12), f"crash-{secrets.token_hex(4)}"
    ids = [f"task-{number}" for number in range(8)]
    for number, name in enumerate(ids):
        make_task(
            evalkit.folder / "tasks" / name,
            toml=f'{SEPARATE if number % 2 else ""}[environment]\ndocker_image = "{engine.busybox}"\nmemory_mb = 64',
            files={"docker-compose.yaml": SERVICE.replace("BUSYBOX", engine.busybox)},
            solution="echo x >/shared/mine && wget -qO- http://web/ >/work/answer",
            tests='[ "$(wget -qO- http://web/)" = "$(cat /work/answer)" ]',
        )
    first = ("infer", "tasks", "--run-id", run, "--agent", "gold", "--workers", "3", "--quiet")
    left: list[str] = []
    for _ in range(10):
        started = (evalkit.runs / run / "run.json").exists()
        process = evalkit.start(*(("resume", "--quiet", run) if started else first))
        time.sleep(chance.uniform(0.5, 4.0))
        process.kill()
        process.communicate()
        left += left_of(engine, run)
    assert len(left) > 10, "it was never killed at its work"
    finished = evalkit("resume", run, timeout=300)
    assert finished.code == 0, finished.stderr
    rows = evalkit.rows(run)
    assert Counter(row["instance_id"] for row in rows) == Counter(ids)
    assert {(row["outcome"], row["verdict"]) for row in rows} == {("submitted", "resolved")}
    assert eventually(lambda: left_of(engine, run) == [])
    assert eventually(lambda: not processes_of(evalkit.folder) and not list(evalkit.temporary.iterdir()))
    evalkit.assert_nothing_left()


def test_a_folder_that_no_guard_has_swept_is_gone_after_the_next_run(evalkit: Evalkit) -> None:
    """Its process was killed before it had a guard, or its guard was killed too; a living process keeps its own."""
    gone = subprocess.Popen(["sleep", "300"])
    ours = evalkit.temporary / f"evalkit-{gone.pid}-{start_time(gone.pid)}-{pid_scope()}-abandoned"
    alive = evalkit.temporary / f"evalkit-{os.getpid()}-{start_time(os.getpid())}-{pid_scope()}-inuse"
    for folder in (ours, alive):
        (folder / "job").mkdir(parents=True)
    gone.kill()
    gone.wait()
    make_task(evalkit.folder / "tasks" / "task", solution="true")
    assert evalkit("infer", "tasks", "--agent", "gold", "--workspace", "local", *UNSANDBOXED).code == 0
    assert list(evalkit.temporary.iterdir()) == [alive]


WORK = 3517  # seconds, of no other process here


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("removed", [True, False])
def test_a_run_whose_folder_is_gone_stops_and_says_so(evalkit: Evalkit, removed: bool, retries: int) -> None:
    """No agent is sent off again, and what was moved is resumed where it is now."""
    for name in ("task-1", "task-2"):
        make_task(evalkit.folder / "tasks" / name, tests="grep -q . answer")
    run, moved = evalkit.runs / "run", evalkit.runs / "moved"
    script = f"sleep {WORK}; echo x > answer"
    command = ("--set", f"agent.command={shlex.join(['sh', '-c', script])}", "--set", f"run.retries={retries}")
    process = evalkit.start("infer", "tasks", "--run-id", "run", *LOCAL, *command)
    wait_until(lambda: len(running(f"sleep {WORK}")) == 2, process)
    shutil.rmtree(run) if removed else run.rename(moved)
    for pid in running(f"sleep {WORK}"):
        os.kill(int(pid), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    error = json.loads(out)["error"]
    assert (process.returncode, error["kind"]) == (3, "store"), err
    assert ("was removed" if removed else "was moved") in error["message"]
    assert b"Traceback" not in err
    assert b"evalkit resume runs/run" not in err, "there is nothing to resume"
    assert not run.exists()
    if not removed:
        resumed = ("--set", f"agent.command={shlex.join(['sh', '-c', 'echo x > answer'])}")
        assert evalkit("resume", moved, *resumed, "--accept-change", "agent.command").code == 0
        rows = [json.loads(line) for line in (moved / "results.jsonl").read_text().splitlines()]
        final = {row["instance_id"]: row["verdict"] for row in rows}
        assert final == {"task-1": "resolved", "task-2": "resolved"}
    evalkit.assert_nothing_left()


@pytest.mark.parametrize("others", [[], ["thesis.txt"]])
def test_what_was_written_to_the_place_of_a_moved_run_is_not_in_its_way(tmp_path: Path, others: list[str]) -> None:
    """A grader may be copying files as the run is moved. What somebody else has put there stays."""
    path, moved = tmp_path / "run", tmp_path / "moved"
    run = RunDirectory.create(path, make_manifest(["a"]))
    with run.writing():
        path.rename(moved)
        (path / "instances" / "a" / "attempt-1" / "verifier").mkdir(parents=True)
        for name in others:
            (path / name).write_text("precious")
    assert path.exists() == bool(others)
    if not others:
        moved.rename(path)
        finish(path, ["a"])


# One process for each number of system calls that it survives, until it survives all of them.
DRIVER = """
import itertools, os, sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from evalkit.store.run_directory import RunDirectory
from tests.support.runs import make_manifest, make_result

def create(path):
    RunDirectory.create(path, make_manifest(["a", "b"]))

def append(path):
    run = RunDirectory.open(path)
    with run.writing():
        run.append([make_result("b")])

def extend(path):
    run = RunDirectory.open(path)
    with run.writing():
        run.adopt(make_manifest(["a", "b", "c"]))
        run.save()
        run.fresh_attempt_folder("a", 1)

def mortal(call, name, left):
    def counted(*arguments, **keywords):
        if next(left) == 0:
            if name == "write":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os._exit(42)
        return call(*arguments, **keywords)
    return counted

for calls in itertools.count():
    path = Path({folder!r}, f"run-{{calls}}")
    if {operation} is not create:
        create(path)
        run = RunDirectory.open(path)
        with run.writing():
            run.append([make_result("a")])
    child = os.fork()
    if child == 0:
        left = itertools.count(calls, -1)
        for name in "open write fsync fdatasync rename replace mkdir ftruncate unlink close pwrite".split():
            setattr(os, name, mortal(getattr(os, name), name, left))
        {operation}(path)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 42), code
    if code == 0:
        break
"""


def die_everywhere(operation: str, folder: Path) -> list[Path]:
    """What is left of an operation that died at its first system call, at its second one, and so on."""
    program = DRIVER.format(root=str(Path(__file__).parents[1]), folder=str(folder), operation=operation)
    subprocess.run([sys.executable, "-c", program], check=True)
    left = sorted(folder.glob("run-*"), key=lambda path: int(path.name[4:]))
    assert len(left) > 5
    return left


def finish(path: Path, ids: list[str]) -> None:
    """Whatever a crash left: it can be read, written to, and has each row once."""
    run = RunDirectory.open(path)
    with run.writing():
        pending = [name for name in ids if run.ledger().standings[name].bucket == "incomplete"]
        for name in pending:
            run.fresh_attempt_folder(name, 1)
            run.append([make_result(name)])
    rows = list(run.rows())
    assert all(isinstance(row, Row) for row in rows)
    assert sorted(row.instance_id for row in rows if isinstance(row, Row)) == ids


@pytest.mark.slow
def test_death_while_a_run_is_created(tmp_path: Path) -> None:
    for path in die_everywhere("create", tmp_path):
        if not (path / "run.json").exists():
            RunDirectory.create(path, make_manifest(["a", "b"]))  # the same name can be used again
        finish(path, ["a", "b"])


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "after"), [("append", ["a", "b"]), ("extend", ["a", "b", "c"])])
def test_death_while_a_run_is_written_to(tmp_path: Path, operation: str, after: list[str]) -> None:
    for path in die_everywhere(operation, tmp_path):
        now = list(RunDirectory.open(path).manifest.instance_ids)
        assert now in (["a", "b"], after)
        finish(path, now)


def write_answers(run: RunDirectory) -> None:
    (run.fresh_attempt_folder("a", 1) / "patch.diff").write_text("diff")


def test_a_run_whose_answers_do_not_fit_on_the_disk_leaves_its_name_free(tmp_path: Path) -> None:
    def fill(run: RunDirectory) -> None:
        write_answers(run)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=r"cannot write to .*run: No space left"):
        RunDirectory.create(tmp_path / "run", make_manifest(["a"]), fill)
    assert list(tmp_path.iterdir()) == []


def test_death_while_answers_are_written(tmp_path: Path) -> None:
    write_answers(RunDirectory(tmp_path / "run", make_manifest(["a"])))
    RunDirectory.create(tmp_path / "run", make_manifest(["a"]), write_answers)
    finish(tmp_path / "run", ["a"])


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(EvalkitError, match="exists already"):
        RunDirectory.create(tmp_path / "run", make_manifest(["a"]))
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"
