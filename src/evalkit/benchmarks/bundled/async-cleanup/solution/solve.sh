#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace crew/pool.py 59 59 <<'END'
            turn = self._line.popleft()
            if not turn.done():
                turn.set_exception(PoolClosed())
END

replace crew/pool.py 50 53 <<'END'
        finally:
            await self.release(item)
END

replace crew/pool.py 40 42 <<'END'
        try:
            if self._reset is not None:
                resetting = asyncio.ensure_future(self._reset(item))
                await to_the_end([resetting])
                resetting.result()
        finally:
            self._give_on(item)
END

replace crew/pool.py 36 36 <<'END'
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.done() and turn.exception() is None:
                self._give_on(turn.result())
            raise
END

replace crew/pool.py 5 5 <<'END'
from contextlib import asynccontextmanager

from .waiting import to_the_end
END

cat >crew/runner.py <<'END'
"""Runs jobs with what a pool lends."""

import asyncio

from .waiting import to_the_end


async def run_all(pool, jobs):
    """The results of `await job(item)` for all *jobs*."""
    run = _Run(pool)
    run.tasks = [asyncio.ensure_future(run.one(job)) for job in jobs]
    try:
        if run.tasks:
            await asyncio.wait(run.tasks)
    finally:
        run.stop()
        await to_the_end(run.tasks)
    if run.failures:
        raise run.failures[0]
    return [task.result() for task in run.tasks]


class _Run:
    """The jobs of one `run_all`."""

    def __init__(self, pool):
        self.pool = pool
        self.tasks = []
        self.failures = []
        self.stopped = False

    async def one(self, job):
        try:
            async with self.pool.lease() as item:
                try:
                    return await job(item)
                except Exception as error:
                    self.fail(error)  # before the item goes to a job that must not begin any more
                    raise
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error):
        if error not in self.failures:
            self.failures.append(error)
        self.stop()

    def stop(self):
        """Cancel all jobs, once: their clean-up must not be disturbed."""
        if not self.stopped:
            self.stopped = True
            for task in self.tasks:
                if task is not asyncio.current_task():
                    task.cancel()
END

cat >crew/waiting.py <<'END'
"""Waiting that cannot be cut short."""

import asyncio


async def to_the_end(tasks):
    """Wait until all *tasks* have ended. If the waiting task is cancelled meanwhile, that comes out afterwards."""
    cancelled = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # has been seen: the loop need not complain about it
    if cancelled is not None:
        raise cancelled
END
