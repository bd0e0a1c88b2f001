"""Resources that a machine can run out of while images are built. No image is at fault, and a later call may work."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from evalkit.domain.failures import unwrap
from evalkit.errors import EvalkitError

_DISK = ("no room is left on a disk", "make room where temporary files and images.build_dir are")
_FILES = ("no more files can be opened", "raise the limit (ulimit -n), or lower images.workers")
_REASONS = {
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    # fork(2) fails with EAGAIN at the process limit of a user or cgroup:
    # https://man7.org/linux/man-pages/man2/fork.2.html
    errno.EAGAIN: ("no more processes can be started", "raise the limit (ulimit -u, pids.max), lower images.workers"),
    errno.ENOMEM: ("no memory is left", "lower images.workers"),
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
}


class Shortage(EvalkitError):
    """The machine lacks a resource that the rest of the images need."""


def find_shortage(number: int | None) -> Shortage | None:
    """The resource that the system lacks, by the number of its error."""
    if number not in _REASONS:
        return None
    message, hint = _REASONS[number]
    return Shortage(message, hint=f"{hint}; then run the same command again, it skips what exists")


def shortage_behind(error: BaseException) -> Shortage | None:
    """The shortage that caused an error, if one did."""
    cause: BaseException | None = unwrap(error)
    while cause is not None:
        # CPython has no type for a thread that cannot be started.
        if isinstance(cause, RuntimeError) and cause.args == ("can't start new thread",):
            return find_shortage(errno.EAGAIN)
        if isinstance(cause, OSError) and (found := find_shortage(cause.errno)):
            return found
        cause = cause.__cause__
    return None


@contextmanager
def named() -> Iterator[None]:
    """Raise errors that were caused by a shortage as Shortage."""
    try:
        yield
    except EvalkitError:
        raise
    except Exception as error:
        if (shortage := shortage_behind(error)) is None:
            raise
        raise shortage from error
