"""Threads for short work on disks and processors, which none of them waits in for anything else."""

from __future__ import annotations

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
    """Call a function in a thread. The default limiter of anyio belongs to libraries, and to nobody in particular."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
