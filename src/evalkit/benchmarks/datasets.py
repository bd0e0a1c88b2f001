"""Reads rows of data sets: from parquet, JSON lines or JSON files, a directory of such files, or a name on the hub.

Rows are read one at a time, with all columns. Each library is imported only where a format needs it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import DatasetError
from evalkit.system.installation import install_hint

_SUFFIXES = (".parquet", ".jsonl", ".json")
_SPLITS = ("train", "validation", "val", "dev", "test")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One row of a data set, and its place."""

    values: dict[str, Any]
    where: str
    source: str
    folder: Path = Path()
    """The folder of files that belong to the row."""

    @property
    def digest(self) -> str:
        """A hash of all columns: another one when anything about the row changes."""
        text = json.dumps(self.values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self, column: str) -> str:
        """A required column, as text."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value:
            there = "is missing" if value in (None, "") else f"is {type(value).__name__}, not text"
            raise DatasetError(f"{self.where}: {column} {there}", hint=f"the columns are: {', '.join(self.values)}")
        return value


def read_rows(dataset: str, split: str, *, attachments: bool = False) -> Iterator[DatasetRow]:
    """The rows of a split. `dataset` is a path, or a name on the hub, optionally with @revision.

    With attachments, files beside the rows are fetched from the hub too.
    """
    path = Path(dataset).expanduser()
    if path.exists():
        yield from _read_place(path, split, str(path))
    elif _HUB_NAME.fullmatch(dataset) and not path.suffix.endswith(_SUFFIXES):
        name = dataset.partition("@")[0]
        folder = _download(dataset, split, "*" if attachments else "")
        yield from _read_place(folder, split, f"{name}@{folder.name}")
    else:
        raise DatasetError(
            f"there is no data set {dataset}",
            hint="name a .parquet, .jsonl or .json file, a directory of them, or a data set of the hub like owner/name",
        )


def _read_place(path: Path, split: str, source: str) -> Iterator[DatasetRow]:
    for file in _find_files(path, split) if path.is_dir() else [path]:
        for where, values in _read_file(file):
            if not isinstance(values, dict):
                raise DatasetError(f"{where}: a row is an object, this is {type(values).__name__}")
            yield DatasetRow(values, where, source, file.parent)


def _read_file(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        match path.suffix:
            case ".parquet":
                yield from _read_parquet(path)
            case ".jsonl":
                yield from _read_lines(path)
            case ".json":
                yield from _read_json(path)
            case _:
                raise DatasetError(f"{path}: a data set is a .parquet, .jsonl or .json file, or a directory of them")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, _parse(line, where)


def _read_json(path: Path) -> Iterator[tuple[str, Any]]:
    document = _parse(path.read_bytes(), str(path))
    if isinstance(document, dict) and all(isinstance(row, dict) for row in document.values()):
        document = list(document.values())
    if not isinstance(document, list):
        raise DatasetError(f"{path}: a list of rows is needed, or an object of rows by id")
    for number, row in enumerate(document, start=1):
        yield f"{path}, row {number}", row


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DatasetError(f"{where}: not JSON: {error.msg} ({place}column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: not JSON: {error}") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow  # an extra, and slow to import
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            f"{path}: reading parquet needs pyarrow", hint=f"install it with: {install_hint('parquet')}"
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # parquet does not check that text is UTF-8
        raise DatasetError(f"{path}, after row {number}: not readable as parquet: {error}") from error


def _find_files(folder: Path, split: str) -> Sequence[Path]:
    """The files of a split, by the hub's names: test.parquet, data/test-00000-of-00002.parquet.

    https://huggingface.co/docs/hub/datasets-file-names-and-splits
    """
    there = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    found = [path for path in there if _split_of(path) == split]
    if not found and len(there) == 1 and _split_of(there[0]) not in _SPLITS:
        found = there
    if found:
        return _one_format(found)
    names = ", ".join(str(path.relative_to(folder)) for path in there[:10]) or "nothing of the kind"
    raise DatasetError(
        f"{folder} has no split {split!r}",
        hint=f"name another with --split; a split is a file like {split}.parquet, and there is: {names}",
    )


def _split_of(path: Path) -> str:
    return path.parent.name if path.stem == "metadata" else path.stem.partition("-")[0]


def _one_format(paths: Iterable[Path]) -> list[Path]:
    """Choose one format for a data set that comes in several."""
    paths = list(paths)
    for suffix in _SUFFIXES:
        if chosen := [path for path in paths if path.suffix == suffix]:
            return chosen
    return paths


def _download(dataset: str, split: str, others: str) -> Path:
    """The snapshot of a data set of the hub, in the hub's own cache. Its folder is named after the exact revision."""
    try:
        from huggingface_hub import errors, snapshot_download  # an extra, and slow to import
    except ImportError as error:
        raise DatasetError(
            f"there is no file {dataset}, and data sets of the hub need huggingface_hub",
            hint=f"install it with: {install_hint('hub')}; or name a local file",
        ) from error
    name, _, revision = dataset.partition("@")
    patterns = [f"*{split}*{suffix}" for suffix in (*_SUFFIXES, *others)]
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise DatasetError(
            f"{name} is gated: the hub refuses it to you",
            hint=f"ask for access at https://huggingface.co/datasets/{name}, and set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DatasetError(
            f"there is neither a file {dataset} nor a data set of that name on the hub",
            hint="check the name; for a private one set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DatasetError(f"{name} has no revision {revision!r} on the hub") from error
    except Exception as error:  # its HTTP library raises errors of its own
        raise DatasetError(
            f"{name} cannot be fetched from the hub: {type(error).__name__}: {error}".splitlines()[0],
            hint="check the network, or name a local file",
        ) from error
