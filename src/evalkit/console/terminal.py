"""A terminal whose last lines are redrawn in place. Nothing else in this process writes to it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, NamedTuple

from evalkit import stderr, stdout

_UP, _ERASE_LINE, _ERASE_BELOW = "\x1b[{}A", "\x1b[K", "\x1b[J"
_DEFAULT_SIZE = os.terminal_size((80, 24))
_MOST_PENDING = 1 << 20
_MOST_CAPTURED = 1 << 18
_LAST_WORDS_SECONDS = 1.0


class StyledLine(NamedTuple):
    """One line with its escape sequences, and its width in columns."""

    content: str
    columns: int


class Terminal:
    """Writes to a terminal and never waits for it: one that is stopped, or far away and cut off, misses some frames.

    The cursor rests below the region and is never hidden, so however this process ends, there is nothing to restore.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._drawn: Sequence[StyledLine] = ()
        self._pending = b""
        self._patience = 0.0

    @property
    def size(self) -> os.terminal_size:
        with suppress(OSError):
            size = os.get_terminal_size(self._descriptor)
            if size.columns and size.lines:
                return size
        return _DEFAULT_SIZE

    def draw(self, lines: Sequence[StyledLine]) -> None:
        """Put these lines in place of the region."""
        self._flush()
        if not self._pending and not self._in_background():
            self._replace("", lines)

    def print(self, text: str) -> None:
        """Put text above the region, for good."""
        self._replace(text, () if self._in_background() else self._drawn)

    def end(self, text: str) -> None:
        """Put text in place of the region, for good."""
        self._replace(text, ())

    def _replace(self, text: str, lines: Sequence[StyledLine]) -> None:
        # Overwrite, do not erase first: that flickers, and tmux keeps an erased full screen in its history.
        rows = (*text.splitlines(), *(line.content for line in lines))
        text = self._back() + "".join(f"{row}{_ERASE_LINE}\n" for row in rows) + _ERASE_BELOW
        self._drawn = lines  # before the write: a process stopped in between has to forget this region, not the last
        self._write(text)

    def forget(self) -> None:
        """Leave the screen as it is, since others have written to it, and begin a new region below."""
        self._drawn = ()

    def be_patient(self) -> None:
        """Wait a moment for a slow terminal from now on: it is the end, and nothing else is left to do."""
        self._patience = _LAST_WORDS_SECONDS

    def close(self) -> None:
        os.close(self._descriptor)

    def _back(self) -> str:
        """The escape sequence back to the region's first line. In a narrower window its lines have wrapped."""
        columns = self.size.columns
        rows = sum(max(1, -(-line.columns // columns)) for line in self._drawn)
        return "\r" + (_UP.format(rows) if rows else "")

    def _in_background(self) -> bool:
        try:
            in_background = os.tcgetpgrp(self._descriptor) != os.getpgrp()
        except OSError:  # not our controlling terminal, so job control does not stop us
            return False
        if in_background:
            self.forget()
        return in_background

    def _write(self, text: str) -> None:
        if len(self._pending) < _MOST_PENDING:
            self._pending += text.encode(stderr.encoding(), "replace")
        self._flush()

    def _flush(self) -> None:
        try:
            while self._pending and self._is_ready():
                self._pending = self._pending[os.write(self._descriptor, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""

    def _is_ready(self) -> bool:
        return bool(select.select([], [self._descriptor], [], self._patience)[1])


class Captured:
    """Output to standard error from the rest of this process and its children."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read = 0

    def take(self) -> str:
        """New complete lines."""
        size = os.fstat(self._file.fileno()).st_size
        if size == self._read:
            return ""
        content = os.pread(self._file.fileno(), _MOST_CAPTURED, self._read)
        end = content.rfind(b"\n") + 1 or (len(content) if len(content) == _MOST_CAPTURED else 0)
        self._read += end
        return content[:end].decode("utf-8", "replace")

    def rest(self) -> Iterator[str]:
        while content := os.pread(self._file.fileno(), _MOST_CAPTURED, self._read):
            self._read += len(content)
            yield content.decode("utf-8", "replace")


@contextmanager
def taken_over() -> Iterator[tuple[Terminal, Captured]]:
    """Take the terminal over: standard error, and standard output where it leads there, go to a file meanwhile."""
    with ExitStack() as stack:
        terminal = Terminal(_open_anew())
        stack.callback(terminal.close)
        stack.enter_context(_noticing_return(terminal))
        file = stack.enter_context(tempfile.TemporaryFile())
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
        captured = Captured(file)
        for descriptor in (stderr.STDERR, *((stderr.STDOUT,) if stdout.is_claimed() else ())):
            stack.enter_context(_leading_to(file.fileno(), descriptor))
        yield terminal, captured


def _open_anew() -> int:
    """Open the terminal anew, since O_NONBLOCK would affect all processes that share our open file description.

    https://man7.org/linux/man-pages/man2/open.2.html
    """
    try:
        return os.open(f"/proc/self/fd/{stderr.STDERR}", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return os.dup(stderr.STDERR)


@contextmanager
def _leading_to(target: int, descriptor: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextmanager
def _noticing_return(terminal: Terminal) -> Iterator[None]:
    """After ^Z and fg, the shell has written below the region."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGCONT, lambda _number, _frame: terminal.forget())
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, earlier)
