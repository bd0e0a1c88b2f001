"""Limits on the bytes of requests in memory at once, for each attempt and for the run."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_REQUEST = 64 << 20
_OF_ATTEMPT = LARGEST_REQUEST
_OF_RUN = 256 << 20
_ALWAYS = 2 << 20


class TooMuchHeld(Exception):
    """The limit is reached for now."""


@dataclass(slots=True)
class HeldBytes:
    """A limit on held bytes. All but a first piece, reserved for the holder, also counts against the limit of `whole`.

    With the reserved piece, attempts with requests of the usual size go on even when others hold all they can.
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
