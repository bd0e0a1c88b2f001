"""Tasks of several steps: one container, and one row, for parts that are worked on and graded one after the other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from evalkit.benchmarks.task_directory import read_task
from evalkit.benchmarks.task_steps import combine_rewards, file_of_step, reaches
from evalkit.benchmarks.taskfile import TaskFile
from evalkit.domain.networks import NetworkPolicy
from evalkit.errors import DatasetError
from evalkit.testing import FakeEngine
from evalkit.testing.container_engine import Refusal
from tests.support.cli import Evalkit, Finished
from tests.support.fake_engine import open_fake_engine

HEAD = 'schema_version = "1.4"\nenvironment.docker_image = "agent"\n'
RUNS_STATEMENT = ("--agent", "command", "--set", 'agent.command=["/bin/sh", "-c", "eval \\"$EVALKIT_STATEMENT\\""]')
REWARD = "echo $((1-$?)) >/logs/verifier/reward.txt"


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    with open_fake_engine() as engine:
        engine.add_image("agent")
        yield engine


def make_steps(folder: Path, toml: str, files: Mapping[str, str]) -> Path:
    """A task with these files, and a plain script where a step has no instruction."""
    names = [step.name for step in TaskFile.model_validate(_parse(HEAD + toml)).steps or ()]
    written = {"task.toml": HEAD + toml, **{f"steps/{name}/instruction.md": "true" for name in names}, **files}
    for name, text in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _parse(toml: str) -> dict[str, Any]:
    return tomllib.loads(toml)


def infer(evalkit: Evalkit, fake: FakeEngine, *arguments: str) -> Finished:
    options = ("--workspace", "docker", "--set", "run.retries=0", *RUNS_STATEMENT, *arguments)
    return evalkit("infer", "tasks", *options, DOCKER_HOST=fake.host)


def attempt(evalkit: Evalkit) -> Path:
    return evalkit.run_directory() / "instances" / "one" / "attempt-1"


def report(evalkit: Evalkit) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((attempt(evalkit) / "report.json").read_bytes())
    return found


def changes_of_network(fake: FakeEngine) -> list[str]:
    return [
        f"{request.endpoint.removeprefix('network_')} {request.arguments['id']}"
        for request in fake.requests
        if request.endpoint in ("network_connect", "network_disconnect")
    ]


TWO = '[[steps]]\nname = "first"\n[[steps]]\nname = "second"\n'


def test_steps_go_on_in_one_container_and_make_one_row(evalkit: Evalkit, fake: FakeEngine) -> None:
    counts = f'[ "$(cat /app/order)" = "$EXPECTED" ]; {REWARD}'
    toml = (
        '[[steps]]\nname = "first"\nverifier.env.EXPECTED = "1"\n'
        '[[steps]]\nname = "second"\nverifier.env.EXPECTED = "12"\n'
    )
    says = 'echo \'{"cost_usd": 0.5, "input_tokens": 10}\' >"$EVALKIT_USAGE"'
    files = {
        "steps/first/instruction.md": f"mkdir -p /app; printf 1 >>/app/order; {says}",
        "steps/second/instruction.md": f"printf 2 >>/app/order; {says}",
        "tests/test.sh": counts,
    }
    make_steps(evalkit.folder / "tasks" / "one", toml, files)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    (row,) = evalkit.rows()
    assert (row["outcome"], row["score"]) == ("submitted", 1.0)
    assert (row["usage"]["cost_usd"], row["usage"]["input_tokens"]) == (1.0, 20), "both steps count, each once"
    assert sum(request.endpoint == "container_create" for request in fake.requests) == 1
    assert [(each["name"], each["reward"]) for each in report(evalkit)["steps"]] == [("first", 1.0), ("second", 1.0)]
    assert (attempt(evalkit) / "steps" / "second" / "verifier" / "reward.txt").read_text() == "1\n"


@pytest.mark.slow
def test_tests_and_logs_of_a_step_are_gone_before_the_next(evalkit: Evalkit, fake: FakeEngine) -> None:
    files = {
        "steps/first/instruction.md": "touch /logs/agent/mine /logs/artifacts/mine",
        "steps/first/tests/secret": "x",
        "steps/second/instruction.md": (
            "mkdir -p /app; find /tests /logs -type f ! -name statement.md >/app/seen; (sleep 60 &) "
        ),
        "steps/second/tests/test.sh": f"cat /app/seen; [ -e /app/seen ] && ! [ -s /app/seen ]; {REWARD}",
        "tests/test.sh": "echo 1 >/logs/verifier/reward.txt; touch /logs/verifier/more",
    }
    make_steps(evalkit.folder / "tasks" / "one", TWO, files)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert (attempt(evalkit) / "steps" / "first" / "artifacts" / "logs" / "artifacts" / "mine").exists()
    assert (attempt(evalkit) / "steps" / "first" / "verifier" / "more").exists()


def test_the_files_of_a_step_are_laid_in_and_set_up_before_its_agent(evalkit: Evalkit, fake: FakeEngine) -> None:
    files = {
        "steps/first/workdir/a.txt": "1",
        "steps/second/workdir/a.txt": "0.5",
        "steps/second/workdir/setup.sh": 'printf 0.25 >"$EVALKIT_WORK/a.txt"; echo said',
        "tests/test.sh": 'cat "$EVALKIT_WORK/a.txt" >/logs/verifier/reward.txt',
    }
    toml = TWO + 'healthcheck = {command = "grep 0.25 $EVALKIT_WORK/a.txt", interval_sec = 0.01, retries = 1}\n'
    make_steps(evalkit.folder / "tasks" / "one", toml, files)
    done = infer(evalkit, fake)
    assert report(evalkit)["rewards"] == {"reward": 0.625}, done.stderr
    assert (attempt(evalkit) / "steps" / "second" / "setup.log").read_text() == "said\n"


@pytest.mark.parametrize(
    ("toml", "files", "words"),
    [
        (TWO, {"steps/second/workdir/setup.sh": "echo no; exit 3"}, "setup.sh of step second exited with status 3: no"),
        (TWO + 'healthcheck = {command = "exit 3", retries = 1}', {}, "the health check failed"),
        (TWO, {"steps/second/tests/test.sh": "exit 0"}, "without reward.json or reward.txt"),
        (TWO, {"steps/second/instruction.md": "exit 5"}, "status 5"),
    ],
)
def test_a_step_that_cannot_be_run_or_graded_gives_no_verdict(
    evalkit: Evalkit, fake: FakeEngine, toml: str, files: Mapping[str, str], words: str
) -> None:
    reward = {"tests/test.sh": "echo 1 >/logs/verifier/reward.txt"}
    make_steps(evalkit.folder / "tasks" / "one", toml, {**reward, **files})
    infer(evalkit, fake)
    (row,) = evalkit.rows()
    assert (row["outcome"], row["verdict"]) == ("error", "ungraded")
    assert words in row["failure"]["message"]


@pytest.mark.slow
def test_a_failure_of_the_machine_makes_the_whole_attempt_again(evalkit: Evalkit, fake: FakeEngine) -> None:
    files = {
        "steps/first/instruction.md": "mkdir -p /app; echo x >>/app/times",
        "tests/test.sh": "wc -l </app/times >/logs/verifier/reward.txt",
    }
    make_steps(evalkit.folder / "tasks" / "one", TWO, files)
    fake.inject(Refusal(500, "no space left"), "container_changes", call=2)
    done = infer(evalkit, fake, "--set", "run.retries=2")
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    (row,) = evalkit.rows()
    assert row["retries"] == 1
    assert report(evalkit)["rewards"] == {"reward": 1.0}


def test_after_a_time_out_a_step_is_graded_and_the_next_begins(evalkit: Evalkit, fake: FakeEngine) -> None:
    files = {
        "steps/first/instruction.md": "mkdir -p /app; echo 1 >/app/first; sleep 60",
        "steps/second/instruction.md": "echo 2 >/app/second",
        "tests/test.sh": "ls /app | wc -l >/logs/verifier/reward.txt",
    }
    make_steps(evalkit.folder / "tasks" / "one", TWO.replace('"first"', '"first"\nagent.timeout_sec = 1'), files)
    done = infer(evalkit, fake)
    (row,) = evalkit.rows()
    assert (row["outcome"], row["score"]) == ("timeout", 1.5), done.stderr


def test_below_its_least_reward_a_step_is_the_last(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = 'multi_step_reward_strategy = "final"\n' + TWO.replace('"first"', '"first"\nmin_reward = 0.5')
    make_steps(evalkit.folder / "tasks" / "one", toml, {"tests/test.sh": "echo 0.25 >/logs/verifier/reward.txt"})
    done = infer(evalkit, fake)
    assert done.document["ids"]["unresolved"] == ["one"], done.stderr
    assert report(evalkit)["rewards"] == {"reward": 0.25}
    assert [(each["name"], each["reward"]) for each in report(evalkit)["steps"]] == [("first", 0.25), ("second", None)]
    assert not (attempt(evalkit) / "steps" / "second").exists()


def test_a_step_may_be_graded_apart_with_the_artifacts_of_both(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = (
        'artifacts = ["/app/of-task"]\n'
        '[[steps]]\nname = "first"\nartifacts = ["/app/of-step"]\nverifier.environment_mode = "separate"\n'
        '[[steps]]\nname = "second"\n'
    )
    files = {
        "steps/first/instruction.md": "mkdir -p /app; echo | tee /app/of-task /app/of-step >/app/other",
        "steps/first/tests/test.sh": f"[ -e /app/of-task ] && [ -e /app/of-step ] && [ ! -e /app/other ]; {REWARD}",
        "steps/second/tests/test.sh": f"[ -e /app/other ]; {REWARD}",
    }
    make_steps(evalkit.folder / "tasks" / "one", toml, files)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    events = [event for event in fake.events if event in ("container start", "container die")]
    assert events == ["container start", "container start", "container die", "container die"]
    (row,) = evalkit.rows()
    assert row["collected"] is None, "what one step left is not the answer"


def test_gold_takes_the_solution_of_the_step_else_that_of_the_task(evalkit: Evalkit, fake: FakeEngine) -> None:
    files = {
        "solution/solve.sh": "#!/bin/sh\nmkdir -p /app; echo task >>/app/who\n",
        "steps/second/solution/solve.sh": "#!/bin/sh\necho step >>/app/who\n",
        "tests/test.sh": "wc -l </app/who >/logs/verifier/reward.txt",
    }
    make_steps(evalkit.folder / "tasks" / "one", TWO, files)
    options = ("--workspace", "docker", "--set", "run.retries=0", "--agent", "gold")
    done = evalkit("infer", "tasks", *options, DOCKER_HOST=fake.host)
    assert report(evalkit)["rewards"] == {"reward": 1.5}, done.stderr


def test_an_agent_has_its_own_network_again_after_tests_with_another(evalkit: Evalkit, fake: FakeEngine) -> None:
    toml = TWO.replace('"first"', '"first"\nverifier.network_mode = "public"')
    make_steps(evalkit.folder / "tasks" / "one", toml, {"tests/test.sh": "echo 1 >/logs/verifier/reward.txt"})
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert changes_of_network(fake) == ["disconnect none", "connect bridge", "disconnect bridge", "connect none"]


def test_set_up_and_health_check_have_the_network_of_the_environment(evalkit: Evalkit, fake: FakeEngine) -> None:
    """And the agent's is cut from it, in the first step as in others."""
    toml = 'environment.network_mode = "public"\nagent.network_mode = "no-network"\n' + TWO
    files = {
        "steps/first/workdir/setup.sh": "true",
        "tests/test.sh": "echo 1 >/logs/verifier/reward.txt",
    }
    make_steps(evalkit.folder / "tasks" / "one", toml, files)
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    before_the_agent = ["disconnect none", "connect bridge", "disconnect bridge", "connect none"]
    for_tests = ["disconnect none", "connect bridge", "disconnect bridge", "connect none"]
    assert changes_of_network(fake) == [*before_the_agent, *for_tests, *for_tests[:2]]


def test_a_health_check_has_less_than_its_agent_where_the_task_says_so(evalkit: Evalkit, fake: FakeEngine) -> None:
    check = 'environment.healthcheck = {command = "true"}\n'
    toml = f'{check}environment.network_mode = "no-network"\nagent.network_mode = "public"\n[[steps]]\nname = "first"\n'
    make_steps(evalkit.folder / "tasks" / "one", toml, {"tests/test.sh": "echo 1 >/logs/verifier/reward.txt"})
    done = infer(evalkit, fake)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    assert changes_of_network(fake)[:4] == ["disconnect bridge", "connect none", "disconnect none", "connect bridge"]


def test_each_step_has_its_user_network_and_limits(tmp_path: Path) -> None:
    toml = """
        agent = {user = "task", timeout_sec = 60}
        verifier = {network_mode = "no-network", timeout_sec = 30}
        [[steps]]
        name = "first"
        agent = {user = "step", timeout_sec = 5, network_mode = "no-network"}
        verifier = {timeout_sec = 7}
        [[steps]]
        name = "second"
        agent = {network_mode = "public"}
    """
    instance = read_task(make_steps(tmp_path / "one", toml, {"tests/test.sh": ""}), in_containers=True)
    assert instance.problem is None
    first, second = instance.parts.values()
    assert (first.user, first.network, first.overrides.solve) == ("step", NetworkPolicy("none"), 5)
    assert (second.user, second.network, second.overrides.solve) == ("task", NetworkPolicy("bridge"), 60)
    assert (first.overrides.grade, second.overrides.grade) == (7, 30)
    assert first.grades_in_place
    assert first.id == instance.id


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, "tests/test.sh"),
        ({"tests/test.sh": "", "steps/first/instruction.md": ""}, "steps/second/instruction.md"),
    ],
)
def test_a_step_that_lacks_a_file_is_refused_by_its_name(
    tmp_path: Path, files: Mapping[str, str], missing: str
) -> None:
    task = make_steps(tmp_path / "one", TWO, files)
    if "instruction" in missing:
        (task / missing).unlink()
    with pytest.raises(DatasetError, match=missing):
        read_task(task, in_containers=True)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (TWO + 'verifier = {environment_mode = "shared", environment = {}}', "steps.second.verifier.environment_mode"),
        (TWO + 'agent.allowed_hosts = ["a.org"]', "steps.second.agent.allowed_hosts"),
        (TWO + '[evalkit]\ngrade = "fresh"', "evalkit.grade"),
        (TWO + 'verifier.environment = {os = "windows"}', "verifier.environment.os = windows"),
    ],
)
def test_what_a_step_cannot_have_refuses_the_task(tmp_path: Path, toml: str, words: str) -> None:
    task = make_steps(tmp_path / "one", toml, {"tests/test.sh": ""})
    assert words in (read_task(task, in_containers=True).problem or "")


def test_settings_of_a_step_win_and_lists_are_continued() -> None:
    file = TaskFile.model_validate(
        _parse("""
            agent = {network_mode = "allowlist", allowed_hosts = ["a.org"]}
            artifacts = ["/a"]
            [verifier]
            env = {A = "task", B = "task"}
            environment = {docker_image = "x"}
            collect = [{command = "one"}]
            [[steps]]
            name = "first"
            artifacts = ["/b"]
            agent.network_mode = "public"
            verifier = {environment_mode = "shared", env = {B = "step"}, collect = [{command = "two"}]}
        """)
    )
    assert file.steps
    merged = file_of_step(file, file.steps[0])
    assert [each.source for each in merged.artifacts] == ["/a", "/b"]
    assert [each.command for each in merged.verifier.collect] == ["one", "two"]
    assert merged.verifier.env == {"A": "task", "B": "step"}
    assert merged.agent_policy == NetworkPolicy("bridge")
    assert not merged.is_separate
    assert list(merged.contradictions()) == []


@pytest.mark.parametrize(
    ("least", "rewards", "is_enough"),
    [
        (None, {"a": 0.0}, True),
        (0.5, {"reward": 0.5}, True),
        (0.5, {"reward": 0.25}, False),
        (0.0, {"a": 1.0}, False),
        ({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.5}, True),
        ({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.25}, False),
    ],
)
def test_the_least_reward_holds_for_each_of_its_keys(
    least: float | Mapping[str, float] | None, rewards: Mapping[str, float], is_enough: bool
) -> None:
    assert reaches(least, rewards) is is_enough


def test_a_mean_counts_what_is_missing_as_0() -> None:
    rewards = [{"a": 1.0, "both": 1.0}, {"b": 1.0, "both": 0.5}]
    assert combine_rewards("mean", rewards) == {"a": 0.5, "both": 0.75, "b": 0.5}
    assert combine_rewards("final", rewards) == rewards[-1]
