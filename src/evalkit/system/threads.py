"""Threads for short work on disk or CPU that waits for nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

T = TypeVar("T")
_AT_ONCE = max(8, 2 * (os.cpu_count() or 1))
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("_limiter")


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a thread. It has its own limiter, since libraries may fill anyio's default one."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _limiter.set(limiter)
    return await call(function, *arguments, limiter=limiter)


async def call(function: Callable[..., T], *arguments: object, limiter: anyio.CapacityLimiter) -> T:
    """Call a function in a thread. Where none can be started, raise OSError as for a process, not a RuntimeError."""
    has_begun = False

    def work() -> T:
        nonlocal has_begun
        has_begun = True
        return function(*arguments)

    try:
        return await anyio.to_thread.run_sync(work, limiter=limiter)
    except RuntimeError as error:
        if has_begun:
            raise
        raise OSError(errno.EAGAIN, "no thread can be started") from error
