"""The fake engine keeps to what Docker does, as Docker's own SDK sees it, and goes wrong where it was told to."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import requests

from evalkit.containers.output import STDERR, STDOUT, Frames
from evalkit.testing import FakeEngine
from evalkit.testing.container_engine import (
    Cut,
    Death,
    ExecFails,
    FakeImage,
    Hang,
    Outcome,
    Refusal,
    Reset,
    Slow,
)
from tests.support.fake_engine import IMAGE, open_fake_engine
from tests.support.waiting import eventually


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with open_fake_engine() as engine:
        yield engine


@pytest.fixture
def api(engine: FakeEngine) -> Iterator[Any]:
    api = docker.APIClient(engine.host, version="1.41", timeout=30)
    yield api
    api.close()


def start(api: Any, *command: str, **options: Any) -> str:
    made = api.create_container(IMAGE, list(command) or ["sleep", "1000"], **options)["Id"]
    api.start(made)
    return str(made)


def converse(api: Any, made: str) -> tuple[bytes, bytes]:
    """Both streams of a command. Not by the SDK's `exec_start`, which loses what comes together with the head."""
    answer = api.post(f"{api.base_url}/v1.41/exec/{made}/start", json={"Detach": False, "Tty": False})
    assert answer.status_code == 200, answer.text
    said = {STDOUT: bytearray(), STDERR: bytearray()}
    for stream, payload in Frames().feed(answer.content):
        said[stream] += payload
    return bytes(said[STDOUT]), bytes(said[STDERR])


def run(api: Any, container: str, *command: str) -> tuple[int, bytes]:
    made = api.exec_create(container, list(command))["Id"]
    said = b"".join(converse(api, made))
    return api.exec_inspect(made)["ExitCode"], said


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def test_a_container_runs_and_ends_with_its_status(api: Any) -> None:
    container = start(api, *sh("exit 7"), name="short")
    assert api.wait(container)["StatusCode"] == 7
    state = api.inspect_container("short")["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 7)
    api.remove_container("short")
    with pytest.raises(docker.errors.NotFound, match="No such container: short"):
        api.inspect_container("short")


def test_commands_see_their_own_root_and_no_process_of_this_machine(api: Any) -> None:
    container = start(api)
    code, said = run(api, container, *sh("id -u; pwd; ls /; set -- /proc/[0-9]*; echo $#"))
    assert code == 0
    user, folder, *names, processes = said.decode().split()
    assert (user, folder) == ("0", "/")
    assert int(processes) < 8
    assert "tmp" in names
    assert not {"home", "work"} & set(names)


def test_a_command_that_kills_everything_kills_its_container_and_nothing_of_this_machine(
    api: Any, engine: FakeEngine
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        try:
            assert run(api, start(api), *sh("kill -KILL -1; sleep 1000"))[0] == 137
            assert eventually(lambda: not engine.containers[0].is_running)
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_output_is_told_apart_and_signals_have_their_status(api: Any) -> None:
    container = start(api)
    made = api.exec_create(container, list(sh("echo out; echo err >&2; kill -9 $$")))["Id"]
    assert converse(api, made) == (b"out\n", b"err\n")
    facts = api.exec_inspect(made)
    assert (facts["ExitCode"], facts["Running"]) == (137, False)
    with pytest.raises(docker.errors.APIError, match="already run"):
        api.exec_start(made)
    assert run(api, container, "no-such-program")[0] != 0


def test_a_kill_ends_everything_in_it(api: Any, engine: FakeEngine) -> None:
    container = start(api)
    api.exec_start(api.exec_create(container, ["sleep", "1000"])["Id"], detach=True)
    assert eventually(lambda: len(engine.execs) == 1)
    api.kill(container)
    assert api.wait(container)["StatusCode"] == 137
    assert eventually(lambda: engine.execs == [])
    with pytest.raises(docker.errors.APIError, match="is not running"):
        api.exec_create(container, ["true"])
    api.start(container)
    assert run(api, container, "true")[0] == 0
    api.stop(container, timeout=0)
    assert not engine.containers[0].is_running


def test_an_attached_client_is_the_input_of_a_container_that_is_started_later(api: Any) -> None:
    made = api.create_container(
        IMAGE, ["cat"], stdin_open=True, host_config=api.create_host_config(network_mode="none")
    )["Id"]
    attached = api.attach_socket(made, {"stdin": 1, "stdout": 1, "stream": 1})
    connection: socket.socket = getattr(attached, "_sock", attached)
    api.start(made)
    connection.sendall(b"hello")
    assert connection.recv(100) == b"\x01\0\0\0\0\0\0\x05hello"
    api.kill(made)
    assert connection.recv(100) == b""
    attached.close()
    connection.close()


def archive(**contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_files_go_in_and_out_whether_it_runs_or_not(api: Any) -> None:
    container = api.create_container(IMAGE, list(sh("cat /tmp/given >/tmp/seen")))["Id"]
    assert api.put_archive(container, "/tmp", archive(given=b"hello"))
    api.start(container)
    api.wait(container)
    blocks, facts = api.get_archive(container, "/tmp/seen")
    with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as tar:
        (member,) = tar
        content = tar.extractfile(member)
        assert content is not None
        assert (member.name, content.read(), facts["name"]) == ("seen", b"hello", "seen")
    for path in ("/nowhere", "/tmp/nothing"):
        with pytest.raises(docker.errors.NotFound):
            api.get_archive(container, path)
    with pytest.raises(docker.errors.NotFound):
        api.put_archive(container, "/nowhere", archive(given=b""))


def test_a_link_in_a_container_leads_nowhere_on_this_machine(api: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("42")
    container = start(api)
    run(api, container, "ln", "-s", str(tmp_path), "/tmp/link")
    with pytest.raises(docker.errors.NotFound):
        api.get_archive(container, "/tmp/link/secret")
    with pytest.raises(docker.errors.NotFound):
        api.put_archive(container, "/tmp/link", archive(given=b"x"))
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_images_are_pulled_tagged_and_removed(api: Any, engine: FakeEngine) -> None:
    engine.publish("some/image:1", FakeImage(user="1000", work="/src", labels={"a": "b"}))
    assert api.inspect_distribution("some/image:1")["Descriptor"]["digest"]
    api.pull("some/image", tag="1")
    facts = api.inspect_image("some/image:1")
    assert (facts["Config"]["User"], facts["Config"]["WorkingDir"]) == ("1000", "/src")
    api.tag("some/image:1", "other", "2")
    assert sorted(api.inspect_image(facts["Id"])["RepoTags"]) == ["other:2", "some/image:1"]
    api.remove_image("some/image:1")
    with pytest.raises(docker.errors.ImageNotFound):
        api.inspect_image("some/image:1")
    assert len(api.images()) == 2
    engine.publish("refused", Refusal(429, "toomanyrequests: slow down"))
    with pytest.raises(docker.errors.APIError, match="slow down"):
        api.pull("refused", tag="latest")


def test_an_image_brings_its_files_and_variables(api: Any, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "file").write_text("brought")
    engine.add_image("other", FakeImage(files=tmp_path, work="/src", environment={"KEPT": "yes"}))
    container = api.create_container("other", list(sh("cat file; echo $KEPT >out")))["Id"]
    api.start(container)
    assert api.wait(container)["StatusCode"] == 0
    blocks, _ = api.get_archive(container, "/src/out")
    assert b"yes\n" in b"".join(blocks)
    assert [path.name for path in (tmp_path / "src").iterdir()] == ["file"]


def test_lists_are_chosen_by_labels(api: Any) -> None:
    api.create_container(IMAGE, "true", name="one", labels={"mine": "yes"})
    api.create_container(IMAGE, "true", name="two", labels={"mine": "no"})
    assert [each["Names"] for each in api.containers(all=True, filters={"label": "mine=yes"})] == [["/one"]]
    assert len(api.containers(all=True, filters={"label": ["mine"]})) == 2
    assert api.containers() == []
    with pytest.raises(docker.errors.APIError, match="already in use"):
        api.create_container(IMAGE, "true", name="one")


def test_events_tell_what_happens(api: Any, engine: FakeEngine) -> None:
    events = api.events(decode=True)
    container = start(api, "true")
    api.wait(container)
    api.remove_container(container)
    actions = [next(events)["Action"] for _ in range(4)]
    events.close()
    assert actions == ["create", "start", "die", "destroy"]
    assert engine.events == [f"container {action}" for action in actions]
    assert eventually(lambda: engine.under_way == [])


def test_a_command_can_have_an_outcome_instead_of_running(api: Any, engine: FakeEngine) -> None:
    engine.on(["make", "test"], Outcome(output=b"1 failed\n", errors=b"oh\n", code=2))
    container = start(api)
    made = api.exec_create(container, ["env", "make", "test"])["Id"]
    assert converse(api, made) == (b"1 failed\n", b"oh\n")
    assert api.exec_inspect(made)["ExitCode"] == 2


def test_a_fault_comes_at_its_call_and_at_no_other(api: Any, engine: FakeEngine) -> None:
    engine.inject(Refusal(500, "no space left on device"), "container_list", call=2)
    assert api.containers() == []
    with pytest.raises(docker.errors.APIError, match="no space left on device"):
        api.containers()
    assert api.containers() == []
    with pytest.raises(ValueError, match="container_lits"):
        engine.inject(Reset(), "container_lits")


def test_an_answer_can_be_lost_after_the_work_was_done(api: Any, engine: FakeEngine) -> None:
    for fault, made in ((Reset(), 0), (Reset("after"), 1), (Cut(), 2)):
        engine.inject(fault, "container_create")
        with pytest.raises(requests.exceptions.RequestException):
            api.create_container(IMAGE, "true")
        assert len(engine.containers) == made


def test_no_answer_comes_until_the_client_gives_up(engine: FakeEngine) -> None:
    engine.inject(Hang(), "container_list")
    impatient = docker.APIClient(engine.host, version="1.41", timeout=0.2)
    with pytest.raises(requests.exceptions.ReadTimeout):
        impatient.containers()
    assert eventually(lambda: engine.under_way == [])
    impatient.close()


def test_an_answer_comes_slowly(api: Any, engine: FakeEngine) -> None:
    engine.inject(Slow(0.1), "container_list")
    began = time.monotonic()
    api.containers()
    assert time.monotonic() - began >= 0.1


def test_a_command_that_is_never_started(api: Any, engine: FakeEngine) -> None:
    engine.inject(ExecFails("OCI runtime exec failed: no", 126), "exec_start")
    assert run(api, start(api), "true") == (126, b"OCI runtime exec failed: no\r\n")


def test_it_dies_with_its_containers_and_comes_back(api: Any, engine: FakeEngine) -> None:
    container = start(api)
    made = api.exec_create(container, ["true"])["Id"]
    engine.inject(Death(back_after=0.1), "ping")
    with pytest.raises(requests.exceptions.RequestException):
        api.ping()
    assert eventually(lambda: engine.is_listening)
    assert not api.inspect_container(container)["State"]["Running"]
    with pytest.raises(docker.errors.NotFound):  # it does not remember them
        api.exec_inspect(made)
    engine.start()  # nothing, it is there
    api.start(container)
    engine.stop(keep_containers=True)
    engine.start()
    assert api.inspect_container(container)["State"]["Running"]


def test_nothing_is_left_of_it() -> None:
    threads = set(threading.enumerate())
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    with open_fake_engine() as engine:
        api = docker.APIClient(engine.host, version="1.41")
        container = start(api)
        api.exec_start(api.exec_create(container, ["sleep", "1000"])["Id"], detach=True)
        processes = [container._process.pid for container in engine.containers if container._process]
        folder = engine.folder
    api.close()
    assert not folder.exists()
    assert eventually(lambda: set(threading.enumerate()) <= threads)
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert eventually(lambda: len([*Path("/proc/self/fd").iterdir()]) <= descriptors)


def test_it_costs_nothing_until_it_is_asked_for() -> None:
    program = (
        "import sys, evalkit.testing; assert 'http.server' not in sys.modules; "
        "evalkit.testing.FakeEngine; assert 'http.server' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
