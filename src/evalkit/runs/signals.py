"""Handles ^C and SIGTERM while a command works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from evalkit import console
from evalkit.errors import EvalkitError

Work = Callable[[], Coroutine[Any, Any, None]]


async def until_signal(work: Work, meanwhile: Work) -> int | None:
    """Do the work, with a second task beside it for as long as it lasts.

    The first signal cancels the work and is returned after the clean-up; the second one ends the process.
    """
    received: int | None = None
    problem: EvalkitError | None = None

    async def listen(scope: anyio.CancelScope) -> None:
        nonlocal received
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if received is not None:
                    os._exit(128 + number)
                received = int(number)
                console.say("stopping: what runs is cancelled, what finished is kept; once more to stop at once")
                scope.cancel()

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(listen, scope)
        tasks.start_soon(meanwhile)
        with scope:
            try:
                await work()
            except EvalkitError as error:
                problem = error  # raised outside of the group, which would wrap it
        tasks.cancel_scope.cancel()
    if problem is not None:
        raise problem
    return received
