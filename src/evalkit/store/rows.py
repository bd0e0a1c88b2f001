"""Result lines: written whole or not at all, read one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from evalkit.domain.models import SCHEMA, Result, Row
from evalkit.store.lines import LineFile

_MOST_ATTEMPTS = 100_000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is not a row, and why."""

    file: str
    line: int
    reason: str


class _Versioned(Row, frozen=True, gc=False):
    schema: int = SCHEMA


_decode = msgspec.json.Decoder(_Versioned).decode


def encode_row(result: Result) -> bytes:
    # ASCII escapes keep any string storable, lone surrogates included.
    return json.dumps(result.model_dump(mode="json", by_alias=True), separators=(",", ":")).encode() + b"\n"


def parse_row(line: bytes) -> Row:
    """One result line; ValueError says why it is none."""
    try:
        row = _decode(line)
    except (ValueError, RecursionError):
        row = _parse_slowly(line)
    if row.schema > SCHEMA:
        raise ValueError(f"schema {row.schema} is newer than this evalkit reads ({SCHEMA})")
    if not 1 <= row.attempt <= _MOST_ATTEMPTS:
        raise ValueError(f"attempt {row.attempt} is out of range")
    return row


def _parse_slowly(line: bytes) -> _Versioned:
    """Like the fast parser, but takes the lone surrogates that ids of data sets may contain."""
    try:
        return msgspec.convert(json.loads(line, parse_float=_finite, parse_constant=_finite), _Versioned)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def read_rows(path: Path) -> Iterator[Row | Unreadable]:
    """All rows of a file, in order."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            if line == b"\n":
                continue
            try:
                yield parse_row(line)
            except ValueError as error:
                torn = not line.endswith(b"\n")
                reason = "the line is torn: its end was never written" if torn else str(error)
                yield Unreadable(str(path), number, reason)


class RowFile(LineFile):
    """The end of results.jsonl."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, parse_row)
