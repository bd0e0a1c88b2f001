"""Passes the events of image builds on to a display."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from evalkit.console.display import Display
from evalkit.console.formatting import duration
from evalkit.console.progress import Progress

_LOOK_SECONDS = 5.0
_QUIET_SECONDS = 30.0
_SLOWEST = 3


def new_progress() -> Progress:
    return Progress("image", ["built", "skipped", "failed"])


class ImageProgress:
    """The observer of builds. It shows a build as quiet when its log has not grown for a while."""

    def __init__(self, progress: Progress, display: Display, log_of: Callable[[str], Path]) -> None:
        self._board = progress
        self._display = display
        self._log_of = log_of
        self._slowest: list[tuple[float, str]] = []

    async def keep_fresh(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._display.keep_fresh)
            while True:
                await anyio.sleep(_LOOK_SECONDS)
                self._notice_silence()

    def expect(self, count: int) -> None:
        self._board.expect(count)

    def entered(self, name: str, stage: str) -> None:
        self._board.enter(name, name, stage)
        self._display.changed()

    def left(self, name: str) -> None:
        self._board.leave(name)
        self._display.changed()

    def retrying(self, tag: str, problem: str, delay: float) -> None:
        self._board.wait(tag)
        self._display.changed()
        self._display.tell(f"{tag} {problem}; again in {delay:.1f} s")

    def finished(self, name: str, status: str, seconds: float, problem: str | None) -> None:
        self._board.end(name, status)
        why = f" ({problem})" if problem else ""
        if problem:
            self._board.last_problem = f"{name}{why}"
        if status == "built":
            self._slowest = heapq.nlargest(_SLOWEST, [*self._slowest, (seconds, name)])
            self._board.slowest = ", ".join(f"{name} {duration(seconds)}" for seconds, name in self._slowest)
        self._display.changed()
        self._display.tell(f"[{self._board.done}/{self._board.total}] {name} {status} {seconds:.1f} s{why}")

    def tell_slowest(self) -> None:
        if self._board.slowest:
            self._display.tell(f"slowest: {self._board.slowest}")

    def _notice_silence(self) -> None:
        for name, item in self._board.under_way.items():
            stage = item.stage.partition(",")[0]
            try:
                silence = time.time() - self._log_of(str(name)).stat().st_mtime
            except OSError:
                silence = 0.0
            item.stage = f"{stage}, quiet for {duration(silence)}" if silence >= _QUIET_SECONDS else stage
