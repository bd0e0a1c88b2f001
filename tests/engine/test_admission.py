"""Which attempt starts next, and when; on a clock that jumps to whatever happens next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from evalkit.engine.admission import Admission
from tests.support.runs import on_loop


@dataclass(frozen=True)
class Entry:
    name: str
    shares: int = 1
    memory: int = 0
    seconds: float = 10.0


async def admit(admission: Admission[Entry]) -> list[tuple[str, float]]:
    """Let each entry run for its time once it may; returns who started when."""
    started: list[tuple[str, float]] = []
    begin = anyio.current_time()

    async def hold(entry: Entry) -> None:
        await anyio.sleep(entry.seconds)
        admission.release(entry)

    async with anyio.create_task_group() as tasks:
        while (entry := await admission.next()) is not None:
            started.append((entry.name, anyio.current_time() - begin))
            tasks.start_soon(hold, entry)
    return started


def starts(entries: Iterable[Entry], capacity: int, **options: Any) -> list[tuple[str, float]]:
    async def run() -> list[tuple[str, float]]:
        return await admit(Admission(iter(entries), capacity, **options))

    found: list[tuple[str, float]] = on_loop(run)
    return found


def test_as_many_run_as_there_are_shares_in_the_order_of_their_supply() -> None:
    entries = [Entry(name) for name in "abcde"]
    assert starts(entries, 2) == [("a", 0), ("b", 0), ("c", 10), ("d", 10), ("e", 20)]


def test_nothing_to_do_ends_at_once() -> None:
    assert starts([], 4) == []


def test_who_takes_more_shares_waits_until_they_are_free_and_is_not_overtaken() -> None:
    entries = [Entry("small", seconds=10), Entry("large", shares=3), Entry("last")]
    assert starts(entries, 3) == [("small", 0), ("large", 10), ("last", 20)]


def test_who_wants_more_than_there_is_runs_alone() -> None:
    entries = [Entry("a"), Entry("huge", shares=99), Entry("b")]
    assert starts(entries, 2) == [("a", 0), ("huge", 10), ("b", 20)]


def test_memory_is_shared_too_and_what_exceeds_it_runs_alone() -> None:
    entries = [Entry("a", memory=6), Entry("b", memory=4), Entry("c", memory=1), Entry("huge", memory=99)]
    assert starts(entries, 9, memory_budget=10) == [("a", 0), ("b", 0), ("c", 10), ("huge", 20)]


def test_the_supply_is_drawn_from_only_when_something_may_start() -> None:
    drawn: list[str] = []

    def supply() -> Iterable[Entry]:
        for name in "abcd":
            drawn.append(name)
            yield Entry(name)

    async def run() -> None:
        admission: Admission[Entry] = Admission(iter(supply()), 1)
        first = await admission.next()
        assert first is not None
        assert drawn == ["a"]
        with anyio.move_on_after(5):
            await admission.next()
        assert drawn == ["a", "b"], "one is ready for when there is room"
        admission.release(first)
        second = await admission.next()
        assert second is not None
        assert second.name == "b"

    on_loop(run)


def test_what_is_added_goes_before_the_supply_and_a_delay_holds_up_nobody_else() -> None:
    async def run() -> list[tuple[str, float]]:
        admission = Admission(iter([Entry("a"), Entry("b"), Entry("c")]), 1)
        admission.add(Entry("again"))
        admission.add(Entry("later"), delay=15)
        return await admit(admission)

    assert on_loop(run) == [("again", 0), ("a", 10), ("b", 20), ("later", 30), ("c", 40)]


def test_a_retry_that_waits_keeps_the_queue_from_ending() -> None:
    async def run() -> list[tuple[str, float]]:
        admission: Admission[Entry] = Admission(iter(()), 4)
        admission.add(Entry("retry"), delay=3600)
        return await admit(admission)

    assert on_loop(run) == [("retry", 3600)]


def test_in_a_pause_nothing_starts_and_the_longest_pause_counts() -> None:
    async def run() -> list[tuple[str, float]]:
        admission = Admission(iter([Entry("a"), Entry("b")]), 2)
        admission.pause(60)
        admission.pause(30)
        admission.pause(-1)
        return await admit(admission)

    assert on_loop(run) == [("a", 60), ("b", 60)]


def test_a_reason_to_hold_lets_one_through_at_a_time_and_is_told_once() -> None:
    told: list[str | None] = []
    entries = [Entry(name) for name in "abc"]
    found = starts(entries, 3, held=lambda: "too much memory", on_hold=told.append)
    assert found == [("a", 0), ("b", 10), ("c", 20)]
    assert told == ["too much memory", None, "too much memory", None]


def test_once_the_reason_is_gone_the_others_start() -> None:
    async def run() -> list[tuple[str, float]]:
        relief = anyio.current_time() + 4.5
        held = lambda: "full" if anyio.current_time() < relief else None  # noqa: E731  # one line says it
        return await admit(Admission(iter([Entry("a"), Entry("b")]), 2, held=held))

    (_, first), (_, second) = on_loop(run)
    assert first == 0
    assert 4.5 <= second <= 5.5


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_cancelled_in_the_middle_of_waiting_it_can_be_asked_again(loop: Any) -> None:
    async def run() -> str:
        admission = Admission(iter([Entry("a"), Entry("b")]), 1)
        first = await admission.next()
        assert first is not None
        with anyio.move_on_after(0.01):
            await admission.next()
        admission.release(first)
        second = await admission.next()
        assert second is not None
        return second.name

    assert on_loop(run, loop=loop) == "b"


def test_while_it_is_closed_nothing_starts_and_what_is_queued_stays() -> None:
    async def run() -> tuple[list[tuple[str, float]], bool]:
        admission = Admission(iter([Entry("a"), Entry("b", seconds=30), Entry("c"), Entry("d")]), 2)

        async def close_and_open() -> None:
            await anyio.sleep(5)
            admission.close()
            await anyio.sleep(20)
            admission.close(closed=False)
            await anyio.sleep(3)
            admission.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close_and_open)
            started = await admit(admission)
        return started, admission.has_more

    assert on_loop(run) == ([("a", 0), ("b", 0), ("c", 25)], True)
