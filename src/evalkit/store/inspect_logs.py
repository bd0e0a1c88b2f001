"""Logs of Inspect: archives (.eval), which are zip files, and JSON. A sample is read whole only when it is asked for.

https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from evalkit.domain.json_values import (
    list_of,
    mapping_of,
    mappings_of,
    number_or_none,
    parse_leniently,
    text_of,
)
from evalkit.domain.results import UNKNOWN_USAGE, Failure, Outcome, Row, Usage
from evalkit.errors import UsageError
from evalkit.store.foreign_run import Entry, ForeignRun
from evalkit.system.installation import install_hint

SUFFIX = ".eval"
_HEADERS = ("header.json", "_journal/start.json")
_SUMMARIES = "summaries.json"
_LARGEST = 1 << 30
_KEPT_SAMPLES = 2
_ZSTANDARD = 93
_LOCAL_HEADER = 30
_LONGEST_FIELD = 100
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""The numbers that Inspect has for values which are words."""


def is_log(document: Mapping[str, Any]) -> bool:
    return isinstance(document.get("eval"), dict) and "status" in document and "version" in document


def read_folder(path: Path) -> ForeignRun | None:
    """The one log in a folder; None if there is none."""
    logs = sorted(path.glob(f"*{SUFFIX}"))
    require_one(path, logs)
    return read_archive(logs[0]) if logs else None


def require_one(folder: Path, logs: Sequence[Path]) -> None:
    if len(logs) > 1:
        raise UsageError(f"{folder} has {len(logs)} logs of Inspect", hint=f"name them one by one, like {logs[0]}")


def read_log(path: Path, document: Mapping[str, Any]) -> ForeignRun:
    return _read_run(path, document, mappings_of(document.get("samples")), _find_in_document)


def read_archive(path: Path) -> ForeignRun:
    """A log as an archive. Of one that did not end, what its journal has is read."""
    with _opened(path) as (members, read):
        header = next((name for name in _HEADERS if name in members), None)
        if header is None:
            raise UsageError(f"{path} is not a log of Inspect: it has no {_HEADERS[0]}")
        document = mapping_of(read(header))
        names = [_SUMMARIES] if _SUMMARIES in members else _journal(members)
        samples = [sample for name in names for sample in mappings_of(read(name))]
    return _read_run(path, document, samples, _find_in_archive)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Mapping[str, Any], Callable[[str], Any]]]:
    """The members of an archive, and what reads one of them. Raises UsageError where it cannot be read."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            yield members, lambda name: parse_leniently(_read_member(file, archive, members[name]))
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        # zipfile raises RuntimeError for a member with a password.
        raise UsageError(f"{path} cannot be read as a log of Inspect: {error}") from error


# The samples themselves, with messages and events. A page asks for one piece by piece, so the last ones are kept.

State = tuple[int, int]
"""The size of a log and the time of its last change, a part of what the caches go by."""
FindSample = Callable[[Path, State, str, int], Mapping[str, Any]]


def _read_sample(find: FindSample, path: Path, sample_id: str, epoch: int) -> Mapping[str, Any]:
    status = path.stat()
    return find(path, (status.st_size, status.st_mtime_ns), sample_id, epoch)


@lru_cache(_KEPT_SAMPLES)
def _find_in_archive(path: Path, state: State, sample_id: str, epoch: int) -> Mapping[str, Any]:  # noqa: ARG001  # a key
    with _opened(path) as (members, read):
        name = f"samples/{sample_id}_epoch_{epoch}.json"
        return mapping_of(read(name)) if name in members else {}


def _find_in_document(path: Path, state: State, sample_id: str, epoch: int) -> Mapping[str, Any]:
    return _samples_of(path, state).get((sample_id, epoch), {})


@lru_cache(1)
def _samples_of(path: Path, state: State) -> Mapping[tuple[str, int], Mapping[str, Any]]:  # noqa: ARG001  # a key
    samples = mappings_of(mapping_of(parse_leniently(path.read_bytes())).get("samples"))
    return {(text_of(sample.get("id")), _epoch_of(sample)): sample for sample in samples}


def _journal(members: Mapping[str, object]) -> list[str]:
    return sorted(name for name in members if name.startswith("_journal/summaries/"))


def _read_member(file: Any, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a member. Before Python 3.14, zipfile knows nothing of Zstandard, which Inspect uses."""
    if info.file_size > _LARGEST:
        raise ValueError(f"{info.filename} is larger than {_LARGEST >> 20} MB")
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return archive.read(info)
    if info.compress_type != _ZSTANDARD:
        raise ValueError(f"{info.filename} is compressed in a way that Inspect does not use")
    file.seek(info.header_offset)
    names = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:])
    file.seek(sum(names), 1)
    return _decompress(file.read(info.compress_size), info.file_size)


def _decompress(content: bytes, size: int) -> bytes:
    try:
        import zstandard  # an extra
    except ImportError as error:
        raise UsageError("reading .eval logs of Inspect needs zstandard", hint=install_hint("inspect")) from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(content) as stream:
            return stream.read(size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _read_run(
    path: Path, document: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], find: FindSample
) -> ForeignRun:
    about = mapping_of(document.get("eval"))
    config, dataset = mapping_of(about.get("config")), mapping_of(about.get("dataset"))
    headline = _headline(document)
    rows = [_row_of(sample, headline) for sample in samples]
    entries = [
        Entry(row, bytes, read_row=partial(_read_sample, find, path, row.instance_id, row.attempt)) for row in rows
    ]
    ids = [text_of(each) for each in list_of(dataset.get("sample_ids"))]
    words = (about.get("task"), about.get("solver"), about.get("model"))
    return ForeignRun(
        path,
        " ".join(text_of(word) for word in words if word),
        entries,
        fields=_fields_of(samples, list(dict.fromkeys([*(entry.row.instance_id for entry in entries), *ids]))),
        unfinished=ids,
        stop_on="never",
        attempts=max(1, int(number_or_none(config.get("epochs")) or 1)),
        tool="inspect",
    )


def _fields_of(samples: Iterable[Mapping[str, Any]], ids: Sequence[str]) -> dict[str, list[str]]:
    """The metadata of samples to group by: words and whole numbers, by the name that they have there."""
    told: dict[str, dict[str, str]] = {}
    for sample in samples:
        for name, value in mapping_of(sample.get("metadata")).items():
            if isinstance(value, str | int) and len(said := text_of(value)) <= _LONGEST_FIELD:
                told.setdefault(name, {}).setdefault(text_of(sample.get("id")), said)
    return {name: [values.get(each, "") for each in ids] for name, values in sorted(told.items())}


def _headline(document: Mapping[str, Any]) -> str:
    """The scorer whose value is the verdict: the one that Inspect shows first."""
    results = mapping_of(document.get("results"))
    scores, scorers = mappings_of(results.get("scores")), mappings_of(mapping_of(document.get("eval")).get("scorers"))
    named = [mapping_of(results.get("headline")).get("scorer"), *(each.get("scorer") for each in scores)]
    return next((text_of(each) for each in [*named, *(each.get("name") for each in scorers)] if each), "")


def _epoch_of(sample: Mapping[str, Any]) -> int:
    return max(1, int(number_or_none(sample.get("epoch")) or 1))


def _row_of(sample: Mapping[str, Any], headline: str) -> Row:
    numbers = {
        name: number
        for name, score in mapping_of(sample.get("scores")).items()
        if (number := number_of(mapping_of(score).get("value"))) is not None
    }
    error, limit = sample.get("error"), sample.get("limit")
    limited_by = text_of(mapping_of(limit).get("type")) if isinstance(limit, dict) else text_of(limit)
    failed = bool(error) and headline not in numbers
    score = None if failed else numbers.pop(headline, None)
    outcome: Outcome = "error" if failed else "timeout" if limited_by in ("time", "working") else "submitted"
    message = text_of(mapping_of(error).get("message")) if isinstance(error, dict) else text_of(error)
    return Row(
        instance_id=text_of(sample.get("id")),
        attempt=_epoch_of(sample),
        outcome=outcome,
        verdict="ungraded" if score is None else "resolved" if score >= 1.0 else "unresolved",
        score=score,
        failure=Failure(kind="workspace", stage="solve", message=message) if failed else None,
        metrics={} if failed else numbers,
        usage=_usage(mapping_of(sample.get("model_usage"))),
        seconds=number_or_none(sample.get("total_time")) or 0.0,
        accepted=not failed,
    )


def number_of(value: Any) -> float | None:
    """A value of a score as a number, as Inspect has it; None where it has parts, or is a word of the task's own."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return _VALUES.get(value, _VALUES.get(value.lower())) if not value[:1].isdigit() else float(value)
        except ValueError:
            return None
    return number_or_none(value)


def _usage(models: Mapping[str, Any]) -> Usage:
    usages = [mapping_of(each) for each in models.values()]
    if not usages:
        return UNKNOWN_USAGE

    def total(*keys: str) -> int:
        return int(sum(number_or_none(each.get(key)) or 0 for each in usages for key in keys))

    costs = [number_or_none(each.get("total_cost")) for each in usages]
    known = [cost for cost in costs if cost is not None]
    return Usage(
        input_tokens=total("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write"),
        cached_tokens=total("input_tokens_cache_read"),
        output_tokens=total("output_tokens"),
        reasoning_tokens=total("reasoning_tokens"),
        cost_usd=sum(known) if known and len(known) == len(costs) else None,
        known_cost_usd=sum(known),
    )
