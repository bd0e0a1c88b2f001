"""Tasks whose verifier has a container of its own: it gets what was collected, and nothing else of the agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.testing import FakeEngine
from evalkit.testing.container_engine import FakeImage
from tests.support.cli import Evalkit, Finished
from tests.support.fake_engine import open_fake_engine
from tests.support.tasks import make_task

SEPARATE = """
schema_version = "1.4"
artifacts = [{artifacts}]
[environment]
docker_image = "agent"
[verifier]
environment_mode = "separate"
"""
OWN_IMAGE = '[verifier.environment]\ndocker_image = "verifier"\n'
REWARD = "then echo 1 >/logs/verifier/reward.txt; else echo 0 >/logs/verifier/reward.txt; fi"
ANSWER = 'mkdir -p /app && echo right >/app/answer.txt && echo "in the image of the agent only" >/app/other.txt'
JUDGES = f'if [ "$(cat /app/answer.txt)" = right ] && [ ! -e /app/other.txt ]; {REWARD}'


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    """An engine with an image for agents, and one for a verifier with its tests in it."""
    files = tmp_path / "image"
    for name, text in {"tests/test.sh": f"#!/bin/sh\n{JUDGES}\n", "app/old.txt": "", "logs/verifier/old": ""}.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
    (tmp_path / "agents" / "made").mkdir(parents=True)
    (tmp_path / "agents" / "judged").mkdir()
    with open_fake_engine() as engine:
        engine.add_image("agent", FakeImage(files=tmp_path / "agents"))
        engine.add_image("verifier", FakeImage(files=files))
        yield engine


def infer(evalkit: Evalkit, fake: FakeEngine, *arguments: str) -> Finished:
    options = ("--workspace", "docker", "--set", "run.retries=0", *arguments)
    return evalkit("infer", "tasks", *options, DOCKER_HOST=fake.host)


def attempt(evalkit: Evalkit, name: str = "one") -> Path:
    return evalkit.run_directory() / "instances" / name / "attempt-1"


def manifest(evalkit: Evalkit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((attempt(evalkit) / "artifacts" / "manifest.json").read_bytes())
    return found


def test_the_verifier_gets_the_artifacts_in_its_own_image_with_the_tests_in_it(
    evalkit: Evalkit, fake: FakeEngine
) -> None:
    toml = SEPARATE.format(artifacts='"/app/answer.txt"') + OWN_IMAGE
    task = make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, tests="exit 9", toml=toml)
    (task / "tests" / "test.sh").unlink()
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    (row,) = evalkit.rows()
    assert row["collected"]["path"] == "instances/one/attempt-1/artifacts"
    assert row["patch"] is None
    assert (attempt(evalkit) / "artifacts" / "app" / "answer.txt").read_text() == "right\n"
    assert [(each["source"], each["status"]) for each in manifest(evalkit)] == [
        ("/logs/artifacts", "empty"),
        ("/app/answer.txt", "ok"),
    ]
    assert not (attempt(evalkit) / "verifier" / "old").exists(), "what the image has there is no result"
    nop = infer(evalkit, fake, "--agent", "nop", "--run-id", "nop")
    assert nop.document["ids"]["unresolved"] == ["one"], nop.stderr


@pytest.mark.slow
def test_without_an_image_of_its_own_it_has_a_fresh_one_of_the_agents_and_the_tests_are_uploaded(
    evalkit: Evalkit, fake: FakeEngine
) -> None:
    toml = SEPARATE.format(artifacts='{source = "/app/answer.txt", destination = "kept/it"}')
    make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, tests=JUDGES, toml=toml)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert (attempt(evalkit) / "artifacts" / "kept" / "it").read_text() == "right\n"
    assert sum(request.endpoint == "container_create" for request in fake.requests) == 2


@pytest.mark.slow
def test_the_agents_container_is_gone_before_the_verifier_starts(evalkit: Evalkit, fake: FakeEngine) -> None:
    make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, tests=JUDGES, toml=SEPARATE.format(artifacts=""))
    infer(evalkit, fake)
    events = [event for event in fake.events if event in ("container start", "container die")]
    assert events == ["container start", "container die"] * 2


@pytest.mark.slow
def test_hooks_run_once_the_agents_processes_are_gone_and_before_artifacts_are_read(
    evalkit: Evalkit, fake: FakeEngine
) -> None:
    toml = (
        SEPARATE.format(artifacts="")
        + """
        [[verifier.collect]]
        command = "cp /app/answer.txt /logs/artifacts/answer.txt; cat /app/lives >/logs/artifacts/lives"
        [[verifier.collect]]
        command = "echo said; exit 3"
        [[verifier.collect]]
        command = "sleep 60"
        timeout_sec = 0.2
    """
    )
    lives = f"{ANSWER}; (while :; do sleep 0.01; echo >>/app/lives; done) & sleep 0.2"
    tests = f'cat /logs/artifacts/answer.txt >&2; if [ "$(cat /logs/artifacts/answer.txt)" = right ]; {REWARD}'
    make_task(evalkit.folder / "tasks" / "one", solution=lives, tests=tests, toml=toml)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    log = (attempt(evalkit) / "agent.log").read_text()
    assert "a collect hook ended with status 3" in log
    assert "a collect hook did not end within 0.2 s" in log
    assert (attempt(evalkit) / "collect.log").read_text() == "said\n"


@pytest.mark.slow
def test_folders_are_emptied_first_and_patterns_leave_files_out(evalkit: Evalkit, fake: FakeEngine) -> None:
    solution = """
        mkdir -p /app/src/cache /app/lib && cd /app
        touch src/kept.py src/cache/left-out src/left.pyc lib/kept && ln -s /etc/passwd src/out && ln -s kept.py src/in
    """
    judges = f"""
        if [ "$(cd /app && find . | sort | xargs)" = ". ./lib ./lib/kept ./src ./src/in ./src/kept.py" ]; {REWARD}
    """
    toml = SEPARATE.format(artifacts='{source = "/app", exclude = ["cache", "*.pyc"]}, "/app/lib"') + OWN_IMAGE
    make_task(evalkit.folder / "tasks" / "one", solution=solution, toml=toml)
    (evalkit.folder / "image" / "tests" / "test.sh").write_text(f"#!/bin/sh\nfind /app; {judges}\n")
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], (attempt(evalkit) / "test_output.txt").read_text()
    assert [(each["source"], each["status"]) for each in manifest(evalkit)] == [
        ("/logs/artifacts", "empty"),
        ("/app", "ok"),
        ("/app/lib", "skipped"),
    ]


@pytest.mark.slow
def test_what_is_missing_is_listed_and_the_verifier_judges(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = SEPARATE.format(artifacts='"/app/gone.txt", "/app/answer.txt"')
    make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, tests=JUDGES, toml=toml)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert [each["status"] for each in manifest(evalkit)] == ["empty", "failed", "ok"]


def test_a_verifier_without_a_reward_is_a_failure_of_the_grader(evalkit: Evalkit, fake: FakeEngine) -> None:
    make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, toml=SEPARATE.format(artifacts=""))
    done = infer(evalkit, fake)
    assert done.code == 1
    (row,) = evalkit.rows()
    assert (row["verdict"], row["failure"]["kind"]) == ("ungraded", "grader")
    assert "status 0, without reward.json or reward.txt" in row["failure"]["message"]


@pytest.mark.slow
def test_recorded_artifacts_are_graded_again_where_they_or_the_tests_changed(
    evalkit: Evalkit, fake: FakeEngine
) -> None:
    toml = SEPARATE.format(artifacts='"/app/answer.txt"')
    task = make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, tests=JUDGES, toml=toml)
    infer(evalkit, fake)

    def grade() -> tuple[int, str]:
        done = evalkit("grade", "--workspace", "docker", DOCKER_HOST=fake.host)
        assert done.code == 0, done.stderr
        rows = evalkit.rows()
        return len(rows), rows[-1]["verdict"]

    assert grade() == (1, "resolved"), "nothing has changed"
    (attempt(evalkit) / "artifacts" / "app" / "answer.txt").write_text("wrong\n")
    assert grade() == (2, "unresolved")
    assert grade() == (2, "unresolved")
    (task / "tests" / "test.sh").write_text("#!/bin/sh\necho 1 >/logs/verifier/reward.txt\n")
    assert grade() == (3, "resolved")
    assert evalkit.rows()[0]["usage"] == evalkit.rows()[2]["usage"], "no agent ran"


@pytest.mark.slow
def test_grading_again_needs_no_image_of_the_agent(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = SEPARATE.format(artifacts='"/app/answer.txt"') + OWN_IMAGE
    make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, toml=toml)
    infer(evalkit, fake)
    fake.remove_image("agent")
    done = evalkit("grade", "--force", "--workspace", "docker", DOCKER_HOST=fake.host)
    assert done.code == 0, done.stderr
    assert [row["verdict"] for row in evalkit.rows()] == ["resolved", "resolved"]
    infer(evalkit, fake, "--run-id", "again").refused(3, "image_missing", "agent")


def test_a_work_folder_that_the_image_lacks_is_named(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = SEPARATE.format(artifacts="").replace('"agent"\n', '"agent"\nworkdir = "/not/there"\n')
    make_task(evalkit.folder / "tasks" / "one", solution=ANSWER, tests=JUDGES, toml=toml)
    infer(evalkit, fake)
    (row,) = evalkit.rows()
    assert row["failure"]["kind"] == "setup"
    assert "no folder /not/there" in row["failure"]["message"]


@pytest.mark.slow
def test_resume_grades_what_could_not_be_graded_without_another_agent(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = SEPARATE.format(artifacts='"/app/answer.txt"') + OWN_IMAGE
    make_task(evalkit.folder / "tasks" / "one", solution=f"{ANSWER}; echo worked", toml=toml)
    script = evalkit.folder / "image" / "tests" / "test.sh"
    script.write_text("#!/bin/sh\n")
    infer(evalkit, fake)
    assert evalkit.rows()[0]["failure"]["stage"] == "grade"
    script.write_text(f"#!/bin/sh\n{JUDGES}\n")
    done = evalkit("resume", DOCKER_HOST=fake.host)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert [set(row["stages"]) for row in evalkit.rows()][1] == {"queued", "open", "grade"}


@pytest.mark.slow
def test_environments_have_variables_and_resources_of_their_own(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = (
        SEPARATE.format(artifacts="")
        + """
        environment.env = {A = "${FROM_HERE}"}
        environment.memory_mb = 64
        environment.workdir = "/judged"
        env = {B = "b"}
        [solution]
        env = {C = "c"}
    """
    )
    toml = toml.replace(
        'docker_image = "agent"', 'docker_image = "agent"\nenv = {A = "agent"}\nworkdir = "/made"\nmemory_mb = 128'
    )
    solution = 'echo "$A $C $PWD" >/logs/artifacts/said'
    tests = f'if [ "$(cat /logs/artifacts/said) $A $B$C $PWD" = "agent c /made here b /judged" ]; {REWARD}'
    make_task(evalkit.folder / "tasks" / "one", solution=solution, tests=tests, toml=toml)
    evalkit.variables["FROM_HERE"] = "here"
    memories: list[int] = []

    def look(request: Any) -> None:
        if request.endpoint == "container_start":
            memories.extend(each.host_config["Memory"] for each in fake.containers)

    fake.watch = look
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert memories == [128 << 20, 64 << 20]


@pytest.mark.slow
def test_health_checks_are_waited_for_in_both(evalkit: Evalkit, fake: FakeEngine) -> None:
    check = 'echo >>/tries; [ "$(wc -l </tries)" -gt 3 ]'
    pauses = "interval_sec = 0, retries = 2, start_interval_sec = 0, start_period_sec = 60"
    health = f"healthcheck = {{command = '{check}', {pauses}}}\n"
    toml = SEPARATE.format(artifacts="").replace("[verifier]", f"{health}[verifier]")
    tests = f"if [ \"$(wc -l </tries) $(cat /logs/artifacts/tries | wc -l)\" = '4 4' ]; {REWARD}"
    make_task(evalkit.folder / "tasks" / "one", solution="cp /tries /logs/artifacts/", tests=tests, toml=toml)
    assert infer(evalkit, fake).document["ids"]["resolved"] == ["one"]
    never = toml.replace(", start_period_sec = 60", "")
    make_task(evalkit.folder / "tasks" / "one", solution="exit 0", tests=tests, toml=never)
    done = infer(evalkit, fake, "--run-id", "never")
    (row,) = evalkit.rows("never")
    assert (row["failure"]["kind"], row["failure"]["stage"]) == ("setup", "open"), done.stderr
    assert "the health check failed 2 times in a row" in row["failure"]["message"]


def test_a_verifier_costs_few_requests_to_the_engine(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = SEPARATE.format(artifacts='"/app/answer.txt", "/app/other.txt", "/app/more.txt"')
    make_task(evalkit.folder / "tasks" / "one", solution=f"{ANSWER}; touch /app/more.txt", tests="exit 9", toml=toml)
    infer(evalkit, fake, "--agent", "gold")
    endpoints = [request.endpoint for request in fake.requests]
    of_verifier = endpoints[len(endpoints) - endpoints[::-1].index("container_create") :]
    assert of_verifier.count("archive_put") == 1, "artifacts and tests go in together"
    assert of_verifier.count("exec_create") <= 2, "one command makes room, and one runs the tests"
    assert of_verifier.count("archive_get") == 1


@pytest.mark.slow
def test_artifacts_in_the_place_of_rewards_are_none(evalkit: Evalkit, fake: FakeEngine) -> None:
    solution = "mkdir -p /logs/verifier && echo 1 >/logs/verifier/reward.txt"
    toml = SEPARATE.format(artifacts='"/logs/verifier"')
    make_task(evalkit.folder / "tasks" / "one", solution=solution, tests="[ -e /logs/verifier/reward.txt ]", toml=toml)
    done = infer(evalkit, fake)
    assert done.document["ids"]["error"] == ["one"], done.stderr
    assert done.document["failures"] == {"grader": 1}
