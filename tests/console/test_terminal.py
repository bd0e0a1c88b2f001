from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from evalkit.console.terminal import StyledLine, Terminal
from tests.support.terminal import Screen


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    own, theirs = pty.openpty()
    termios.tcsetattr(theirs, termios.TCSANOW, _without_translation(theirs))
    os.set_blocking(theirs, False)
    os.set_blocking(own, False)
    yield own, theirs
    os.close(own)
    os.close(theirs)


def _without_translation(descriptor: int) -> list[Any]:
    modes = termios.tcgetattr(descriptor)
    modes[1] &= ~termios.OPOST
    return modes


def resize(descriptor: int, columns: int, lines: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def take(descriptor: int) -> str:
    content = b""
    while True:
        try:
            content += os.read(descriptor, 65536)
        except BlockingIOError:
            return content.decode().replace("\n", "\r\n")


def region(*texts: str) -> list[StyledLine]:
    return [StyledLine(text, len(text)) for text in texts]


def test_draws_in_place_and_prints_above(ends: tuple[int, int]) -> None:
    own, theirs = ends
    resize(theirs, 80, 24)
    terminal, screen = Terminal(theirs), Screen(80, 24)
    terminal.draw(region("one", "two", "three"))
    terminal.print("said")
    terminal.draw(region("1", "2"))
    screen.feed(take(own))
    assert screen.text == "said\n1\n2"
    terminal.end("done")
    screen.feed(take(own))
    assert screen.text == "said\ndone"
    assert screen.cursor_is_in_place


def test_finds_its_lines_again_when_a_narrower_window_wrapped_them(ends: tuple[int, int]) -> None:
    own, theirs = ends
    resize(theirs, 80, 24)
    terminal = Terminal(theirs)
    terminal.draw(region("a" * 75, "b" * 30, ""))
    take(own)
    resize(theirs, 40, 24)
    terminal.draw(region("new"))
    assert take(own).startswith("\r\x1b[4A"), "2 + 1 + 1 rows"


def test_a_terminal_that_does_not_read_is_not_waited_for(ends: tuple[int, int]) -> None:
    own, theirs = ends
    resize(theirs, 80, 24)
    terminal, screen = Terminal(theirs), Screen(80, 24)
    for number in range(3000):
        terminal.draw(region("x" * 70, f"frame {number}"))
    terminal.print("a message")
    for _ in range(5):
        screen.feed(take(own))
        terminal.draw(region("at last"))
    screen.feed(take(own))
    assert screen.text == "a message\nat last"


def test_a_terminal_that_is_gone_is_no_error() -> None:
    own, theirs = pty.openpty()
    terminal = Terminal(theirs)
    os.close(own)
    terminal.draw(region("x"))
    terminal.print("y")
    terminal.end("z")
    terminal.close()
