"""Build workers: spawned processes, each replaced when it dies or has carried out its share of orders."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import anyio

from evalkit.images import worker
from evalkit.images.worker import BuildReport, Order
from evalkit.system import scratch

_ORDERS_PER_WORKER = 50
# A forked process inherits locks held by threads of this one, and has no thread to release them:
# https://man7.org/linux/man-pages/man2/fork.2.html
_SPAWN = get_context("spawn")


class WorkerDied(Exception):
    """The process that carried out an order died. Orders of other workers are not affected."""


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process, lent for one order at a time."""

    process: SpawnProcess
    connection: Connection
    orders: int = 0
    is_alive: bool = True

    async def carry_out(self, order: Order) -> BuildReport:
        """Carry out an order. If it does not finish, the worker and everything that it started are ended."""
        try:
            self.connection.send(order)
            await anyio.wait_readable(self.connection)
            report: BuildReport = self.connection.recv()
        except BaseException as error:
            self.end()
            end_processes(f"{worker.JOB_VARIABLE}={order.job}")
            if is_end_of_worker(error):
                raise WorkerDied("the process that built it is gone") from error
            raise
        self.orders += 1
        return report

    def end(self) -> None:
        if self.is_alive:
            self.is_alive = False
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process.close()


@dataclass(slots=True)
class Pool:
    """Workers, started on demand up to a limit."""

    size: int
    token: str
    orders_per_worker: int = _ORDERS_PER_WORKER
    _slots: anyio.Semaphore = field(init=False)
    _idle: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.size)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        async with self._slots:
            lent = self._idle.pop() if self._idle else start_worker(self.token)
            try:
                yield lent
            finally:
                if lent.is_alive and lent.orders < self.orders_per_worker:
                    self._idle.append(lent)
                else:
                    lent.end()

    def close(self) -> None:
        for idle in self._idle:
            idle.end()
        # A killed worker may have left a command that had not been marked with its job yet.
        end_processes(f"{scratch.TOKEN_VARIABLE}={self.token}")


@contextmanager
def opened(size: int, token: Path, *, orders_per_worker: int = _ORDERS_PER_WORKER) -> Iterator[Pool]:
    """A pool whose workers and their children carry a token in their environment. None of them outlives it."""
    pool = Pool(size, token.name, orders_per_worker)
    try:
        yield pool
    finally:
        pool.close()


def is_end_of_worker(error: BaseException) -> bool:
    """Whether the other end of the connection is closed. Within a message, that is an OSError without a number:

    https://github.com/python/cpython/blob/main/Lib/multiprocessing/connection.py (Connection._recv)
    """
    return isinstance(error, EOFError | ConnectionError) or (isinstance(error, OSError) and error.errno is None)


def start_worker(token: str) -> Worker:
    resource_tracker.ensure_running()  # multiprocessing has one for this process: it must not carry the token
    ours, theirs = _SPAWN.Pipe()
    try:
        process = _SPAWN.Process(target=worker.serve, args=(theirs,), daemon=True)
        with _marked(token), _without_main_module():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Worker(process, ours)


@contextmanager
def _marked(token: str) -> Iterator[None]:
    """Give processes started in this context the token in their environment."""
    earlier = os.environ.get(scratch.TOKEN_VARIABLE)
    os.environ[scratch.TOKEN_VARIABLE] = token
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[scratch.TOKEN_VARIABLE]
        else:
            os.environ[scratch.TOKEN_VARIABLE] = earlier


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Spare spawned processes the import of their parent's main module, which here is the whole command line.

    https://docs.python.org/3/library/multiprocessing.html#the-spawn-and-forkserver-start-methods
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_processes(mark: str) -> None:
    """Kill all processes with this entry in their environment, and those that they start in the meantime."""
    while found := scratch.processes_with(mark):
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
