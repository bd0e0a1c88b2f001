"""What the programs of an attempt reached by their allow-list, or tried to: a line of JSON each, in `network.jsonl`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit import masking
from evalkit.domain.protocols import Purpose
from evalkit.domain.results import timestamp
from evalkit.logs import logger

FILE = "network.jsonl"
_MOST_LINES = 5000

Reason = Literal["malformed", "not_listed", "not_public", "no_address", "unreachable"]
REFUSALS: tuple[Reason, ...] = ("malformed", "not_listed", "not_public")
"""Those reasons that are evalkit's own; the others are of the network."""


@dataclass(slots=True)
class NetworkLog:
    """The lines of one phase. A program may open connections without end, so their number is limited."""

    path: Path
    phase: Purpose
    most: int = _MOST_LINES
    _count: int = 0

    def add(self, host: str, port: int, *, up: int, down: int, reason: Reason | None) -> None:
        self._count += 1
        if self._count <= self.most:
            facts = {"host": host, "port": port, "bytes_up": up, "bytes_down": down}
            self._write({**facts, "refused": reason in REFUSALS, "reason": reason})

    def close(self) -> None:
        """Say how many connections have no line."""
        if self._count > self.most:
            self._write({"left_out": self._count - self.most})
        self._count = 0

    def _write(self, facts: dict[str, Any]) -> None:
        line = json.dumps({"at": timestamp(), "phase": self.phase, **facts})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(masking.mask(line) + "\n")
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.path, error)
