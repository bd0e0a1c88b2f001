"""Scripts of what a fake does at each call for an instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

Hook = Callable[..., Awaitable[None]]
"""An action in place of a call. It is awaited with the arguments of the call."""


class Script(Generic[T]):
    """The n-th step at the n-th call for an instance, and its last one from then on; the default where none is set."""

    def __init__(self, default: T, steps: Mapping[str, Sequence[T]] | None = None) -> None:
        self._default = default
        self._steps = dict(steps or {})
        self.calls: Counter[str] = Counter()
        """The number of calls for each instance."""

    def next(self, instance_id: str) -> T:
        steps = self._steps.get(instance_id) or (self._default,)
        step = steps[min(self.calls[instance_id], len(steps) - 1)]
        self.calls[instance_id] += 1
        return step


async def proceed(*_given: object) -> None:
    """Do nothing, so that the fake behaves as usual."""


def sleep(seconds: float) -> Hook:
    async def wait(*_given: object) -> None:
        await anyio.sleep(seconds)

    return wait


def hang() -> Hook:
    """Wait until cancelled."""

    async def wait(*_given: object) -> None:
        await anyio.sleep_forever()

    return wait


def fail(error: BaseException) -> Hook:
    async def raise_it(*_given: object) -> None:
        raise error

    return raise_it
