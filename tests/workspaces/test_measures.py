"""What programs took is told at the end, by each kind of workspace as far as it can know."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from evalkit import logs
from evalkit.config import Config
from evalkit.domain.protocols import Measured, RunScope, Workspace
from evalkit.domain.records import Instance, Resources
from evalkit.testing.container_engine.images import FakeImage
from evalkit.workspaces.local import create
from tests.support.engine import Engine
from tests.support.fake_engine import open_fake_engine, workspaces_on
from tests.support.workspaces import MEGABYTE, Place, open_place

# It takes some 50 MB, and CPU time until it has had a quarter of a second.
_WORK = """
kept=$(head -c 25000000 /dev/zero | tr '\\0' x)
while read -r line </proc/self/stat && set -- ${line##*) } && [ $((${12} + ${13})) -lt 25 ]; do :; done
"""


async def work(workspace: Workspace) -> Resources:
    assert isinstance(workspace, Measured)
    assert (await workspace.exec(("/bin/sh", "-c", _WORK))).code == 0
    return await workspace.measure()


@pytest.mark.parametrize("kind", ["local", "docker"])
def test_memory_and_cpu_of_all_programs(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    engine: Engine | None = request.getfixturevalue("engine") if kind == "docker" else None
    with open_place(kind, tmp_path, engine) as place:
        found = place.run(work)
    assert found.cpu_seconds >= 0.2
    assert found.memory_peak > 20 * MEGABYTE
    assert not found.oom_kills


def test_who_is_stopped_for_the_cpu_limit_is_told(docker: Place) -> None:
    found = docker.run(work, cpus=0.1)
    assert found.throttled > 0
    assert found.memory_limit == 256 * MEGABYTE


@pytest.mark.slow
def test_groups_of_this_machine_count_what_a_sandbox_took(tmp_path: Path) -> None:
    workspaces = create(Config.model_validate({"agent": {"name": "gold"}}), RunScope("run", tmp_path))
    if workspaces.groups is None:
        pytest.skip("no control groups can be made here: they are read-only, or another user's")
    place = Place("sandboxed", workspaces, tmp_path)
    found = place.run(work, cpus=0.1)
    assert found.memory_peak > 20 * MEGABYTE
    assert found.cpu_seconds >= 0.2
    assert found.throttled is None or found.throttled > 0


def test_a_container_tells_what_it_is_sure_to_have_and_what_it_may_take(docker: Place, engine: Engine) -> None:
    async def look(_: Workspace) -> dict[str, int]:
        (container,) = engine.api.containers(filters={"label": "evalkit.run=run"})
        found: dict[str, int] = engine.api.inspect_container(container["Id"])["HostConfig"]
        return found

    settings = docker.run(look, memory=192 * MEGABYTE, reserved=64 * MEGABYTE, cpus=1.5, cpu_shares=0.5)
    assert (settings["Memory"], settings["MemoryReservation"]) == (192 * MEGABYTE, 64 * MEGABYTE)
    assert settings["CpuShares"] == 512


def test_images_of_another_architecture_are_named_before_anything_runs(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with open_fake_engine() as engine, workspaces_on(engine, tmp_path) as workspaces, logs.written_to(log):
        engine.add_image("ours")
        engine.add_image("theirs", FakeImage(architecture="arm64"))
        instances = [Instance(id=name, statement="", image=name) for name in ("ours", "theirs")]
        assert anyio.run(workspaces.missing_images, instances) == {}
    (line,) = [each for each in log.read_text().splitlines() if "architecture" in each]
    assert "1 of the images" in line
    assert "amd64" in line
    assert "theirs (arm64)" in line
