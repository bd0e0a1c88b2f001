"""task.toml: every field of every version has its effect, is named, or refuses the task. None is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.benchmarks.task_directory import read_task
from evalkit.benchmarks.taskfile import TaskFile, resolve, unknown_fields
from evalkit.benchmarks.tasks import TaskDirectories, notes_on
from evalkit.domain.networks import NetworkPolicy
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
[evalkit]
grade = "fresh"
"""


def read(folder: Path, toml: str, *, in_containers: bool = True) -> Instance:
    return read_task(make_task(folder / "task", toml=toml), in_containers=in_containers)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def notes(folder: Path, toml: str, *, network: str = "none", in_containers: bool = True) -> list[str]:
    instance = read(folder, toml, in_containers=in_containers)
    return [note.removeprefix("task.toml of task: ") for note in notes_on([instance], network)]


def test_short_values_of_metadata_are_fields_to_group_by(tmp_path: Path) -> None:
    long, text = (
        "x" * 81,
        """
[metadata]
repo = "org/name"
level = 3
tested = true
author_name = "Somebody"
tags = ["a"]
empty = ""
lines = "a\\nb"
""",
    )
    instance = read(tmp_path, f'{text}description = "{long}"\n')
    assert instance.fields == {"repo": "org/name", "level": "3", "tested": "true"}


def test_every_field_has_its_effect(tmp_path: Path) -> None:
    instance = read(tmp_path, EVERYTHING)
    assert (instance.overrides.solve, instance.overrides.grade) == (11, 12.5)
    assert (instance.overrides.memory, instance.overrides.cpus) == (512 << 20, 1.5)
    assert instance.image == "some/image:1"
    assert instance.problem is None
    assert not instance.grades_in_place, "it is graded in a fresh workspace"
    assert instance.network == NetworkPolicy("none"), "the agent's own policy wins over its environment's"
    assert instance.env == {"C": "3", "D": "4"}
    assert TaskDirectories(tmp_path, in_containers=True).grader_network(instance) == NetworkPolicy("bridge")
    assert instance.fields == {"difficulty": "hard"}
    assert notes(tmp_path, EVERYTHING) == []


@pytest.mark.parametrize("line", ['version = "1.0"', 'schema_version = "1.3"', "version = 1.0", ""])
def test_known_versions_are_read(tmp_path: Path, line: str) -> None:
    read(tmp_path, line)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"task\.toml: version = '2\.0': version 2\.0 is not known"):
        read(tmp_path, 'version = "2.0"')


def test_older_spellings_mean_the_same(tmp_path: Path) -> None:
    old = read(tmp_path, '[environment]\nmemory = "2G"\nstorage = "10G"\nallow_internet = false\n')
    assert (old.overrides.memory, old.overrides.disk) == (2 << 30, 10 << 30)
    assert old.network == NetworkPolicy("none")
    assert read(tmp_path, "[environment]\nallow_internet = true\n").network == NetworkPolicy("bridge")


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
        ("[environment]\ngpus = 1", "environment.gpus"),
        ('[environment]\nworkdir = "/srv"', "environment.workdir"),
        ('[environment]\nskills_dir = "/skills"', "environment.skills_dir"),
        ('[agent]\nuser = "somebody"', "agent.user"),
        ("[verifier]\nuser = 1000", "verifier.user"),
        ('[verifier]\nenvironment_mode = "separate"', "verifier.environment_mode"),
        ("[verifier.environment]", "verifier.environment_mode"),
        ('[[verifier.collect]]\ncommand = "x"', "verifier.collect"),
        ('[environment]\ndocker_image = "x"', "environment.docker_image"),
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
    assert "--select" in failure["message"]
    assert f"task.toml of asks: task.toml asks for {name}" in done.stderr


def test_what_is_refused_may_lack_files_and_costs_nothing(tmp_path: Path, evalkit: Evalkit) -> None:
    """Tasks of steps have their statements elsewhere, and tests are in the image of a verifier of its own."""
    write(tmp_path / "tasks" / "steps" / "task.toml", '[[steps]]\nname = "one"')
    own = '[verifier]\nenvironment_mode = "separate"\nenvironment.docker_image = "x"'
    write(tmp_path / "tasks" / "own" / "task.toml", own)
    write(tmp_path / "tasks" / "own" / "instruction.md", "Do it.")
    make_task(tmp_path / "tasks" / "plain", solution='echo x > "$EVALKIT_WORK/a"')
    done = evalkit("infer", "tasks", *LOCAL, "--set", "run.retries=3")
    assert done.document["ids"]["resolved"] == ["plain"], done.stderr
    refused = [row for row in evalkit.rows() if row["outcome"] == "error"]
    assert sorted(row["instance_id"] for row in refused) == ["own", "steps"]
    for row in refused:
        assert row["retries"] == 0
        assert set(row["stages"]) == {"queued"}, "no workspace was opened"


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yaml"])
def test_an_environment_of_the_verifier_is_refused_where_it_would_be_used(tmp_path: Path, name: str) -> None:
    toml = '[verifier]\nenvironment_mode = "{}"\n[evalkit]\ngrade = "fresh"'
    task = make_task(tmp_path / "task", toml=toml.format("separate"))
    assert read_task(task, in_containers=True).problem is None
    write(task / "tests" / name)
    assert f"tests/{name} asks for" in (read_task(task, in_containers=True).problem or "")
    write(task / "task.toml", toml.format("shared"))
    assert read_task(task, in_containers=True).problem is None


IN_IMAGE = '[environment]\ndocker_image = "x"\n'
OFFLINE, ONLINE = '[{}]\nnetwork_mode = "no-network"\n'.format, '[{}]\nnetwork_mode = "public"\n'.format


def listed(table: str, *hosts: str) -> str:
    return f'[{table}]\nnetwork_mode = "allowlist"\nallowed_hosts = {list(hosts)}\n'.replace("'", '"')


NOWHERE, ANYWHERE = NetworkPolicy("none"), NetworkPolicy("bridge")


@pytest.mark.parametrize(
    ("toml", "agent", "grader"),
    [
        (IN_IMAGE, None, NOWHERE),
        (OFFLINE("environment"), NOWHERE, NOWHERE),
        (ONLINE("environment"), ANYWHERE, ANYWHERE),
        (ONLINE("environment") + OFFLINE("agent"), NOWHERE, ANYWHERE),
        (OFFLINE("environment") + ONLINE("verifier"), NOWHERE, ANYWHERE),
        (OFFLINE("agent"), NOWHERE, NOWHERE),
        (ONLINE("verifier"), None, ANYWHERE),
        (
            listed("environment", "PyPI.org.", "*.example.com") + listed("verifier", "10.0.0.0/8"),
            NetworkPolicy("allowlist", ("pypi.org", "*.example.com")),
            NetworkPolicy("allowlist", ("10.0.0.0/8",)),
        ),
        (listed("agent", "127.0.0.1", "a.org"), NetworkPolicy("allowlist", ("a.org",)), NOWHERE),
        (listed("agent"), NetworkPolicy("allowlist"), NOWHERE),
    ],
)
def test_each_phase_has_a_network_of_its_own(
    tmp_path: Path, toml: str, agent: NetworkPolicy | None, grader: NetworkPolicy
) -> None:
    """Where its table says nothing, that of the environment; and where that says nothing either, the run's."""
    instance = read(tmp_path, toml)
    assert instance.problem is None
    assert instance.network == agent
    assert TaskDirectories(tmp_path, in_containers=True).grader_network(instance) == grader


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("none", NOWHERE),
        ("model", NOWHERE),
        ("bridge", ANYWHERE),
        ("allowlist", NetworkPolicy("allowlist", ("a.org",))),
    ],
)
def test_tests_of_a_task_that_asks_for_nothing_have_the_network_of_the_run(
    tmp_path: Path, network: str, expected: NetworkPolicy
) -> None:
    hosts = expected.hosts
    benchmark = TaskDirectories(tmp_path, in_containers=True, network=network, hosts=hosts)
    assert benchmark.grader_network(read(tmp_path, "")) == expected
    assert benchmark.grader_network(read(tmp_path, OFFLINE("verifier"))) == NOWHERE


@pytest.mark.parametrize("host", ["https://a.org", "a.org:443", "a.org/path", "*", "a..org", "[::1]"])
def test_a_host_that_is_none_is_named_with_its_table(tmp_path: Path, host: str) -> None:
    with pytest.raises(DatasetError, match=r"agent\.allowed_hosts\.0 = .*: an allowed host is a name"):
        read(tmp_path, listed("agent", host))


def test_a_task_opens_the_network_of_this_machine_to_no_agent_on_it(tmp_path: Path) -> None:
    toml = "[environment]\nallow_internet = true\n"
    assert read(tmp_path, toml, in_containers=False).network is None
    (note,) = notes(tmp_path, toml, in_containers=False)
    assert "asks for a network" in note
    assert notes(tmp_path, toml, in_containers=False, network="bridge") == []
    assert notes(tmp_path, toml) == notes(tmp_path, "# nothing") == []


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


@pytest.mark.parametrize(
    ("toml", "place"),
    [
        ('[environment]\nnetwork_mode = "allowlist"\nallowed_hosts = ["https://x.org"]', "environment.allowed_hosts.0"),
        ('[agent]\nnetwork_mode = "allowlist"\nallowed_hosts = ["x.org:443"]', "agent.allowed_hosts.0"),
        ('[agent]\nnetwork_mode = "allowlist"\nallowed_hosts = ["*.10.0.0.1"]', "agent.allowed_hosts.0"),
        ('[verifier]\nnetwork_mode = "allowlist"\nallowed_hosts = ["a.*.org"]', "verifier.allowed_hosts.0"),
        ('[verifier]\nnetwork_mode = "allowlist"\nallowed_hosts = ["10.0.0.1/8"]', "verifier.allowed_hosts.0"),
        ('[environment]\nos = "plan9"', "environment.os"),
        ('[environment.tpu]\ntype = "v6e"\ntopology = "2by4"', "environment.tpu.topology"),
        ("[environment.healthcheck]\ninterval_sec = 1", "environment.healthcheck.command"),
        ('[[environment.mcp_servers]]\nname = "x"', "environment.mcp_servers.0"),
        ('[[environment.mcp_servers]]\nname = "x"\ntransport = "stdio"', "environment.mcp_servers.0"),
        (
            '[[environment.mcp_servers]]\nname = "x"\nurl = "u"\nheaders = {Authorization = "Bearer abc"}',
            "environment.mcp_servers.0",
        ),
        (
            '[[environment.mcp_servers]]\nname = "x"\nurl = "u"\nheaders = {X-Other = "${KEY:-abc}"}',
            "environment.mcp_servers.0",
        ),
        ('[[verifier.collect]]\ncommand = "x"\nservice = "no name"', "verifier.collect.0.service"),
        ('artifacts = ["/app/../etc"]', "artifacts.0.source"),
        ('artifacts = [{source = "/app", destination = "../out"}]', "artifacts.0.destination"),
        ('artifacts = [{source = "/app", destination = "manifest.json"}]', "artifacts.0.destination"),
        ('artifacts = [{source = "data", service = "db"}]', "artifacts.0"),
        ('[[steps]]\nname = "One"\n[[steps]]\nname = "one"', "steps"),
        ('[[steps]]\nname = "a/b"', "steps.0.name"),
        ('[[steps]]\nname = "one"\nmin_reward = "high"', "steps.0.min_reward"),
        ('multi_step_reward_strategy = "best"', "multi_step_reward_strategy"),
        ('[task]\nname = "no-org"', "task.name"),
        ('[verifier]\nenvironment_mode = "own"', "verifier.environment_mode"),
    ],
)
def test_a_wrong_value_names_the_file_and_the_field(tmp_path: Path, toml: str, place: str) -> None:
    with pytest.raises(DatasetError) as refused:
        read(tmp_path, toml)
    assert f"task.toml: {place}" in str(refused.value)


@pytest.mark.parametrize(
    "toml",
    [
        '[agent]\nnetwork_mode = "allowlist"\nallowed_hosts = ["X.org.", "*.x.org", "10.0.0.0/8", "::1", "2001::/32"]',
        '[[environment.mcp_servers]]\nname = "x"\ntransport = "http"\nurl = "u"\nheaders = {Api-Key = "${K}", A = "b"}',
        'artifacts = ["relative", {source = "/data", service = "db", exclude = ["*.pyc"]}]',
        '[[steps]]\nname = "one"\nmin_reward = {a = 0.5}\nartifacts = ["/x"]\n[[steps]]\nname = "two"\nmin_reward = 1',
    ],
)
def test_what_is_right_is_read(tmp_path: Path, toml: str) -> None:
    for step in ("one", "two"):
        write(tmp_path / "task" / "steps" / step / "instruction.md", "Do it.")
    read(tmp_path, toml)


def test_hosts_and_transports_have_one_spelling(tmp_path: Path) -> None:
    toml = """
        [environment]
        network_mode = "allowlist"
        allowed_hosts = ["X.org.", "2001:DB8:0::1", "10.0.0.0/8"]
        [[environment.mcp_servers]]
        name = "x"
        transport = "http"
        url = "u"
    """
    file = read(tmp_path, toml).data.file
    assert file.environment.allowed_hosts == ["x.org", "2001:db8::1", "10.0.0.0/8"]
    assert file.environment.mcp_servers[0].transport == "streamable-http"


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (
            '[verifier]\nenvironment_mode = "shared"\n[verifier.environment]\ncpus = 1',
            "verifier.environment_mode = shared and verifier.environment exclude each other",
        ),
        ('[agent]\nallowed_hosts = ["x.org"]', "agent.allowed_hosts needs agent.network_mode = allowlist"),
        (
            '[environment]\nnetwork_mode = "public"\nallowed_hosts = ["x.org"]',
            "environment.allowed_hosts needs environment.network_mode = allowlist",
        ),
        ('[environment]\nmemory = "2G"\nmemory_mb = 1024', "environment.memory and memory_mb differ"),
    ],
)
def test_fields_that_exclude_each_other_refuse_the_task_and_no_other(tmp_path: Path, toml: str, problem: str) -> None:
    instance = read(tmp_path, toml)
    assert problem in (instance.problem or "")
    assert instance.problem_kind == "setup"


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ('[environment]\nos = "Windows"', "environment.os = windows"),
        ('[verifier.environment]\nos = "windows"', "verifier.environment.os = windows"),
        ('[environment.tpu]\ntype = "v6e"\ntopology = "2x4"', "environment.tpu"),
    ],
)
def test_what_no_machine_has_is_a_kind_of_its_own(tmp_path: Path, toml: str, name: str) -> None:
    instance = read(tmp_path, toml)
    assert name in (instance.problem or "")
    assert instance.problem_kind == "unsupported"


def test_the_image_of_a_separate_verifier(tmp_path: Path) -> None:
    separate = IN_IMAGE + '[verifier]\nenvironment_mode = "separate"\n'
    fresh = read(tmp_path / "fresh", separate).verifier
    assert fresh is not None
    assert (fresh.image, fresh.build) == (None, None)
    task = make_task(tmp_path / "built", toml=f"{separate}environment.cpus = 2\n")
    write(task / "tests" / "Dockerfile", "FROM x")
    built = read_task(task, in_containers=True).verifier
    assert built is not None
    assert (built.image, built.build, built.overrides.cpus) == (None, task / "tests", 2)
    write(task / "task.toml", f'{separate}environment.docker_image = "own"\n')
    named = read_task(task, in_containers=True).verifier
    assert named is not None
    assert (named.image, named.build) == ("own", None)
    (task / "tests" / "test.sh").unlink()
    assert read_task(task, in_containers=True).problem is None, "the tests are in the image"


def test_a_verifier_environment_alone_means_separate(tmp_path: Path) -> None:
    assert read(tmp_path / "one", IN_IMAGE + "[verifier.environment]\nmemory_mb = 64\n").verifier is not None
    assert read(tmp_path / "two", IN_IMAGE).verifier is None
    both = IN_IMAGE + '[verifier]\nenvironment_mode = "separate"\n[evalkit]\ngrade = "fresh"\n'
    assert read(tmp_path / "three", both).verifier is None
