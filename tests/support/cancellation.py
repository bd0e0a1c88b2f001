"""Cancels an operation at each place where it can be cancelled, one after the other."""

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
"""Is told where the operation was cancelled, and checks what was left."""
_SECONDS = 10.0


@dataclass
class _Stepped:
    """Runs an operation, and acts at its n-th checkpoint: each time that it gives way to the event loop."""

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
            except BaseException as error:  # noqa: BLE001  # a cancellation is for the operation
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, value)
        raise AssertionError("unreachable")


async def cancel_at_each_checkpoint(operation: Operation, after: After) -> int:
    """Returns how many there were."""
    for number in count(1):
        with anyio.CancelScope() as scope:
            await _Stepped(operation(), number, scope.cancel)
        await after(f"checkpoint {number}")
        if not scope.cancel_called:
            return number - 1
    raise AssertionError("unreachable")


async def cancel_at_each_request(engine: FakeEngine, operation: Operation, after: After) -> list[str]:
    """Cancel while the engine is asked something; returns what it was asked."""
    loop = asyncio.get_running_loop()
    endpoints: list[str] = []
    for number in count(1):
        requests = count(1)
        with anyio.CancelScope() as scope:

            def watch(request: Any, number: int = number, scope: anyio.CancelScope = scope) -> None:
                if next(requests) == number:  # noqa: B023  # each round has its own
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
