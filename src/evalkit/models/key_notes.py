"""Notes about virtual keys, written before they are made: so that the keys of a killed evalkit can be deleted.

A note names the key by its alias, and holds no secret. Its owner keeps it locked, and the kernel releases the lock when
the owner ends, however it ends (https://man7.org/linux/man-pages/man2/flock.2.html). An unlocked note belongs to a key
that is no longer used.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class KeyNote:
    alias: str
    proxy: str
    ended: bool = False
    """Whether the key is certain to be gone."""


@contextmanager
def noted(folder: Path, alias: str, proxy: str) -> Iterator[KeyNote]:
    """Keep a note of a key that is about to be made. The note stays on disk as long as the key may exist."""
    note = KeyNote(alias, proxy)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{secrets.token_hex(8)}.json"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, json.dumps({"alias": alias, "proxy": proxy}).encode())
        yield note
    finally:
        if note.ended:
            _remove(path)
        os.close(fd)


def abandoned(folder: Path, proxy: str) -> Iterator[KeyNote]:
    """The notes about keys of this proxy whose owners have ended, each locked while the caller handles it."""
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            entry = json.load(file)
            note = KeyNote(str(entry["alias"]), str(entry["proxy"]))
            if note.proxy != proxy:
                continue
            yield note
            if note.ended:
                _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()
