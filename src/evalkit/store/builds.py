"""One build folder on disk: a line with the outcome of each image, and the logs of their builds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalkit.domain.json_values import parse
from evalkit.errors import StoreError
from evalkit.store import manifest as manifests
from evalkit.store.durable import LineFile, exclusive

MANIFEST = "manifest.jsonl"
_LOCK = "build.lock"


class BuildDirectory:
    """A build folder. One process at a time writes to it, and later commands of the same name continue it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: LineFile | None = None

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log_of(self, tag: str) -> Path:
        return self.logs / f"{tag.rpartition(':')[2]}.log"

    @contextmanager
    def writing(self) -> Iterator[None]:
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the build folder {self.logs}: {error.strerror}") from error
        with exclusive(self.path / _LOCK, hint="wait for it to end, or stop it"):
            try:
                self._rows = LineFile(self.path / MANIFEST, parse)
            except OSError as error:
                raise StoreError(f"cannot open {self.path / MANIFEST}: {error.strerror}") from error
            manifests.sync_folder(self.path)
            try:
                yield
            finally:
                self._rows.close()
                self._rows = None

    def append(self, row: Mapping[str, Any]) -> None:
        assert self._rows is not None, "append outside of writing()"
        self._rows.append(json.dumps(row, separators=(",", ":")).encode() + b"\n")
