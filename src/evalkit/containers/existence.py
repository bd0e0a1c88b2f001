"""Asks a registry whether images exist, until it answers; never guesses."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from evalkit.containers.reference import Reference
from evalkit.containers.registry import Answer, Registry, Unknown

_QUESTIONS_AT_ONCE = 8
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
_LONGEST_WAIT = 900.0

T = TypeVar("T")


def backoff(tries: int, first: float = _FIRST_DELAY) -> float:
    """Seconds to wait after this many failed tries: exponential, with jitter."""
    longest = min(_LONGEST_DELAY, first * 2.0 ** (tries - 1))
    return random.uniform(0.5, 1.0) * longest  # noqa: S311  # jitter, no secret


@dataclass(slots=True)
class Existence:
    registry: Registry
    retries: int
    first_delay: float = _FIRST_DELAY
    _limit: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_QUESTIONS_AT_ONCE))
    _not_before: dict[str, float] = field(default_factory=dict)

    async def ask(self, image: Reference) -> Answer:
        """Ask until there is an answer; Unknown after the last try."""
        tries = 0
        while True:
            async with self._limit:
                await self._wait_for_turn(image.host)
                answer = await in_daemon_thread(lambda: self.registry.look_up(image))
            tries += 1
            if not isinstance(answer, Unknown) or tries > self.retries:
                return answer
            if answer.retry_after is not None:
                if answer.retry_after > _LONGEST_WAIT:
                    return answer
                self._not_before[image.host] = anyio.current_time() + answer.retry_after
            await anyio.sleep(backoff(tries, self.first_delay))

    async def _wait_for_turn(self, host: str) -> None:
        """Wait until the time that the registry gave, for whichever image."""
        await anyio.sleep(max(0.0, self._not_before.get(host, 0.0) - anyio.current_time()))


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Run a short blocking function. On cancellation its thread is abandoned, and does not delay the process's exit."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if not result.done():
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]  # without an error there is a value

    def work() -> None:
        value, problem = None, None
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001  # raised again in the caller
            problem = error
        with suppress(RuntimeError):  # the loop is closed, and the caller gone
            loop.call_soon_threadsafe(settle, value, problem)

    threading.Thread(target=work, daemon=True).start()
    return await result
