"""Shows a fetch: one line that is written over on a terminal, and elsewhere a line for each step."""

from __future__ import annotations

from evalkit import stderr
from evalkit.console.formatting import printable

_ERASE = "\r\x1b[K"


class FetchLine:
    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._on_terminal = stderr.is_terminal()
        self._said = ""

    def tell(self, step: str) -> None:
        """Take note of a step like `receiving objects 40%`."""
        words = printable(step)
        if self._quiet:
            return
        if self._on_terminal:
            stderr.write(f"{_ERASE}{words[: stderr.columns() - 1]}")
            self._said = words
        elif (name := words.rpartition(" ")[0] if words.endswith("%") else words) != self._said:
            stderr.write(f"{name}\n")
            self._said = name

    def end(self) -> None:
        if self._on_terminal and self._said:
            stderr.write(_ERASE)
