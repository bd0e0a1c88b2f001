"""Ways to show a board: in place on a terminal, as lines of a log, or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio

from evalkit.console import stderr
from evalkit.console.board import Board
from evalkit.console.text import counted, duration, printable

_HEARTBEAT_SECONDS = 30.0


class Display(Protocol):
    def say(self, line: str) -> None:
        """A line that everybody should see."""
        ...

    def tell(self, line: str) -> None:
        """What just happened, for those who do not see it on the board."""
        ...

    def changed(self) -> None:
        """The board is another one now."""
        ...

    async def keep_fresh(self) -> None:
        """Show the board again and again, until cancelled."""
        ...


class Silent:
    def say(self, line: str) -> None:
        stderr.write(printable(line, keep="\n\t") + "\n")

    def tell(self, line: str) -> None:
        pass

    def changed(self) -> None:
        pass

    async def keep_fresh(self) -> None:
        pass


class Lines:
    """For a log: one line for each thing that happens, and one from time to time if nothing does."""

    def __init__(self, board: Board, heartbeat: float = _HEARTBEAT_SECONDS) -> None:
        self._board = board
        self._heartbeat = heartbeat
        self._spoken = time.monotonic()

    def say(self, line: str) -> None:
        self._spoken = time.monotonic()
        stderr.write(printable(line, keep="\n\t") + "\n")

    def tell(self, line: str) -> None:
        self.say(printable(line))

    def changed(self) -> None:
        pass

    async def keep_fresh(self) -> None:
        while True:
            silent = time.monotonic() - self._spoken
            if silent >= self._heartbeat:
                self.tell(describe(self._board))
                silent = 0.0
            await anyio.sleep(self._heartbeat - silent)


def describe(board: Board) -> str:
    """A board in one line."""
    parts = [f"{board.done}/{board.total} {board.noun}s", counted(board.counts)]
    if board.under_way:
        oldest = next(iter(board.under_way.values()))
        age = duration(board.clock() - oldest.began)
        parts.append(f"{len(board.under_way)} running, the oldest for {age}: {oldest.label} ({oldest.stage})")
    if board.waiting:
        parts.append(f"{len(board.waiting)} waiting to be tried again")
    if board.held:
        parts.append(f"nothing new starts: {board.held}")
    return "; ".join(filter(None, parts))


def describe_end(board: Board) -> str:
    rest = board.total - board.done
    left = f", {rest} not done" if rest else ""
    return f"{board.done} of {board.total} {board.noun}s in {duration(board.seconds)}{left}"


@contextmanager
def open_display(board: Board, *, quiet: bool) -> Iterator[Display]:
    if quiet:
        yield Silent()
    elif stderr.is_terminal():
        from evalkit.console.live import opened  # noqa: PLC0415  # loads what draws

        with opened(board) as live:
            yield live
    else:
        lines = Lines(board)
        yield lines
        lines.tell(describe_end(board))
