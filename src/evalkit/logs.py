"""Logging of a run: everything to run.log, and what belongs to an attempt to its agent.log too.

One handler for the whole process; a context variable, which tasks and worker threads inherit, says whose record it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from evalkit import __version__, masking
from evalkit.errors import EvalkitError

_attempt_log: ContextVar[Path | None] = ContextVar("attempt_log", default=None)
_FORMAT = "%(asctime)s %(levelname)s %(evalkit_attempt)s%(name)s %(message)s"

logger = logging.getLogger("evalkit")


class RoutedHandler(logging.Handler):
    """Appends each record to its files. Files are opened for a record only, so their number stays bounded."""

    def __init__(self, run_log: Path, say: Callable[[str], None] | None) -> None:
        super().__init__()
        self._run_log = run_log
        self._say = say
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        record.evalkit_attempt = _name_attempt()
        try:
            line = (masking.mask(self.format(record)) + "\n").encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001  # arguments are foreign objects, whose formatting must not fail the work
            line = f"unprintable log record from {record.pathname}:{record.lineno}\n".encode()
        for path in (self._run_log, _attempt_log.get()):
            if path is not None:
                _append(path, line)
        if self._say is not None and getattr(record, "for_people", False):
            self._say(f"evalkit: {masking.mask(record.getMessage())}")


def tell(message: str) -> None:
    """Log a warning that the person who started the command should see at once."""
    logger.warning("%s", message, extra={"for_people": True})


def _name_attempt() -> str:
    """The folders of instance and attempt, which tell the attempts apart in run.log."""
    log = _attempt_log.get()
    return f"{log.parent.parent.name} {log.parent.name} " if log else ""


def _append(path: Path, line: bytes) -> None:
    with suppress(OSError):  # a full disk stops the run through its results, not through its log
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


@contextmanager
def written_to(run_log: Path, level: int = logging.INFO, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Log to this file while the context lasts. `say` also shows what is meant for people."""
    handler = RoutedHandler(run_log, say)
    root = logging.getLogger()
    earlier = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield
    except Exception as error:
        if not isinstance(error, EvalkitError):
            logger.critical("evalkit %s: an internal error ends the run", __version__, exc_info=error)
        raise
    finally:
        root.removeHandler(handler)
        root.setLevel(earlier)


def route_to(attempt_log: Path) -> None:
    """Send what this task logs from now on, with its child tasks and threads, to this file too."""
    _attempt_log.set(attempt_log)
