"""Addresses of Unix sockets, which have at most 107 bytes: https://man7.org/linux/man-pages/man7/unix.7.html."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_ADDRESS = 107


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """An address for the socket at a path of any length: a long one goes by a descriptor of its folder."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
