"""The view for people at a terminal.

The event loop draws it, by a timer and, since timers of a busy loop are late, at each event. So nothing changes while
it draws, and no thread outlives it. Drawing and measuring keep to a share of a core: where they take long, they happen
less often.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
import anyio.to_thread
from rich.console import Console
from rich.text import Text

from evalkit.console.formatting import printable
from evalkit.console.lines import describe_end
from evalkit.console.progress import Progress
from evalkit.console.render import frame
from evalkit.console.terminal import Captured, StyledLine, Terminal, taken_over
from evalkit.logs import logger
from evalkit.system import memory

_REFRESH_SECONDS = 0.5
_MEMORY_SECONDS = 2.0
_SHARE_OF_A_CORE = 0.01
_STYLING = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Live:
    def __init__(self, progress: Progress, terminal: Terminal, captured: Captured) -> None:
        self._board = progress
        self._terminal = terminal
        self._captured = captured
        self._console = Console(stderr=True, force_terminal=True, highlight=False)
        self._broken = False
        self._due = 0.0

    def say(self, line: str) -> None:
        self._terminal.print(printable(line, keep="\n\t") + "\n")

    def tell(self, line: str) -> None:
        pass

    async def keep_fresh(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_measuring)
            while True:
                self.changed()
                await anyio.sleep(max(0.0, self._due - time.monotonic()))

    def changed(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            began = time.thread_time()
            self.refresh()
            self._due = now + max(_REFRESH_SECONDS, (time.thread_time() - began) / _SHARE_OF_A_CORE)

    def refresh(self) -> None:
        if not self._broken:
            try:
                self._refresh()
            except Exception:  # noqa: BLE001  # an error in drawing must not stop the work
                logger.exception("the view cannot be drawn; the run goes on without it")
                self._broken = True

    def _refresh(self) -> None:
        others = self._captured.take()
        if others:
            self._terminal.print("\n".join(_flatten(line) for line in others.split("\n")[:-1]))
        columns, lines = self._terminal.size
        # A line that fills its row, or a region that fills the screen, would scroll it.
        self._terminal.draw(render(frame(self._board, columns - 1, lines - 1), self._console))

    def close(self) -> None:
        self._terminal.be_patient()
        for others in self._captured.rest():
            self._terminal.end("\n".join(_flatten(line) for line in others.split("\n")))
        self._terminal.end(describe_end(self._board))

    async def _keep_measuring(self) -> None:
        """Measure memory in a thread: with thousands of processes it takes a while."""
        limiter = anyio.CapacityLimiter(1)
        while True:
            self._board.memory, cost = await anyio.to_thread.run_sync(_measure, limiter=limiter)
            await anyio.sleep(max(_MEMORY_SECONDS, cost / _SHARE_OF_A_CORE))


def _measure() -> tuple[int, float]:
    began = time.thread_time()
    return memory.tree_memory(), time.thread_time() - began


def render(lines: Sequence[Text], console: Console) -> list[StyledLine]:
    with console.capture() as captured:
        console.print(*lines, sep="\n", no_wrap=True, overflow="ignore", crop=False, end="")
    contents = captured.get().split("\n")
    return [StyledLine(content, line.cell_len) for content, line in zip(contents, lines, strict=True)]


def _flatten(line: str) -> str:
    """A captured line without styling, and after a carriage return only its last part, as a terminal would show it."""
    return printable(_STYLING.sub("", line.rstrip("\r")).rpartition("\r")[2], keep="\t")


@contextmanager
def opened(progress: Progress) -> Iterator[Live]:
    with taken_over() as (terminal, captured):
        live = Live(progress, terminal, captured)
        try:
            yield live
        finally:
            live.close()
