"""Tasks that go on when the call that started them has returned."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from evalkit.workspaces.background import Background


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_task_outlives_the_scope_of_its_start_and_ends_alone(loop: str) -> None:
    ended = []

    async def work(begin: Callable[[int], None]) -> None:
        begin(7)
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("work")

    async def fail(begin: Callable[[str], None]) -> None:
        begin("begun")
        raise ValueError("later")

    async def all_of_it() -> None:
        background = Background()
        async with background.lasting():
            with anyio.fail_after(60):
                first, second = await background.start(work), await background.start(work)
            failing = await background.start(fail)
            await failing.aclose()
            assert (first.value, failing.value) == (7, "begun")
            assert isinstance(failing.problem, ValueError)
            await first.aclose()
            assert ended == ["work"]
            assert second.problem is None
        assert ended == ["work", "work"]

    anyio.run(all_of_it, backend=loop)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_keeps_a_task_from_beginning_is_raised_to_its_starter(loop: str) -> None:
    async def fail(_begin: Callable[[int], None]) -> None:
        raise ValueError("at once")

    async def all_of_it() -> None:
        background = Background()
        async with background.lasting():
            with pytest.raises(ValueError, match="at once"):
                await background.start(fail)

    anyio.run(all_of_it, backend=loop)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_error_of_the_run_is_raised_as_it_is(loop: str) -> None:
    async def all_of_it() -> None:
        async with Background().lasting():
            raise KeyError("of the run")

    with pytest.raises(KeyError, match="of the run"):
        anyio.run(all_of_it, backend=loop)
