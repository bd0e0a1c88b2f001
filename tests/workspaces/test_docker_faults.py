"""An engine that is restarted, dies, or runs out of disk, while instances run on it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.cli import Evalkit
from tests.support.engine import PrivateEngine, find_engine, require_root
from tests.support.tasks import make_task, make_tasks
from tests.support.waiting import eventually, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """An engine that a test may do with what it likes."""
    find_engine()
    require_root()
    engine = PrivateEngine(tmp_path_factory.mktemp("engine"))
    engine.start()
    engine.import_busybox()
    try:
        yield engine
    finally:
        engine.stop()


def in_containers(private: PrivateEngine, script: str, *arguments: object) -> tuple[object, ...]:
    settings = (
        f"workspace.image={private.engine.busybox}",
        "workspace.memory=64m",
        f"agent.command={json.dumps(['/bin/sh', '-c', script])}",
    )
    words = [word for each in settings for word in ("--set", each)]
    return ("infer", "tasks", "--workspace", "docker", "--agent", "command", *words, *arguments)


def running(private: PrivateEngine) -> int:
    return sum(each["State"] == "running" for each in private.engine.containers())


def test_a_run_outlives_a_restart_of_the_engine(evalkit: Evalkit, private: PrivateEngine) -> None:
    make_tasks(evalkit.folder / "tasks", 8, tests="[ -s answer ]")
    evalkit.variables["DOCKER_HOST"] = private.engine.host
    process = evalkit.start(*in_containers(private, "sleep 4; echo x >answer", "--workers", "4"))
    wait_until(lambda: running(private) == 4, process)
    private.stop()
    private.start()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    rows = evalkit.rows()
    assert Counter(row["verdict"] for row in rows) == {"resolved": 8}
    # Those that were under way were tried again; those that were waiting, or just opening, knew nothing of it.
    retries = [row["retries"] for row in rows]
    assert max(retries) == 1
    assert 1 <= sum(retries) <= 4
    assert private.engine.containers() == []


def test_a_dead_engine_ends_the_run_and_resume_finishes_it(evalkit: Evalkit, private: PrivateEngine) -> None:
    make_tasks(evalkit.folder / "tasks", 12, tests="[ -s answer ]")
    evalkit.variables["DOCKER_HOST"] = private.engine.host
    wait = ("--set", "workspace.reconnect=1s", "--workers", "3")
    process = evalkit.start(*in_containers(private, "sleep 2; echo x >answer", *wait))
    wait_until(lambda: len(evalkit.rows_so_far()) >= 1 and running(private) >= 2, process)
    private.stop()
    out, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    document = json.loads(out)
    assert document["error"]["kind"] == "engine"
    assert {row["failure"]["kind"] for row in evalkit.rows() if row["failure"]} <= {"engine"}
    buckets = document["buckets"]
    assert buckets["incomplete"] + buckets["resolved"] + buckets["error"] == 12, buckets

    refused = evalkit("resume")
    refused.refused(3, "engine", str(private.folder))
    private.start()
    finished = evalkit("resume")
    assert finished.code == 0, finished.stderr
    assert finished.document["buckets"]["resolved"] == 12
    assert private.engine.containers() == []


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """An engine with little room."""
    find_engine()
    require_root()
    folder = tmp_path_factory.mktemp("engine")
    data = folder / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", data], check=True)
    engine = PrivateEngine(folder)
    engine.start()
    engine.import_busybox()
    try:
        yield engine
    finally:
        engine.stop()
        subprocess.run(["umount", "--lazy", data], check=True)


def test_an_agent_that_fills_the_engines_disk_ends_alone(evalkit: Evalkit, small_disk: PrivateEngine) -> None:
    make_task(evalkit.folder / "tasks" / "one")
    evalkit.variables["DOCKER_HOST"] = small_disk.engine.host
    finished = evalkit(*in_containers(small_disk, "dd if=/dev/zero of=/big bs=1M", "--set", "workspace.memory=512m"))
    (row,) = evalkit.rows()
    assert (row["failure"]["kind"], row["retries"]) == ("disk_quota", 0), finished.stderr
    assert "No space left" in (evalkit.run_directory() / row["artifacts"] / "agent.log").read_text()
    assert finished.code == 1, "the run goes on for others"
    assert small_disk.engine.containers() == []


def test_an_engine_that_hangs_does_not_keep_evalkit_from_ending(evalkit: Evalkit, private: PrivateEngine) -> None:
    make_tasks(evalkit.folder / "tasks", 3)
    evalkit.variables["DOCKER_HOST"] = private.engine.host
    process = evalkit.start(*in_containers(private, "echo up; sleep 1000", "--workers", "3"))

    def agents_at_work() -> int:
        return sum("up" in log.read_text() for log in evalkit.runs.glob("*/instances/*/attempt-1/agent.log"))

    wait_until(lambda: agents_at_work() == 3, process)
    private.pause()
    try:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
    finally:
        private.proceed()
    assert process.returncode == 143
    # Nobody could tell the engine to remove them, but their supervisors went with evalkit.
    assert eventually(lambda: running(private) == 0)
    assert evalkit("doctor", "--sweep").code == 0
    assert private.engine.containers() == []
