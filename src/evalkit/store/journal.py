"""Makes the results of many tasks durable, and the loop that they run on never waits for the disk."""

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
    """Each task waits until its own result is durable; results that come at about the same time share one sync."""

    def __init__(self, write: Callable[[Sequence[Result]], None]) -> None:
        """`write` makes all of them durable, or raises StoreError and none of them is. It is called once for each."""
        self._write = write
        self._open = _Batch()
        self._turn = anyio.Lock(fast_acquire=True)
        self._threads = anyio.CapacityLimiter(1)  # never behind what others do in threads

    async def append(self, result: Result) -> None:
        """Not cut short by a cancellation: a result that is handed over is kept."""
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
        except Exception as error:  # noqa: BLE001  # whatever it is, each task of the batch has to hear it
            batch.problem = error
