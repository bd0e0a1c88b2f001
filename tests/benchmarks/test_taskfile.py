"""task.toml: every field of every version has its effect, is named, or refuses the task. None is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.benchmarks.taskfile import TaskFile, read_task, resolve, unknown_fields
from evalkit.benchmarks.tasks import TaskDirectories, notes_on
from evalkit.domain.records import Instance
from evalkit.errors import DatasetError
from tests.support.cli import Evalkit
from tests.support.tasks import make_task

LOCAL = ("--workspace", "local", "--set", "workspace.unsandboxed=true", "--set", "run.retries=0")
EVERYTHING = """
schema_version = "1.4"
source = "some-set"
artifacts = ["/app/out"]
[task]
name = "me/task"
[metadata]
difficulty = "hard"
anything = {at = "all"}
[agent]
timeout_sec = 11
network_mode = "no-network"
[verifier]
timeout_sec = 12.5
environment_mode = "separate"
network_mode = "public"
env = {A = "1"}
[solution]
env = {B = "2"}
[environment]
build_timeout_sec = 600
docker_image = "some/image:1"
os = "Linux"
cpus = 1.5
memory_mb = 512
storage_mb = 1024
gpus = 0
env = {C = "3", D = "${NOT_THERE:-4}"}
network_mode = "public"
"""


def read(folder: Path, toml: str, *, in_containers: bool = True) -> Instance:
    return read_task(make_task(folder / "task", toml=toml), in_containers=in_containers)


def notes(folder: Path, toml: str, *, network: str = "none") -> list[str]:
    return [note.removeprefix("task.toml of task: ") for note in notes_on([read(folder, toml)], network, 3600.0)]


def test_every_field_has_its_effect(tmp_path: Path) -> None:
    instance = read(tmp_path, EVERYTHING)
    assert (instance.overrides.solve, instance.overrides.grade) == (11, 12.5)
    assert (instance.overrides.memory, instance.overrides.cpus) == (512 << 20, 1.5)
    assert instance.image == "some/image:1"
    assert not instance.grades_in_place, "a separate verifier grades in a fresh workspace"
    assert instance.offline, "the agent's own policy wins over its environment's"
    assert instance.env == {"C": "3", "D": "4"}
    assert TaskDirectories(tmp_path, in_containers=True).grader_network(instance) == "bridge"
    assert instance.fields == {"difficulty": "hard"}
    assert notes(tmp_path, EVERYTHING) == ["artifacts has no effect"]


@pytest.mark.parametrize("line", ['version = "1.0"', 'schema_version = "1.3"', "version = 1.0", ""])
def test_known_versions_are_read(tmp_path: Path, line: str) -> None:
    read(tmp_path, line)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"task\.toml: version: .*version 2\.0 is not known"):
        read(tmp_path, 'version = "2.0"')


def test_older_spellings_mean_the_same(tmp_path: Path) -> None:
    old = read(tmp_path, '[environment]\nmemory = "2G"\nstorage = "10G"\nallow_internet = false\n')
    assert (old.overrides.memory, old.overrides.disk) == (2 << 30, 10 << 30)
    assert old.offline
    assert not read(tmp_path, "[environment]\nallow_internet = true\n").offline


def test_unknown_fields_are_named_with_the_one_that_is_meant(tmp_path: Path) -> None:
    toml = "colour = 1\n[agent]\ntimout_sec = 5\n[environment]\nmemory_gb = 2\n[metadata]\nfree = 1\n"
    assert notes(tmp_path, toml) == [
        "colour is unknown, and has no effect",
        "agent.timout_sec (did you mean timeout_sec?) is unknown, and has no effect",
        "environment.memory_gb (did you mean memory_mb?) is unknown, and has no effect",
    ]
    assert list(unknown_fields(TaskFile())) == []
    with pytest.raises(DatasetError, match=r"evalkit\.grad"):
        read(tmp_path, '[evalkit]\ngrad = "fresh"\n')


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ('[[steps]]\nname = "one"', "steps"),
        ('[environment]\nos = "windows"', "environment.os"),
        ("[environment]\ngpus = 1", "environment.gpus"),
        ('[environment.tpu]\ntype = "v6e"\ntopology = "2x4"', "environment.tpu"),
        ('[[environment.mcp_servers]]\nname = "x"\nurl = "http://x"', "environment.mcp_servers"),
        ('[environment.healthcheck]\ncommand = "true"', "environment.healthcheck"),
        ('[environment]\nworkdir = "/srv"', "environment.workdir"),
        ('[agent]\nuser = "somebody"', "agent.user"),
        ("[verifier]\nuser = 1000", "verifier.user"),
        ('[verifier.environment]\ndocker_image = "x"', "verifier.environment"),
        ('[[verifier.collect]]\ncommand = "x"', "verifier.collect"),
        ('[agent]\nnetwork_mode = "allowlist"\nallowed_hosts = ["x.org"]', "allowed_hosts"),
    ],
)
def test_what_cannot_be_given_refuses_this_task_and_no_other(
    tmp_path: Path, evalkit: Evalkit, toml: str, name: str
) -> None:
    make_task(tmp_path / "tasks" / "asks", toml=toml, solution='echo x > "$EVALKIT_WORK/a"')
    make_task(tmp_path / "tasks" / "plain", solution='echo x > "$EVALKIT_WORK/a"')
    done = evalkit("infer", "tasks", *LOCAL)
    assert done.code == 1, done.stderr
    assert done.document["ids"]["resolved"] == ["plain"]
    assert done.document["ids"]["error"] == ["asks"]
    failure = next(row["failure"] for row in evalkit.rows() if row["instance_id"] == "asks")
    assert failure["kind"] == "setup"
    assert name in failure["message"]
    assert f"task.toml of asks: task.toml asks for {name}" in done.stderr


def test_a_network_that_is_asked_for_and_not_given_is_said(tmp_path: Path) -> None:
    toml = "[environment]\nallow_internet = true\n"
    (note,) = notes(tmp_path, toml)
    assert "asks for a network" in note
    assert notes(tmp_path, toml, network="bridge") == []
    assert notes(tmp_path, "# nothing") == []


def test_variables_are_those_of_this_machine() -> None:
    given = {
        "A": "plain",
        "B": "${HERE}",
        "C": "${GONE:-else}",
        "D": "${HERE:-else}",
        "E": "${GONE:-}",
        "F": "a${HERE}",
    }
    assert resolve(given, {"HERE": "x"}) == {"A": "plain", "B": "x", "C": "else", "D": "x", "E": "", "F": "a${HERE}"}
    with pytest.raises(KeyError):
        resolve({"A": "${GONE}"}, {})


def test_variables_reach_agent_solution_and_tests(tmp_path: Path, evalkit: Evalkit) -> None:
    toml = 'environment.env = {OURS = "${FROM_HERE}"}\nsolution.env = {S = "s"}\nverifier.env = {V = "${NO:-v}"}\n'
    make_task(
        tmp_path / "tasks" / "one",
        solution='echo "$OURS $S" > "$EVALKIT_WORK/a"',
        tests='[ "$(cat a) $OURS $V" = "here s here v" ]',
        toml=toml,
    )
    evalkit.variables["FROM_HERE"] = "here"
    done = evalkit("infer", "tasks", *LOCAL)
    assert done.document["ids"]["resolved"] == ["one"], done.stderr
    del evalkit.variables["FROM_HERE"]
    done = evalkit("infer", "tasks", *LOCAL)
    assert done.document["ids"]["error"] == ["one"]
    assert "the environment variable FROM_HERE, which is not set" in done.stderr


@pytest.mark.parametrize(
    ("reward", "verdict", "score"),
    [
        ('{"reward": 1}', "resolved", 1.0),
        ('{"reward": true}', "resolved", 1.0),
        ('{"reward": 0.5, "style": 1}', "unresolved", 0.5),
        ('{"a": 1, "b": 1}', "resolved", 1.0),
        ('{"a": 1, "b": 0}', "unresolved", 0.5),
        ('{"reward": "1"}', "ungraded", None),
        ("{}", "ungraded", None),
    ],
)
def test_rewards_of_several_names(
    tmp_path: Path, evalkit: Evalkit, reward: str, verdict: str, score: float | None
) -> None:
    tests = f'mkdir -p "$EVALKIT_LOGS/verifier"; echo \'{reward}\' > "$EVALKIT_LOGS/verifier/reward.json"'
    make_task(tmp_path / "tasks" / "one", tests=tests, solution='echo x > "$EVALKIT_WORK/a"')
    evalkit("infer", "tasks", *LOCAL, "--set", "run.retries=0")
    (row,) = evalkit.rows()
    assert (row["verdict"], row["score"]) == (verdict, score)


@pytest.mark.parametrize(
    ("text", "verdict", "suspicious"),
    [("0", "resolved", True), ("1.0", "resolved", False), ("nonsense", "resolved", True)],
)
def test_where_two_rewards_differ_the_object_counts_and_it_is_said(
    tmp_path: Path, evalkit: Evalkit, text: str, verdict: str, suspicious: bool
) -> None:
    tests = f'cd "$EVALKIT_LOGS/verifier"; echo {text} > reward.txt; echo \'{{"reward": 1}}\' > reward.json'
    make_task(tmp_path / "tasks" / "one", tests=tests, solution='echo x > "$EVALKIT_WORK/a"')
    evalkit("infer", "tasks", *LOCAL, "--set", "run.retries=0")
    (row,) = evalkit.rows()
    assert row["verdict"] == verdict
    assert row["suspicious"] == (["reward.json and reward.txt differ"] if suspicious else [])
