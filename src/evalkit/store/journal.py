"""Makes the results of many tasks durable, without blocking the event loop on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from evalkit.domain.results import Result

_GATHERING_SECONDS = 0.003


@dataclass(slots=True, eq=False)
class _Batch:
    results: list[Result] = field(default_factory=list)
    is_taken: bool = False
    problem: Exception | None = None


class BatchingJournal:
    """Each task waits until its own result is durable; results that arrive almost together share one sync."""

    def __init__(self, write: Callable[[Sequence[Result]], None]) -> None:
        """`write` makes a batch durable, or raises StoreError and writes none of it. Each result is passed once."""
        self._write = write
        self._open = _Batch()
        self._turn = anyio.Lock(fast_acquire=True)
        self._threads = anyio.CapacityLimiter(1)  # its own limiter: never waits for other threads

    async def append(self, result: Result) -> None:
        """Write a result. Cancellation does not interrupt this: a result handed over is kept."""
        batch = self._open
        batch.results.append(result)
        with anyio.CancelScope(shield=True):
            async with self._turn:
                if not batch.is_taken:
                    await anyio.sleep(_GATHERING_SECONDS)
                    batch.is_taken = True
                    self._open = _Batch()
                    await self._write_all(batch)
        if batch.problem is not None:
            raise batch.problem

    async def _write_all(self, batch: _Batch) -> None:
        try:
            await anyio.to_thread.run_sync(self._write, batch.results, limiter=self._threads)
        except Exception as error:  # noqa: BLE001  # each task of the batch raises it
            batch.problem = error
