"""Shows a board where nothing can be drawn again in place."""

from __future__ import annotations

import time

import anyio

from evalkit import stderr
from evalkit.console.board import Board
from evalkit.console.text import counted, duration, printable

_HEARTBEAT_SECONDS = 30.0


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
