"""Whether images exist, asked of a real server over a real socket."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from evalkit.containers import credentials
from evalkit.containers.existence import Existence
from evalkit.containers.reference import parse
from evalkit.containers.registry import Answer, Found, Missing, Registry, Unknown
from evalkit.errors import ConfigError
from tests.support.registry import CUT, DIGEST, NO, YES, FakeRegistry, Reply, fake_registry
from tests.support.waiting import eventually


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


def ask(image: str, retries: int = 0, timeout: float = 5.0) -> Answer:
    asking = Existence(Registry(credentials.find, timeout=timeout), retries, first_delay=0.01)
    return anyio.run(asking.ask, parse(image))


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def log_in(folder: Path, host: str, user: str, secret: str) -> None:
    auth = base64.b64encode(f"{user}:{secret}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_registry_that_has_the_image_says_yes(registry: FakeRegistry) -> None:
    assert ask(registry.says("a/b:1", YES)) == Found(DIGEST)


def test_a_registry_that_has_not_says_no_and_is_asked_once(registry: FakeRegistry) -> None:
    assert ask(registry.says("a/b:1", NO), retries=3) == Missing()
    assert len(registry.times("a/b:1")) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(401),
        Reply(403),
        Reply(429),
        Reply(500),
        Reply(503),
        Reply(301, (("Location", "/elsewhere"),)),
        Reply(200, kind="text/html"),
        Reply(200),
        CUT,
    ],
    ids=lambda reply: f"{reply.status}{'-cut' if reply.cut else ''}-{reply.kind}",
)
def test_anything_else_is_neither_and_is_asked_again(registry: FakeRegistry, reply: Reply) -> None:
    image = registry.says("a/b:1", reply)
    if reply.status == 301:
        registry.scripts["/elsewhere"] = [Reply(502)]
    answer = ask(image, retries=2)
    assert isinstance(answer, Unknown)
    assert registry.host in answer.reason
    assert len(registry.times("a/b:1")) >= 3


def test_what_passes_is_forgotten(registry: FakeRegistry) -> None:
    assert ask(registry.says("a/b:1", Reply(500), CUT, YES), retries=2) == Found(DIGEST)


def test_a_registry_that_does_not_answer_in_time_is_not_waited_for(registry: FakeRegistry) -> None:
    answer = ask(registry.says("a/b:1", Reply(200, delay=1.0)), timeout=0.1)
    assert isinstance(answer, Unknown)
    assert "timed out" in answer.reason


def test_nobody_there_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = ask(f"127.0.0.1:{taken.getsockname()[1]}/a:1", retries=1)
    assert isinstance(answer, Unknown)
    assert "refused" in answer.reason


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_too_many_questions_are_asked_again_when_the_registry_says(registry: FakeRegistry, form: str) -> None:
    due = int(time.time()) + 2
    wait = "1" if form == "seconds" else formatdate(due, usegmt=True)
    image = registry.says("a/b:1", Reply(429, (("Retry-After", wait),)), YES)
    assert ask(image, retries=1) == Found(DIGEST)
    first, second = registry.times("a/b:1")
    assert second - first >= 0.9 if form == "seconds" else time.time() >= due


def test_all_wait_for_a_registry_that_wants_a_pause(registry: FakeRegistry) -> None:
    one = registry.says("a/one:1", Reply(429, (("Retry-After", "1"),)), YES)
    two = registry.says("a/two:1", YES)
    asking = Existence(Registry(credentials.find), 1, first_delay=0.01)

    async def ask_both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask, parse(one))
            assert await anyio.to_thread.run_sync(eventually, lambda: len(registry.times("a/one:1")) == 1)
            await anyio.sleep(0.1)
            tasks.start_soon(asking.ask, parse(two))

    anyio.run(ask_both)
    assert registry.times("a/two:1")[0] - registry.times("a/one:1")[0] >= 0.9


def test_a_pause_of_hours_is_not_waited_for(registry: FakeRegistry) -> None:
    answer = ask(registry.says("a/b:1", Reply(429, (("Retry-After", "21600"),))), retries=5)
    assert isinstance(answer, Unknown)
    assert len(registry.times("a/b:1")) == 1


@pytest.mark.parametrize("basic", [True, False])
def test_credentials_come_from_docker_s_config(registry: FakeRegistry, tmp_path: Path, basic: bool) -> None:
    registry.login, registry.basic = ("ann", "secret:with:colons"), basic
    image = registry.says("a/b:1", YES)
    assert isinstance(ask(image), Unknown)
    log_in(tmp_path, registry.host, *registry.login)
    assert ask(image) == Found(DIGEST)
    log_in(tmp_path, registry.host, "ann", "wrong")
    answer = ask(image)
    assert isinstance(answer, Unknown)
    assert "docker login" in answer.reason


def test_a_token_serves_for_all_questions_about_an_image(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.login = ("ann", "secret")
    log_in(tmp_path, registry.host, *registry.login)
    images = [registry.says(f"a/b:{tag}", YES) for tag in range(3)]
    asking = Existence(Registry(credentials.find), 0)
    assert [anyio.run(asking.ask, parse(image)) for image in images] == [Found(DIGEST)] * 3
    assert registry.tokens_given == 1


def test_credentials_come_from_helpers(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.login = ("ann", "secret")
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\n"
        f'read server; [ "$1 $server" = "get {registry.host}" ] || exit 1\n'
        'echo \'{"Username": "ann", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
    assert ask(registry.says("a/b:1", YES)) == Found(DIGEST)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "config.json"),
        ('{"credsStore": "not-there"}', "docker-credential-not-there"),
        ('{"auths": {"r.example": {"auth": "%"}}}', "config.json"),
    ],
)
def test_a_broken_config_of_docker_is_named(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=named):
        credentials.find("r.example")


def test_docker_hub_is_known_by_its_old_name(tmp_path: Path) -> None:
    log_in(tmp_path, "https://index.docker.io/v1/", "ann", "secret")
    found = credentials.find("docker.io")
    assert found is not None
    assert (found.user, found.secret) == ("ann", "secret")
    assert "secret" not in repr(found)


def test_a_question_that_is_given_up_keeps_nobody_from_leaving(registry: FakeRegistry) -> None:
    never = threading.Event()
    image = registry.says("a/b:1", Reply(200, after=never))

    async def give_up() -> None:
        with anyio.move_on_after(0.1) as scope:
            await Existence(Registry(credentials.find), 0).ask(parse(image))
        assert scope.cancelled_caught

    anyio.run(give_up)
    never.set()
