"""Reads the engine's list of changed files as it comes: whoever works in a container can make it very long."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

LARGEST_LIST = 256 << 20
MOST_PATHS = 1000
_PATH = re.compile(rb'"Path"\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_LONGEST_ENTRY = 1 << 16
_END = re.compile(rb'[^"]*("Kind"\s*:\s*\d+\s*)?\}\s*\]\s*|\s*(null|\[\s*\])\s*')


@dataclass(slots=True)
class PathReader:
    """Takes the list in pieces of any size, and keeps no more than one entry."""

    size: int = 0
    _rest: bytes = b""

    def feed(self, block: bytes) -> Iterator[str]:
        self.size += len(block)
        text = self._rest + block
        end = 0
        for found in _PATH.finditer(text):
            end = found.end()
            yield json.loads(found[1])
        self._rest = text[end:][-_LONGEST_ENTRY:]

    @property
    def has_ended(self) -> bool:
        """Whether the list is there to its end."""
        return _END.fullmatch(self._rest) is not None
