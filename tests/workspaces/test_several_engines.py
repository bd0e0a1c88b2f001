"""Runs over several Docker hosts, as a user starts them; the engines are fakes with real processes."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from evalkit.testing import FakeEngine
from evalkit.testing.container_engine import FakeImage, Refusal
from tests.support.cli import Evalkit
from tests.support.fake_engine import IMAGE, open_fake_engine
from tests.support.tasks import make_task, make_tasks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("pair")


@pytest.fixture
def pair() -> Iterator[tuple[FakeEngine, FakeEngine]]:
    with ExitStack() as stack:
        yield stack.enter_context(open_fake_engine()), stack.enter_context(open_fake_engine())


def over(pair: tuple[FakeEngine, ...], script: str = "echo x >answer", *more: str) -> tuple[object, ...]:
    settings = (
        f"workspace.hosts={','.join(each.host for each in pair)}",
        f"workspace.image={IMAGE}",
        "workspace.memory=64m",
        "workspace.cpus=0.5",
        "workspace.reconnect=100ms",
        f"agent.command={json.dumps(['/bin/sh', '-c', script])}",
        *more,
    )
    words = [word for each in settings for word in ("--set", each)]
    return ("infer", "tasks", "--workspace", "docker", "--agent", "command", *words)


@pytest.mark.slow
def test_both_hosts_get_instances_and_rows_say_which(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    make_tasks(evalkit.folder / "tasks", 8, tests="[ -s answer ]")
    finished = evalkit(*over(pair))
    assert finished.document["buckets"]["resolved"] == 8, finished.stderr
    assert Counter(row["host"] for row in evalkit.rows()) == {pair[0].host: 4, pair[1].host: 4}
    assert [each.containers for each in pair] == [[], []]


@pytest.mark.slow
def test_an_engine_that_dies_costs_one_retry_and_no_row(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    make_tasks(evalkit.folder / "tasks", 8, tests="[ -s answer ]")
    dying, living = pair
    process = evalkit.start(*over(pair, "sleep 2; echo x >answer"))
    wait_until(lambda: len(dying.execs) >= 2, process)
    dying.stop()
    _, said = process.communicate(timeout=120)
    rows = evalkit.rows()
    assert process.returncode == 0, said
    assert len({row["instance_id"] for row in rows}) == len(rows) == 8
    assert {row["verdict"] for row in rows} == {"resolved"}
    assert {row["host"] for row in rows} == {living.host}
    assert 2 <= sum(row["retries"] for row in rows) <= 4
    assert f"{dying.host} is set aside".encode() in said
    assert living.containers == []
    dying.start()
    swept = evalkit("doctor", "--sweep", "--set", f"workspace.hosts={dying.host}").document["swept"]["containers"]
    assert swept
    assert all(name.endswith(dying.host) for name in swept)
    assert dying.containers == []


@pytest.mark.slow
def test_what_an_engine_kept_is_removed_once_it_is_back(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    make_tasks(evalkit.folder / "tasks", 40, tests="[ -s answer ]")
    dying, _ = pair
    process = evalkit.start(*over(pair, "sleep 2; echo x >answer"))
    wait_until(lambda: len(dying.execs) >= 2, process)
    dying.stop()
    wait_until(lambda: bool(evalkit.rows_so_far()), process)
    dying.start()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert f"{dying.host} is used again".encode() in said
    assert Counter(row["host"] for row in evalkit.rows())[dying.host] > 0
    assert [each.containers for each in pair] == [[], []]


@pytest.mark.slow
def test_a_host_that_is_away_at_the_start_is_used_once_it_is_there(
    evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]
) -> None:
    make_tasks(evalkit.folder / "tasks", 12, tests="[ -s answer ]")
    late, here = pair
    late.stop()
    process = evalkit.start(*over(pair, "sleep 1; echo x >answer"))
    wait_until(lambda: bool(here.execs), process)
    late.start()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert set(Counter(row["host"] for row in evalkit.rows())) == {late.host, here.host}
    assert b"1 of 2 hosts cannot be used yet" in said
    assert f"{late.host} is used again".encode() in said


@pytest.mark.slow
def test_an_engine_that_fails_everything_is_left_out(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    make_tasks(evalkit.folder / "tasks", 6, tests="[ -s answer ]")
    bad, good = pair
    bad.inject(Refusal(500, "no space left on device"), "container_create", call=None)
    finished = evalkit(*over(pair))
    assert finished.document["buckets"]["resolved"] == 6, finished.stderr
    assert {row["host"] for row in evalkit.rows()} == {good.host}


@pytest.mark.slow
def test_only_the_host_that_has_an_image_runs_it_if_it_cannot_be_pulled(
    evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]
) -> None:
    pair[1].add_image("evalkit:only-here", FakeImage())
    make_task(evalkit.folder / "tasks" / "one", toml='[environment]\ndocker_image = "evalkit:only-here"')
    make_task(evalkit.folder / "tasks" / "two", toml='[environment]\ndocker_image = "evalkit:only-here"')
    finished = evalkit(*over(pair))
    assert {row["host"] for row in evalkit.rows()} == {pair[1].host}, finished.stderr
    assert "1 of 2 hosts have none of the 1 images that were built, and take no instance" in finished.stderr
    assert all(request.endpoint != "image_pull" for each in pair for request in each.requests)


def test_no_host_with_a_built_image_is_said_with_what_to_do(
    evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]
) -> None:
    make_task(evalkit.folder / "tasks" / "one", files={"Dockerfile": f"FROM {IMAGE}\n"})
    finished = evalkit(*over(pair), DOCKER_HOST=pair[0].host)
    finished.refused(3, "image_missing", "images.push", "images.repository")
    assert list(evalkit.runs.iterdir()) == []


@pytest.mark.slow
def test_a_signal_leaves_nothing_on_any_host(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    make_tasks(evalkit.folder / "tasks", 6)
    process = evalkit.start(*over(pair, "sleep 1000"))
    wait_until(lambda: all(len(each.execs) >= 2 for each in pair), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert [each.containers for each in pair] == [[], []]


def test_no_host_at_all_is_said_at_once(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    make_task(evalkit.folder / "tasks" / "one")
    for each in pair:
        each.stop()
    evalkit(*over(pair)).refused(3, "engine", "none of the 2 hosts", pair[0].host, pair[1].host)


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("ftp://a", ("ftp://a", "is not the address of an engine")),
        ("tcp://a", ("tcp://a", "is not the address of an engine")),
        ("ssh://u:secret@a", ("a has a password",)),
        ("ssh://a,ssh://a", ("ssh://a", "twice")),
        ("no-such-file", ("no-such-file", "No such file")),
        ("hosts.txt", ("hosts.txt, line 3", "nonsense")),
    ],
)
def test_a_bad_entry_is_named(evalkit: Evalkit, hosts: str, words: tuple[str, ...]) -> None:
    make_task(evalkit.folder / "tasks" / "one")
    (evalkit.folder / "hosts.txt").write_text("# ours\ntcp://a:2375  # the first\nnonsense\n")
    evalkit("infer", "tasks", "--set", f"workspace.hosts={hosts}").refused(2, "config", *words)


def test_a_plan_names_the_hosts_without_asking_them(evalkit: Evalkit) -> None:
    make_task(evalkit.folder / "tasks" / "one")
    (evalkit.folder / "hosts.txt").write_text("tcp://a:2375\nssh://b\n")
    finished = evalkit("infer", "tasks", "--dry-run", "--set", "workspace.hosts=hosts.txt")
    assert finished.document["hosts"] == ["tcp://a:2375", "ssh://b"]


@pytest.mark.slow
def test_doctor_looks_at_each_host_and_sweeps_it(evalkit: Evalkit, pair: tuple[FakeEngine, FakeEngine]) -> None:
    pair[1].stop()
    settings = ("--set", f"workspace.hosts={pair[0].host},{pair[1].host}", "--set", f"workspace.image={IMAGE}")
    finished = evalkit("doctor", "--sweep", "--workspace", "docker", *settings)
    found = {each["facts"]["host"]: each for each in finished.document["checks"] if each["name"] == "host"}
    assert (found[pair[0].host]["status"], found[pair[1].host]["status"]) == ("ok", "warning"), finished.stderr
    assert finished.document["swept"]["containers"] == []
    pair[0].stop()
    evalkit("doctor", "--workspace", "docker", *settings).refused(3, "environment", "none of the 2 hosts")
