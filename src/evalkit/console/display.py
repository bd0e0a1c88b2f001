"""Ways to show a progress: in place on a terminal, as lines of a log, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from evalkit import stderr
from evalkit.console.formatting import printable
from evalkit.console.lines import Lines, describe_end
from evalkit.console.progress import Progress


class Display(Protocol):
    def say(self, line: str) -> None:
        """A line that everybody should see."""
        ...

    def tell(self, line: str) -> None:
        """Report an event, where the display does not show the progress itself."""
        ...

    def changed(self) -> None:
        """Take note that the progress has changed."""
        ...

    async def keep_fresh(self) -> None:
        """Refresh the progress until cancelled."""
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


@contextmanager
def open_display(progress: Progress, *, quiet: bool) -> Iterator[Display]:
    if quiet:
        yield Silent()
    elif stderr.is_terminal():
        from evalkit.console.live import opened  # loads the drawing code

        with opened(progress) as live:
            yield live
    else:
        lines = Lines(progress)
        yield lines
        lines.tell(describe_end(progress))
