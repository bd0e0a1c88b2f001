"""What comes from the output of a supervisor, to which an agent can write as well."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from evalkit.workspaces.docker.supervisor import FUNCTIONS, Supervisor, SupervisorGone, is_alone

BLOCK = 1 << 16


@dataclass
class Saying:
    """A connection to something that says this, and then waits."""

    blocks: Iterator[bytes]
    taken: int = 0
    asked: list[bytes] = field(default_factory=list)

    async def receive(self) -> bytes:
        if (block := next(self.blocks, None)) is None:
            await anyio.sleep_forever()
            raise AssertionError
        self.taken += len(block)
        return b"\1\0\0\0" + len(block).to_bytes(4, "big") + block

    async def send(self, data: bytes) -> None:
        self.asked.append(data)

    async def aclose(self) -> None: ...


def count(*said: bytes) -> tuple[int, int]:
    return anyio.run(Supervisor(Saying(iter(said))).count)


@pytest.mark.parametrize(
    "noise", [b"", b"\n", b"1\n", b"1 x 0 \n", b"1 2\n", b"\xff\xfe\n", b"0 9 9 \n", b"1 " + b"9" * 5000 + b" 0 \n"]
)
def test_what_is_no_reply_is_passed_over(noise: bytes) -> None:
    assert count(noise, b"1 2 3 \n") == (2, 3)
    assert count(noise + b"1 2", b" 3 \n4 5") == (2, 3)


def endless(block: bytes) -> Iterable[bytes]:
    while True:
        yield block


@pytest.mark.parametrize("block", [b"1" * BLOCK, b"\n" * BLOCK, b"0 0 0 \n" * 9000])
def test_output_without_end_ends_soon(block: bytes) -> None:
    saying = Saying(iter(endless(block)))
    with pytest.raises(SupervisorGone):
        anyio.run(Supervisor(saying).end_all)
    assert saying.taken < 1 << 21


def test_numbers_that_no_kernel_counts_are_unknown() -> None:
    said = b"1 0 0 12 " + b"9" * 5000 + b" -1 \xd9\xa3 7\n"
    kills, numbers = anyio.run(Supervisor(Saying(iter([said]))).measure)
    assert (kills, numbers.memory_peak, numbers.written) == (0, 12, 7)
    assert (numbers.cpu_microseconds, numbers.periods, numbers.stopped_periods) == (None, None, None)


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        ({40: 9, 41: 40, 50: 41, 51: 50}, True),
        ({40: 9, 41: 40, 60: 9}, False),  # a command
        ({40: 9, 41: 40, 60: 40}, False),  # an orphan
        ({60: 9, 61: 60}, False),
        ({1: 0, 2: 0}, False),  # of the machine, as with gVisor
        ({}, False),
    ],
)
def test_only_the_supervisor_and_its_children_may_be_left(parents: dict[int, int], expected: bool) -> None:
    assert is_alone(40, parents) is expected


def test_groups_that_a_rootless_container_shares_with_others_say_nothing_of_it(tmp_path: Path) -> None:
    """Of version 1, it has none of its own: what the machine uses, or is killed there, is not the agent's."""
    told = {"memory/memory.max_usage_in_bytes": "4096\n", "memory/memory.oom_control": "oom_kill 3\n"}
    told |= {"pids/pids.events": "max 2\n", "cpuacct/cpuacct.usage": "5000000\n"}
    for name, content in told.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    script = FUNCTIONS.replace("/sys/fs/cgroup", str(tmp_path)) + "\nmeasure 1\n"

    def measured() -> str:
        return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout.strip()

    assert measured() == "1 3 2 4096 5000 - - -"
    (tmp_path / "cpuset").mkdir()
    (tmp_path / "cpuset" / "release_agent").touch()
    assert measured() == "1 0 0 - - - - -"
