"""How many bytes of requests are in memory at once: for each attempt, and for the run."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_REQUEST = 64 << 20
_OF_ATTEMPT = LARGEST_REQUEST
_OF_RUN = 256 << 20
_ALWAYS = 2 << 20


class TooMuchHeld(Exception):
    """There is no room for more now."""


@dataclass(slots=True)
class HeldBytes:
    """A limit and what is held of it, each a part of a whole, except for a first piece that nobody can take away.

    That piece is for attempts with requests of the usual size: others that hold all they can are not to stop them.
    """

    limit: int
    whole: HeldBytes | None = None
    always: int = 0
    held: int = 0

    def take(self, size: int) -> None:
        if self.held + size > self.limit:
            raise TooMuchHeld
        if self.whole is not None:
            self.whole.take(self._shared(self.held + size) - self._shared(self.held))
        self.held += size

    def give(self, size: int) -> None:
        self.held -= size
        if self.whole is not None:
            self.whole.give(self._shared(self.held + size) - self._shared(self.held))

    def _shared(self, size: int) -> int:
        return max(0, size - self.always)


def of_run() -> HeldBytes:
    return HeldBytes(_OF_RUN)


def of_attempt(run: HeldBytes) -> HeldBytes:
    return HeldBytes(_OF_ATTEMPT, run, _ALWAYS)
