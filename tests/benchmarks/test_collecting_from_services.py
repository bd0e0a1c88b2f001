"""Artifacts and hooks of services beside the agent's container."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.benchmarks.task_directory import read_task
from evalkit.testing import FakeEngine
from tests.support.cli import Evalkit, Finished
from tests.support.fake_engine import open_fake_engine
from tests.support.tasks import make_task

COMPOSE = """
services:
  other:
    image: sidecar
    command: ["sh", "-c", "mkdir -p /data; echo theirs > /data/word; exec sleep 1000"]
    healthcheck: {test: test -e /data/word, interval: 50ms}
"""
HEAD = 'schema_version = "1.4"\n'
IMAGE = '[environment]\ndocker_image = "agent"\n'
SEPARATE = '[verifier]\nenvironment_mode = "separate"\n'
BOTH = 'artifacts = ["/app/answer", {source = "/data", service = "other", exclude = ["left"]}]\n'
HOOKS = """
[[verifier.collect]]
command = "echo by the hook > /data/hook; echo > /data/left; echo said"
service = "other"
[[verifier.collect]]
command = "cp /app/answer /app/first"
"""
ANSWER = "mkdir -p /app && echo right >/app/answer"
JUDGES = """
if [ "$(cat /app/answer /data/word /data/hook | xargs)" = "right theirs by the hook" ] && [ ! -e /data/left ]
then echo 1; else echo 0; fi >/logs/verifier/reward.txt
"""


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    with open_fake_engine() as engine:
        engine.add_image("agent")
        engine.add_image("sidecar")
        yield engine


def write(folder: Path, toml: str, *, tests: str = JUDGES) -> Path:
    files = {"docker-compose.yaml": COMPOSE}
    return make_task(folder / "tasks" / "one", solution=ANSWER, tests=tests, toml=HEAD + toml, files=files)


def infer(evalkit: Evalkit, fake: FakeEngine) -> Finished:
    return evalkit("infer", "tasks", "--workspace", "docker", "--set", "run.retries=0", DOCKER_HOST=fake.host)


def attempt(evalkit: Evalkit) -> Path:
    return evalkit.run_directory() / "instances" / "one" / "attempt-1"


def entries(evalkit: Evalkit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((attempt(evalkit) / "artifacts" / "manifest.json").read_bytes())
    return found


@pytest.mark.slow
def test_a_verifier_gets_them_at_their_source_once_the_agents_container_has_stopped(
    evalkit: Evalkit, fake: FakeEngine
) -> None:
    write(evalkit.folder, BOTH + IMAGE + SEPARATE + HOOKS)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert [(each["source"], each["service"], each["status"]) for each in entries(evalkit)] == [
        ("/logs/artifacts", "main", "empty"),
        ("/app/answer", "main", "ok"),
        ("/data", "other", "ok"),
    ]
    assert (attempt(evalkit) / "artifacts" / "data" / "word").read_text() == "theirs\n"
    assert (attempt(evalkit) / "collect.log").read_text() == "said\n"
    asked = [request.endpoint for request in fake.requests]
    assert asked.index("container_stop") < len(asked) - asked[::-1].index("archive_get") - 1
    assert asked.count("container_stop") == 1
    assert (fake.containers, fake.networks, fake.volumes) == ([], [], [])


@pytest.mark.slow
def test_where_tests_run_beside_the_agents_files_nothing_is_stopped(evalkit: Evalkit, fake: FakeEngine) -> None:
    tests = "[ -e /app/first ]; echo $((1-$?)) >/logs/verifier/reward.txt"
    write(evalkit.folder, BOTH + IMAGE + HOOKS, tests=tests)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert (attempt(evalkit) / "artifacts" / "data" / "hook").read_text() == "by the hook\n"
    assert all(request.endpoint != "container_stop" for request in fake.requests)


def test_what_a_hook_cannot_do_is_only_logged(evalkit: Evalkit, fake: FakeEngine) -> None:
    hooks = """
        [[verifier.collect]]
        command = "sleep 60"
        service = "other"
        timeout_sec = 0.3
        [[verifier.collect]]
        command = "ps | grep -c 'sleep 6[0]' > /data/hook; exit 3"
        service = "other"
        [[verifier.collect]]
        command = "true"
        service = "unknown"
    """
    sources = {"/gone": "other", "/x": "unknown", "/data": "other"}
    listed = ", ".join(f'{{source = "{source}", service = "{name}"}}' for source, name in sources.items())
    gone = f"artifacts = [{listed}]\n"
    tests = '[ "$(cat /data/hook)" = 0 ]; echo $((1-$?)) >/logs/verifier/reward.txt'
    write(evalkit.folder, gone + IMAGE + SEPARATE + hooks, tests=tests)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert [each["status"] for each in entries(evalkit)] == ["empty", "failed", "failed", "ok"]
    log = (attempt(evalkit) / "agent.log").read_text()
    assert "a collect hook did not end within 0.3 s: sleep 60" in log
    assert "a collect hook ended with status 3" in log
    assert "a collect hook is for the service unknown, which is not there" in log


def test_without_a_compose_file_there_are_no_services(tmp_path: Path) -> None:
    task = write(tmp_path, BOTH + IMAGE)
    assert read_task(task, in_containers=True).problem is None
    (task / "environment" / "docker-compose.yaml").unlink()
    assert "collects from other" in (read_task(task, in_containers=True).problem or "")
