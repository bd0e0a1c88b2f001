from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalkit.images import worker
from evalkit.images.worker import BuildCommand, Order
from tests.support.processes import all_end


def order(folder: Path, *scripts: str, seconds: float = 60.0, silence: float = 60.0) -> Order:
    commands = tuple(
        BuildCommand(f"step {number}", ("/bin/sh", "-c", script, str(folder)), seconds, silence)
        for number, script in enumerate(scripts, 1)
    )
    return Order("job", commands, {}, {}, str(folder / "log"))


def test_output_goes_to_the_log_whatever_it_is(tmp_path: Path) -> None:
    report = worker.carry_out(order(tmp_path, "printf 'a\\377\\n'; echo b >&2", "echo c"))
    assert report.problem is None
    assert set(report.seconds) == {"step 1", "step 2"}
    assert (tmp_path / "log").read_bytes() == b"a\xff\nb\nc\n"


def test_the_first_command_that_fails_is_the_last(tmp_path: Path) -> None:
    report = worker.carry_out(order(tmp_path, "echo fine", "echo the reason; exit 3", "echo never"))
    assert report.problem == "step 2 failed with status 3"
    assert report.tail == "the reason\n", "and what it said is told, without what went before"
    assert not report.final
    assert b"never" not in (tmp_path / "log").read_bytes()


def test_a_later_try_adds_to_the_log(tmp_path: Path) -> None:
    for _ in range(2):
        worker.carry_out(order(tmp_path, "echo again; exit 1"))
    assert (tmp_path / "log").read_text() == "again\n" * 2


def test_a_command_that_is_not_done_in_time_is_killed_with_all_it_started(tmp_path: Path) -> None:
    script = "echo begun; while :; do echo busy; sleep 0.05; done & sleep 600 & wait"
    report = worker.carry_out(order(tmp_path, script, seconds=1.0))
    assert report.problem == "step 1 was not done after 1 s"
    assert report.final, "another try would take as long"
    assert all_end(tmp_path)


def test_a_command_that_says_nothing_has_stalled_and_is_worth_another_try(tmp_path: Path) -> None:
    report = worker.carry_out(order(tmp_path, "echo begun; sleep 600", silence=0.5))
    assert report.problem == "step 1 stalled: it said nothing for 0.5 s"
    assert not report.final
    assert all_end(tmp_path)


def test_a_slow_command_that_says_something_now_and_then_has_not_stalled(tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.25; echo $i; done"
    assert worker.carry_out(order(tmp_path, script, silence=2.0)).problem is None


def test_a_command_that_closes_its_output_is_still_waited_for(tmp_path: Path) -> None:
    report = worker.carry_out(order(tmp_path, "exec >&- 2>&-; sleep 0.3; exit 7"))
    assert report.problem == "step 1 failed with status 7"
    report = worker.carry_out(order(tmp_path, "exec >&- 2>&-; sleep 600", seconds=0.5))
    assert report.problem == "step 1 was not done after 0.5 s"
    assert all_end(tmp_path)


def test_files_are_written_as_they_were_read(tmp_path: Path) -> None:
    text = b"LABEL a=\xff\n".decode("utf-8", "surrogateescape")
    path = tmp_path / "Dockerfile"
    worker.carry_out(Order("job", (), {str(path): text}, {}, str(tmp_path / "log")))
    assert path.read_bytes() == b"LABEL a=\xff\n"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_commands_carry_the_name_of_their_job(tmp_path: Path) -> None:
    made = order(tmp_path, "echo $EVALKIT_BUILD_JOB $EXTRA")
    worker.carry_out(Order("job-1", made.commands, {}, {"EXTRA": "more"}, made.log))
    assert (tmp_path / "log").read_text() == "job-1 more\n"
