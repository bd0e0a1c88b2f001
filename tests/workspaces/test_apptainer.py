"""What is particular to workspaces in containers of Apptainer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.domain.protocols import Exit, Workspace
from evalkit.errors import SandboxRequired
from evalkit.workspaces.apptainer.apptainer_sandbox import find_apptainer, missing_walls
from evalkit.workspaces.rootfs.image_users import ImageUser
from tests.support.cli import Evalkit
from tests.support.rootfs import BUSYBOX, make_store, require_kind
from tests.support.workspaces import Place, open_place

OURS = ["ipc:[1]", "mnt:[2]", "net:[3]", "pid:[4]", "user:[5]"]
THEIRS = "\n".join(["ipc:[11]", "mnt:[12]", "net:[13]", "pid:[14]", "user:[15]"])
GOOD = f"Uid:\t0\t0\t0\t0\nCapBnd:\t00000000000000fb\nNoNewPrivs:\t1\n{THEIRS}"


@pytest.fixture
def apptainer(tmp_path: Path) -> Iterator[Place]:
    with open_place("apptainer", tmp_path, None) as place:
        yield place


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (GOOD, None),
        (GOOD.replace("net:[13]", "net:[3]"), "share namespaces with the machine: net"),
        (GOOD.replace("pid:[14]\n", ""), "not known which"),
        (GOOD.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0"), "can gain privileges"),
        (GOOD.replace("00fb", "ffff"), "capabilities that they should not have"),
        (GOOD.replace("Uid:\t0", "Uid:\t7"), "run as another user"),
        ("", "not known which"),
    ],
)
def test_walls_are_those_that_the_kernel_tells_of(said: str, complaint: str | None) -> None:
    problem = missing_walls(said, ImageUser(), OURS)
    assert problem is None if complaint is None else complaint in (problem or "")


def test_without_the_program_there_are_no_workspaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxRequired, match="neither apptainer nor singularity"):
        find_apptainer(tmp_path, tmp_path / "images")


@pytest.mark.slow
def test_a_program_that_makes_no_container_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nwhile [ "$1" != /bin/sh ]; do shift; done\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(SandboxRequired, match="share namespaces with the machine: ipc, net, pid"):
        find_apptainer(tmp_path, tmp_path / "images")


@pytest.mark.slow
def test_variables_arrive_as_they_are_and_nothing_else(apptainer: Place) -> None:
    odd = {"ODD": "a 'b' \"c\" $HOME `id`\nsecond \\ line", "EMPTY": ""}

    async def work(workspace: Workspace) -> tuple[Exit, Exit]:
        names = await workspace.exec(sh("env -0 | tr '\\n\\0' ' \\n' | cut -d= -f1 | sort"), env=odd)
        return names, await workspace.exec(sh('printf "%s|%s" "$ODD" "${EMPTY-none}"'), env=odd)

    names, values = apptainer.run(work)
    assert values.tail == f"{odd['ODD']}|"
    ours = {"EMPTY", "ODD", "HOME", "PATH", "PWD", "FROM_IMAGE", "EVALKIT_TEST_SECRET"}
    assert {name for name in names.tail.split() if not name.startswith("EVALKIT_")} <= {*ours, "SHLVL", "OLDPWD"}


@pytest.mark.slow
@pytest.mark.parametrize("user", ["", "agent"])
def test_nothing_of_the_machine_is_mounted(apptainer: Place, user: str) -> None:
    async def work(workspace: Workspace) -> Exit:
        return await workspace.exec(sh("cat /proc/mounts"), user=user)

    places = [Path(line.split()[1]) for line in apptainer.run(work).tail.splitlines()]
    assert {place.parts[1] for place in places if place != Path("/")} == {"dev", "proc"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "shell",
    ["#!/bin/busybox sh\necho FATAL: no container >&2; exit 255\n", "#!/bin/busybox sh\nexit 137\n", "not a program"],
)
def test_a_shell_that_feigns_a_broken_machine_is_the_agents_doing(apptainer: Place, shell: str) -> None:
    async def work(workspace: Workspace) -> int:
        await workspace.exec(sh(f"rm /bin/sh; printf '%s' '{shell}' >/bin/sh; chmod 755 /bin/sh"))
        return (await workspace.exec(sh("true"))).code

    assert apptainer.run(work) == 127


@pytest.mark.slow
def test_links_in_the_place_of_mount_points_lead_nowhere(apptainer: Place, tmp_path: Path) -> None:
    """Programs cannot put them there, since the folders are in use. If they could, nothing of the host would change."""
    host = tmp_path / "host"
    host.mkdir()

    async def work(workspace: Workspace) -> tuple[int, int]:
        refused = (await workspace.exec(sh("rmdir /dev || mv /dev /other || rmdir /proc || mv /proc /other"))).code
        root = workspace.root.path  # type: ignore[attr-defined]  # of images
        for name in ("dev", "proc"):
            (root / name).rmdir()
            (root / name).symlink_to(host)
        return refused, (await workspace.exec(sh("echo x >/dev/here; echo x >/proc/here"))).code

    refused, code = apptainer.run(work)
    assert refused != 0
    assert code != 0
    assert list(host.iterdir()) == []


@pytest.mark.slow
def test_terminals_and_shared_memory_can_be_had(apptainer: Place) -> None:
    async def work(workspace: Workspace) -> Exit:
        return await workspace.exec(sh("[ -c /dev/ptmx ] && [ -d /dev/pts ] && echo x >/dev/shm/a && cat /dev/shm/a"))

    assert apptainer.run(work).tail == "x\n"


@pytest.mark.slow
def test_doctor_says_what_is_weaker(evalkit: Evalkit) -> None:
    require_kind("apptainer")
    make_store(evalkit.folder / "cache" / "images")
    evalkit.variables["EVALKIT_CACHE"] = str(evalkit.folder / "cache")
    finished = evalkit("doctor", "--workspace", "apptainer", "--set", f"workspace.image={BUSYBOX}")
    (found,) = [each for each in finished.document["checks"] if each["name"] == "apptainer"]
    assert found["status"] == "warning"
    assert "/dev/shm are in memory" in found["message"]
