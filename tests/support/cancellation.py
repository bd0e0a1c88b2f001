"""Cancels an operation at each of its checkpoints, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import anyio

from evalkit.testing import FakeEngine

Operation = Callable[[], Awaitable[Any]]
After = Callable[[str], Awaitable[None]]
"""Called with the place of the cancellation; checks what was left behind."""
_SECONDS = 10.0


@dataclass
class _Countdown:
    """Acts at the n-th checkpoint: each time that what is counted gives way to the event loop."""

    left: int
    act: Callable[[], None]

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


@dataclass
class _Stepped:
    """Runs an operation, and counts its checkpoints."""

    operation: Awaitable[Any]
    countdown: _Countdown

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.operation.__await__()
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                waited_for = resume()
            except StopIteration as end:
                return end.value
            self.countdown.count()
            try:
                value = yield waited_for
            except BaseException as error:  # noqa: BLE001  # the operation must see the cancellation too
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, value)


@contextmanager
def _counting_tasks(countdown: _Countdown) -> Iterator[None]:
    """Checkpoints of the tasks that are started meanwhile count too."""

    def make_task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        async def run() -> Any:
            return await _Stepped(coroutine, countdown)

        return asyncio.Task(run(), loop=loop, **options)

    loop = asyncio.get_running_loop()
    earlier = loop.get_task_factory()
    loop.set_task_factory(make_task)
    try:
        yield
    finally:
        loop.set_task_factory(earlier)


async def cancel_at_each_checkpoint(operation: Operation, after: After, *, of_tasks: bool = False) -> int:
    """Cancel at each checkpoint in turn, also those `of_tasks` that it starts. Returns the number of checkpoints."""
    for number in count(1):
        with anyio.CancelScope() as scope:
            countdown = _Countdown(number, scope.cancel)
            with _counting_tasks(countdown) if of_tasks else nullcontext():
                await _Stepped(operation(), countdown)
        await after(f"checkpoint {number}")
        if not scope.cancel_called:
            return number - 1
    raise AssertionError("unreachable")


async def cancel_at_each_request(engine: FakeEngine, operation: Operation, after: After) -> list[str]:
    """Cancel during each request to the engine in turn. Returns the requests."""
    loop = asyncio.get_running_loop()
    endpoints: list[str] = []
    for number in count(1):
        requests = count(1)
        with anyio.CancelScope() as scope:

            def watch(request: Any, number: int = number, scope: anyio.CancelScope = scope) -> None:
                if next(requests) == number:  # noqa: B023  # defined anew in each round
                    endpoints.append(request.endpoint)
                    cancelled = threading.Event()
                    loop.call_soon_threadsafe(scope.cancel)
                    loop.call_soon_threadsafe(cancelled.set)
                    cancelled.wait(_SECONDS)

            engine.watch = watch
            await operation()
        engine.watch = None
        await after(f"request {number} of {endpoints}")
        if not scope.cancel_called:
            return endpoints
    raise AssertionError("unreachable")
