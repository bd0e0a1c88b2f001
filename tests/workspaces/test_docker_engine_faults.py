"""Docker workspaces on an engine that fails at each request, one after the other, in each way that there is."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from evalkit.containers import inspection as engines
from evalkit.containers.connection import Unreachable
from evalkit.containers.labels import Owner
from evalkit.domain.failures import Failed
from evalkit.domain.networks import NetworkPolicy
from evalkit.domain.protocols import Workspace
from evalkit.errors import EngineUnavailable
from evalkit.testing import FakeEngine
from evalkit.testing.container_engine import (
    ContainerEnds,
    ContainerVanishes,
    Cut,
    Death,
    ExecFails,
    FakeImage,
    Fault,
    Refusal,
    Request,
    Reset,
)
from evalkit.workspaces.docker.workspaces import DockerWorkspaces
from tests.support.fake_engine import IMAGE, open_fake_engine, workspaces_on
from tests.support.waiting import eventually
from tests.support.workspaces import Place

# The SDK leaves it to Python to close a socket that could not be connected.
_UNCONNECTED = "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(_UNCONNECTED)]

FAULTS: dict[str, Fault] = {
    "reset": Reset(),
    "reset after the work": Reset("after"),
    "cut": Cut(),
    "not found": Refusal(404),
    "conflict": Refusal(409),
    "server error": Refusal(500),
    "container ends": ContainerEnds(),
    "container vanishes": ContainerVanishes(),
    "exec fails": ExecFails(),
    "death and return": Death(back_after=0.05),
}


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with open_fake_engine() as engine:
        engine.publish(IMAGE, engine.add_image(IMAGE, FakeImage(volumes=("/data",))))
        yield engine


@pytest.fixture
def place(engine: FakeEngine, tmp_path: Path) -> Iterator[Place]:
    before = set(threading.enumerate())
    with workspaces_on(engine, tmp_path, reconnect=5.0) as workspaces:
        workspaces.pauses = workspaces.images.pauses = (0.0, 0.0)
        yield Place("fake engine", workspaces, tmp_path)
    gc.collect()  # Docker's SDK leaves responses in cycles of references, with their connections
    assert eventually(lambda: engine.connections == 0)
    gc.collect()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert {name for name in left if not name.startswith("fake-")} == set()


def workspaces_of(place: Place) -> DockerWorkspaces:
    assert isinstance(place.workspaces, DockerWorkspaces)
    return place.workspaces


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_at_any_request_is_overcome_or_has_a_kind_and_leaves_nothing(
    place: Place, engine: FakeEngine, fault: Fault, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_bytes(b"x" * 100_000)

    async def work(workspace: Workspace) -> None:
        await workspace.write(given, workspace.places.tests / "file")
        await workspace.exec(("cat",), stdin=given, stdout=tmp_path / "out")
        await workspace.read(workspace.places.tests, tmp_path / "back")
        await workspace.interrupt()

    for call in count(1):
        workspaces_of(place).images.forget(IMAGE)
        asked = len(engine.requests)
        engine.inject(fault, call=call)
        raised = None
        try:
            place.run(work)
        except (Failed, FileNotFoundError) as error:
            raised = error
        engine.heal()
        if len(engine.requests) < asked + call:  # it was not reached
            assert raised is None
            assert call > 9
            return
        endpoint = engine.requests[asked + call - 1].endpoint
        if isinstance(raised, FileNotFoundError):
            assert (fault, endpoint) == (Refusal(404), "archive_get")
        if isinstance(raised, Failed):
            assert raised.kind in ("engine", "workspace"), endpoint
        # Nobody can be told again to remove what is said to be gone.
        is_lost = endpoint == "container_remove" and fault in (Refusal(404), Refusal(409))
        assert is_lost or engine.containers == [], endpoint
        assert engine.execs == [], endpoint
        assert eventually(lambda: engine.under_way == []), endpoint
        for container in engine.containers:
            engine.remove_container(container)


@pytest.mark.parametrize("endpoint", ["network_disconnect", "network_connect", "exec_start"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_as_the_network_changes_is_overcome_or_has_a_kind_and_leaves_nothing(
    place: Place, engine: FakeEngine, fault: Fault, endpoint: str
) -> None:
    """From a list to another network and back; each list begins a program inside."""

    async def work(workspace: Workspace) -> None:
        listed = NetworkPolicy("allowlist", ("a.example",))
        for policy in (NetworkPolicy("bridge"), listed):
            await workspace.interrupt()
            await workspace.change_network(policy)
        script = "import os; assert os.environ['http_proxy']"
        assert (await workspace.exec(("python3", "-c", script))).code == 0

    engine.inject(fault, endpoint)
    kind = None
    try:
        place.run(work, network="allowlist", hosts=("a.example",))
    except Failed as error:
        kind = error.kind
    engine.heal()
    assert kind in (None, "engine", "workspace", "setup")
    assert eventually(lambda: engine.containers == [])


async def use(workspace: Workspace) -> None:
    assert (await workspace.exec(sh("echo hello"))).tail == "hello\n"


@pytest.mark.parametrize("endpoint", ["image_inspect", "container_create", "container_attach", "container_start"])
@pytest.mark.parametrize("fault", [Reset("after"), Refusal(500)], ids=["reset", "server error"])
def test_a_passing_trouble_does_not_keep_a_container_from_starting(
    place: Place, engine: FakeEngine, endpoint: str, fault: Fault
) -> None:
    engine.inject(fault, endpoint)
    place.run(use)
    assert engine.containers == []


def test_an_engine_that_comes_back_is_waited_for(place: Place, engine: FakeEngine) -> None:
    engine.inject(Death(back_after=0.3), "container_start")
    place.run(use)
    assert engine.containers == []


def test_an_engine_that_does_not_come_back_is_a_failure_of_its_own(place: Place, engine: FakeEngine) -> None:
    workspaces_of(place).client.reconnect = 0.01
    engine.inject(Death(), "container_start")
    with pytest.raises(Failed) as caught:
        place.run(use)
    assert caught.value.kind == "engine"
    engine.start()
    (left,) = engine.containers
    assert not left.is_running


def test_trouble_that_does_not_pass_is_told_in_the_words_of_the_engine(place: Place, engine: FakeEngine) -> None:
    engine.inject(Refusal(500, "the storage driver is broken"), "container_create", call=None)
    with pytest.raises(Failed, match="the storage driver is broken") as caught:
        place.run(use)
    assert caught.value.kind == "engine"


def test_a_name_that_is_taken_is_no_trouble(place: Place, engine: FakeEngine) -> None:
    engine.inject(Refusal(409, "the name is in use"), "container_create")
    place.run(use)
    engine.inject(Refusal(409, "the name is in use"), "container_create", call=None)
    with pytest.raises(Failed, match="no free name"):
        place.run(use)


def test_an_engine_that_dies_under_a_command_takes_it_along_and_is_there_for_the_next(
    place: Place, engine: FakeEngine
) -> None:
    async def work(workspace: Workspace) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(die_once, engine)
            await workspace.exec(sh("echo up >up; sleep 1000"))

    async def die_once(engine: FakeEngine) -> None:
        while not engine.execs:  # noqa: ASYNC110  # the engine is in other threads
            await anyio.sleep(0.01)
        engine.stop()
        engine.start()

    with pytest.raises(BaseExceptionGroup) as caught:
        place.run(work)
    (failure,) = caught.value.exceptions
    assert isinstance(failure, Failed)
    assert failure.kind in ("engine", "workspace")
    assert engine.containers == []
    place.run(use)


def test_a_command_that_was_never_started_says_why(place: Place, engine: FakeEngine) -> None:
    async def work(workspace: Workspace) -> None:
        engine.inject(ExecFails("OCI runtime exec failed: exec failed: no such file", 127), "exec_start")
        with pytest.raises(Failed, match="OCI runtime exec failed: exec failed: no such file") as failed:
            await workspace.exec(("anything",))
        assert failed.value.kind == "workspace", "no status of the command, which never began"
        await use(workspace)

    place.run(work)


def test_a_command_that_was_cancelled_before_it_could_not_be_started_costs_nothing(
    place: Place, engine: FakeEngine
) -> None:
    async def work(workspace: Workspace) -> None:
        loop = asyncio.get_running_loop()
        engine.inject(ExecFails(), "exec_start")
        with anyio.CancelScope() as scope:
            engine.watch = lambda request: request.endpoint == "exec_start" and loop.call_soon_threadsafe(scope.cancel)
            await workspace.exec(("anything",))
        engine.watch = None
        await use(workspace)
        assert [request.endpoint for request in engine.requests].count("container_stop") == 0

    place.run(work)


@pytest.mark.parametrize("request_to_end_at", ["exec_create", "exec_start"])
def test_a_container_that_something_has_ended_is_started_again_and_keeps_its_files(
    place: Place, engine: FakeEngine, request_to_end_at: str
) -> None:
    async def work(workspace: Workspace) -> None:
        await workspace.exec(sh("echo kept >file"))
        engine.inject(ContainerEnds(), request_to_end_at)
        assert (await workspace.exec(sh("cat file"))).tail == "kept\n"

    place.run(work)


def test_a_command_that_was_to_begin_as_the_container_ended_begins_in_the_next(
    place: Place, engine: FakeEngine, tmp_path: Path
) -> None:
    """The engine's complaint is no output of it."""

    def end_container(request: Request) -> None:
        if request.endpoint == "exec_start":
            engine.watch = None
            engine.containers[0].end()

    async def work(workspace: Workspace) -> None:
        (tmp_path / "out").write_text("before\n")
        engine.inject(ExecFails(), "exec_start")
        engine.watch = end_container
        end = await workspace.exec(sh("echo said"), stdout=tmp_path / "out", stderr=tmp_path / "out")
        assert (end.code, end.tail) == (0, "said\n")
        assert (tmp_path / "out").read_text() == "before\nsaid\n"

    place.run(work)


def test_a_command_that_ends_the_container_was_killed(place: Place, engine: FakeEngine) -> None:
    async def work(workspace: Workspace) -> None:
        for _ in range(3):
            assert (await workspace.exec(sh("kill -KILL -1; sleep 10"))).code == 137
        await use(workspace)

    place.run(work)


def test_a_container_that_is_gone_is_a_failure_and_not_a_missing_file(
    place: Place, engine: FakeEngine, tmp_path: Path
) -> None:
    async def work(workspace: Workspace) -> None:
        engine.inject(ContainerVanishes(), "archive_get")
        with pytest.raises(Failed, match="No such container"):
            await workspace.read(workspace.places.work, tmp_path / "work")
        with pytest.raises(Failed, match="No such container"):
            await workspace.exec(("true",))
        with pytest.raises(Failed):
            await workspace.interrupt()

    place.run(work)
    assert not (tmp_path / "work").exists()


def test_an_archive_that_breaks_off_is_a_failure(place: Place, engine: FakeEngine, tmp_path: Path) -> None:
    async def work(workspace: Workspace) -> None:
        await workspace.write(b"x" * 100_000, workspace.places.work / "file")
        for size in (0, 100, 1024, 50_000):
            engine.inject(Cut(size), "archive_get")
            with pytest.raises(Failed) as caught:
                await workspace.read(workspace.places.work / "file", tmp_path / "file")
            assert caught.value.kind in ("engine", "workspace")

    place.run(work)


def test_memory_that_ran_out_is_told_from_a_failure(place: Place, engine: FakeEngine) -> None:
    async def work(workspace: Workspace) -> None:
        (container,) = engine.containers
        container.count_oom_kill()
        with pytest.raises(Failed) as caught:
            await workspace.exec(sh("exit 137"))
        assert caught.value.kind == "oom"
        assert (await workspace.exec(sh("exit 137"))).code == 137

    place.run(work)


def test_a_removal_is_tried_again_and_not_for_ever(place: Place, engine: FakeEngine) -> None:
    engine.inject(Refusal(500), "container_remove", call=1)
    engine.inject(Reset(), "container_remove", call=2)
    place.run(use)
    assert engine.containers == []
    engine.inject(Refusal(500), "container_remove", call=None)
    place.run(use)
    (left,) = engine.containers
    assert eventually(lambda: not left.is_running)  # its supervisor went with the connection


def test_a_container_of_that_name_that_others_made_is_left_alone(place: Place, engine: FakeEngine) -> None:
    """Its creation has no outcome, and neither has it an owner that would be ours."""
    workspaces_of(place).client.reconnect = 0.01
    theirs: list[str] = []

    def make_theirs(request: Request) -> None:
        if request.endpoint == "container_create" and not theirs:
            theirs.append(request.query["name"])
            workspaces_of(place).client.api.create_container(IMAGE, "true", name=request.query["name"])

    engine.watch = make_theirs
    engine.inject(Reset(), "container_create", call=2)
    place.run(use)
    assert [container.name for container in engine.containers] == theirs


def pull(place: Place, name: str) -> Any:
    return anyio.run(workspaces_of(place).images.get, name)


def test_a_pull_that_breaks_off_is_a_failure_that_may_pass(place: Place, engine: FakeEngine) -> None:
    engine.publish("pulled", FakeImage())
    for fault in (Cut(0), Cut(5)):
        engine.remove_image("pulled")
        engine.inject(fault, "image_pull")
        with pytest.raises(Failed) as caught:
            pull(place, "pulled")
        assert caught.value.kind == "image_pull"
        assert engine.under_way == []
    assert pull(place, "pulled").id == FakeImage().id


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "image_missing"), (429, "rate_limited"), (503, "image_pull"), (401, "image_pull")]
)
def test_what_a_registry_says_decides_what_became_of_a_pull(
    place: Place, engine: FakeEngine, status: int, kind: str
) -> None:
    engine.publish("127.0.0.1:1/pulled", Refusal(status, "says the registry"))
    with pytest.raises(Failed, match="says the registry") as caught:
        pull(place, "127.0.0.1:1/pulled")
    assert caught.value.kind == kind


def test_an_engine_that_dies_while_it_pulls_is_no_missing_image(place: Place, engine: FakeEngine) -> None:
    engine.publish("pulled", FakeImage())
    workspaces_of(place).client.reconnect = 0.01
    engine.inject(Death(), "image_pull")
    with pytest.raises(Unreachable):
        pull(place, "pulled")


LABELS = {**Owner.this_process().labels(), "evalkit.pid": "1", "evalkit.started": "0"}
"""Of a process of this machine that is no more."""


def leave_behind(place: Place, engine: FakeEngine) -> None:
    api = workspaces_of(place).client.api
    for number in range(2):
        api.create_container(IMAGE, "true", name=f"left-{number}", labels=LABELS)
    api.create_container(IMAGE, "true", name="of-somebody-who-lives", labels=Owner.this_process().labels())
    engine.add_network("left-network", LABELS)
    engine.add_volume("left-volume", LABELS)


def test_a_sweep_takes_what_dead_processes_left(
    place: Place, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    leave_behind(place, engine)
    assert engines.sweep(tmp_path) == ["left-0", "left-1", "left-network", "left-volume"]
    assert [container.name for container in engine.containers] == ["of-somebody-who-lives"]


@pytest.mark.parametrize("fault", [Reset(), Refusal(500), Refusal(409)], ids=["reset", "server error", "conflict"])
def test_a_sweep_that_meets_a_fault_ends_with_a_reason_and_can_be_repeated(
    place: Place, engine: FakeEngine, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    for call in count(1):
        leave_behind(place, engine)
        asked = len(engine.requests)
        engine.inject(fault, call=call)
        with suppress(EngineUnavailable):
            engines.sweep(tmp_path)
        engine.heal()
        was_reached = len(engine.requests) >= asked + call
        engines.sweep(tmp_path)
        assert [container.name for container in engine.containers] == ["of-somebody-who-lives"]
        engine.remove_container(engine.containers[0])
        if not was_reached:
            assert call > 8
            return
