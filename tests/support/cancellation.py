"""Cancels an operation at each of its checkpoints, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
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
class _Stepped:
    """Runs an operation, and acts at its n-th checkpoint, where it yields to the event loop."""

    operation: Awaitable[Any]
    number: int
    act: Callable[[], None]

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.operation.__await__()
        resume: Callable[[], Any] = partial(next, steps)
        for reached in count(1):
            try:
                waited_for = resume()
            except StopIteration as end:
                return end.value
            if reached == self.number:
                self.act()
            try:
                value = yield waited_for
            except BaseException as error:  # noqa: BLE001  # the operation must see the cancellation too
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, value)
        raise AssertionError("unreachable")


async def cancel_at_each_checkpoint(operation: Operation, after: After) -> int:
    """Cancel at each checkpoint in turn. Returns the number of checkpoints."""
    for number in count(1):
        with anyio.CancelScope() as scope:
            await _Stepped(operation(), number, scope.cancel)
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
