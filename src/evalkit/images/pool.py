"""Build workers: processes of their own, started new rather than forked, each replaced when it dies.

A worker has a pool to itself. The death of one breaks its pool, and no other.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path

import anyio

from evalkit.images import worker
from evalkit.images.spawn import WorkerContext
from evalkit.images.worker import BuildReport, Order
from evalkit.system import scratch

_BUILDS_PER_WORKER = 50


class WorkerDied(Exception):
    """The process that was at it is gone. Nobody else's work is lost."""


@dataclass(slots=True)
class Worker:
    """One worker, lent for one order."""

    executor: ProcessPoolExecutor
    is_alive: bool = True

    async def carry_out(self, order: Order) -> BuildReport:
        try:
            return await asyncio.wrap_future(self.executor.submit(worker.carry_out, order))
        except (BrokenProcessPool, OSError) as error:
            self.is_alive = False
            end_processes(f"{worker.JOB_VARIABLE}={order.job}")
            raise WorkerDied(f"the process that built it is gone: {error}") from error


@dataclass(slots=True)
class Pool:
    """As many workers as there is work for, up to a number."""

    size: int
    builds_per_worker: int
    _slots: anyio.Semaphore = field(init=False)
    _idle: list[ProcessPoolExecutor] = field(default_factory=list)
    _all: set[ProcessPoolExecutor] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.size)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        async with self._slots:
            lent = Worker(self._idle.pop() if self._idle else self._start())
            yield lent
            if lent.is_alive:
                self._idle.append(lent.executor)
            else:
                self._all.discard(lent.executor)
                lent.executor.shutdown(wait=False)

    def _start(self) -> ProcessPoolExecutor:
        executor = ProcessPoolExecutor(
            1, mp_context=WorkerContext(), initializer=worker.prepare, max_tasks_per_child=self.builds_per_worker
        )
        self._all.add(executor)
        return executor

    @property
    def is_busy(self) -> bool:
        return len(self._idle) < len(self._all)

    def close(self) -> None:
        for executor in self._all:
            executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def opened(size: int, token: Path, builds_per_worker: int = _BUILDS_PER_WORKER) -> Iterator[Pool]:
    """A pool whose workers, and all that these start, carry a token by which they are found. None outlives it."""
    resource_tracker.ensure_running()  # it belongs to this process, and not to the pool
    mark = f"{scratch.TOKEN_VARIABLE}={token.name}"
    earlier = os.environ.get(scratch.TOKEN_VARIABLE)
    os.environ[scratch.TOKEN_VARIABLE] = token.name
    pool = Pool(size, builds_per_worker)
    try:
        yield pool
    finally:
        if pool.is_busy:
            end_processes(mark)
        if earlier is None:
            del os.environ[scratch.TOKEN_VARIABLE]
        else:
            os.environ[scratch.TOKEN_VARIABLE] = earlier
        pool.close()


def end_processes(mark: str) -> None:
    """Kill all processes with this entry in their environment, and those they start meanwhile."""
    while found := scratch.processes_with(mark):
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
