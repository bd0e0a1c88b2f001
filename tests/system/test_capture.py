"""What commands print is taken as it comes, and no more of it than is wanted."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import anyio
import pytest

from evalkit.domain.outputs import OutputLimit, TooLarge
from evalkit.system import capture, processes
from evalkit.system.capture import Sink

LIMIT = OutputLimit("the answer", bytes=1000)
NOTE = b"\n[evalkit: the answer has more than 1000 bytes; the rest is left out]\n"


def test_an_answer_stops_at_its_limit(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "answer", LIMIT)
    sink.write(memoryview(b"x" * 1000))
    with pytest.raises(TooLarge, match="the answer has more than 1000 bytes"):
        sink.write(memoryview(b"yz"))
    sink.write(memoryview(b"its last words"))
    sink.close()
    assert (tmp_path / "answer").read_bytes() == b"x" * 1000
    assert sink.tail.endswith("yzits last words")


@pytest.mark.parametrize("size", [1, 333, 1000])
def test_of_a_long_log_the_rest_is_left_out_and_a_line_says_so(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    for _ in range(2):  # one command after the other
        sink = Sink(path, log=LIMIT)
        for _ in range(2000 // size):
            sink.write(memoryview(b"x" * size))
        sink.write(memoryview(b"the end"))
        assert sink.tail.endswith("the end")
        sink.close()
    assert path.read_bytes() == b"before\n" + b"x" * 993 + NOTE


def test_what_was_written_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    sink = Sink(path, LIMIT)
    sink.write(memoryview(b"x" * 900))
    sink.rewind()
    sink.write(memoryview(b"y" * 900))
    sink.close()
    assert path.read_bytes() == b"before\n" + b"y" * 900
    assert sink.tail == "y" * 900


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_command_that_prints_without_end_is_ended(tmp_path: Path, loop: str) -> None:
    path = tmp_path / "answer"

    async def run() -> None:
        with capture.opened(path, None, LIMIT) as (out, err):
            command = partial(processes.run, ("yes",), env=dict(os.environ), cwd=tmp_path)
            await capture.run_into(out, err, command)

    with pytest.raises(TooLarge):
        anyio.run(run, backend=loop)
    assert path.read_bytes() == b"y\n" * 500


def test_a_daemon_that_prints_without_end_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "log"

    async def run() -> int:
        with capture.opened(path, path) as (out, err):
            script = "setsid yes & sleep 0.2; echo over >&2"
            command = partial(processes.run, ("sh", "-c", script), env=dict(os.environ), cwd=tmp_path)
            return await capture.run_into(out, err, command)

    assert anyio.run(run) == 0
    assert b"over\n" in path.read_bytes()
