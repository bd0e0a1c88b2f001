"""Docker's command, as a program that answers as it is told."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from evalkit.containers import docker_cli
from evalkit.containers.docker_cli import Docker, TimeLimits
from tests.support.docker_cli import Act, FakeDocker, die, fail, hang, say
from tests.support.processes import all_end


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    docker = FakeDocker(tmp_path / "docker")
    monkeypatch.setenv("PATH", str(docker.programs))
    return docker


@pytest.mark.parametrize(
    "act", [fail("no engine"), die(), hang(), say("Emulating Docker")], ids=["fails", "dies", "hangs", "babbles"]
)
def test_the_first_command_with_an_engine_is_taken(
    fake: FakeDocker, act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeDocker(tmp_path / "other")
    monkeypatch.setenv("PATH", f"{fake.programs}:{other.programs}")
    fake.on("info", act)
    found = anyio.run(docker_cli.find, TimeLimits(answer=1.0))
    assert found.programs == [str(other.programs / "docker"), str(fake.programs / "docker")]


def test_what_does_not_answer_ends_with_its_plugins(fake: FakeDocker, tmp_path: Path) -> None:
    fake.on("version", hang())
    docker = Docker([str(fake.programs / "docker")], {}, TimeLimits(answer=0.5))
    assert not anyio.run(docker.answers)
    assert all_end(tmp_path)


def test_an_image_need_not_say_which_architecture_it_is_for(fake: FakeDocker) -> None:
    fake.on("image inspect", say("", "arm64"))
    docker = Docker([str(fake.programs / "docker")], {})
    assert anyio.run(docker.architectures, ["old:1", "new:1"]) == {"new:1": "arm64"}


def test_a_command_that_vanishes_is_one_that_fails(fake: FakeDocker) -> None:
    docker = anyio.run(docker_cli.find)
    (fake.programs / "docker").unlink()
    assert not anyio.run(docker.answers)
