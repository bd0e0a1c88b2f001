"""Result lines: any result survives storing, and no crash or foreign line costs another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.domain.planning import Ledger
from evalkit.domain.records import Failure, Patch, Usage
from evalkit.domain.results import Row
from evalkit.store.rows import RowFile, Unreadable, encode_row, parse_row, read_rows
from tests.support.runs import make_result

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20).filter(
    lambda text: json.loads(json.dumps(text)) == text  # a split pair of surrogates is one character to JSON
)


@given(
    ANY_TEXT,
    st.integers(1, 1000),
    ANY_TEXT,
    ANY_TEXT,
    st.one_of(st.none(), st.floats(0, 1e9)),
    st.floats(0, 1e9),
)
def test_a_row_comes_back_as_it_was_stored(
    instance_id: str, attempt: int, message: str, path: str, cost: float | None, seconds: float
) -> None:
    result = make_result(
        instance_id,
        attempt,
        outcome="error",
        verdict="ungraded",
        failure=Failure(kind="agent", message=message, stage="solve"),
        patch=Patch(sha256="0", bytes=3, path=path),
        usage=Usage(cost_usd=cost),
        seconds=seconds,
    )
    line = encode_row(result)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    row = parse_row(line)
    assert (row.instance_id, row.attempt, row.outcome) == (instance_id, attempt, "error")
    assert row.patch is not None
    assert row.patch.path == path
    assert (row.usage.cost_usd, row.seconds) == (cost, seconds)
    assert row.failure is not None
    assert row.failure.kind == "agent"


ROW = encode_row(make_result())
LINES = st.one_of(
    st.sampled_from("abc").flatmap(lambda name: st.integers(1, 2).map(lambda n: encode_row(make_result(name, n)))),
    st.binary(max_size=20).map(lambda junk: junk.replace(b"\n", b" ") + b"\n"),
    st.just(b"\n"),
    st.just(ROW.replace(b'"schema":1', b'"schema":2')),
)


def is_row(line: bytes) -> bool:
    try:
        parse_row(line)
    except ValueError:
        return False
    return True


@given(st.lists(LINES, max_size=8), st.integers(0, 400), st.booleans())
def test_a_crash_costs_at_most_the_row_that_was_being_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], torn: int, twice: bool
) -> None:
    """Whatever the file holds, and wherever the last write stopped, earlier rows stand and a later one is read."""
    path = tmp_path_factory.mktemp("rows") / "results.jsonl"
    path.write_bytes(b"".join(lines) + ROW[:torn])
    expected = [parse_row(line) for line in lines if is_row(line)] + ([parse_row(ROW)] if torn >= len(ROW) - 1 else [])
    assert [row for row in read_rows(path) if isinstance(row, Row)] == expected
    for _ in range(1 + twice):
        file = RowFile(path)
        file.append(encode_row(make_result("later")))
        file.close()
    found = list(read_rows(path))
    later = parse_row(encode_row(make_result("later")))
    assert [row for row in found if isinstance(row, Row)] == expected + [later] * (1 + twice)
    strange = [line for line in lines if line != b"\n" and not is_row(line)]
    assert len([row for row in found if isinstance(row, Unreadable)]) == len(strange)
    assert path.read_bytes().endswith(b"\n")


@given(st.integers(0, len(ROW)))
def test_what_is_pending_after_a_crash_is_exact(tmp_path_factory: pytest.TempPathFactory, torn: int) -> None:
    path = tmp_path_factory.mktemp("rows") / "results.jsonl"
    path.write_bytes(encode_row(make_result("b")) + ROW[:torn])
    ledger = Ledger.of(["a", "b", "c"])
    for row in read_rows(path):
        if isinstance(row, Row):
            ledger.record(row)
    whole = torn >= len(ROW) - 1
    pending = [name for name, standing in ledger.standings.items() if standing.bucket == "incomplete"]
    assert pending == (["c"] if whole else ["a", "c"])


def test_unreadable_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(ROW + b"junk\n" + ROW[:50])
    first, junk, torn = read_rows(path)
    assert isinstance(first, Row)
    assert isinstance(junk, Unreadable)
    assert (junk.file, junk.line) == (str(path), 2)
    assert isinstance(torn, Unreadable)
    assert "torn" in torn.reason


def test_a_row_stays_small_whatever_failed() -> None:
    failure = Failure(kind="internal", message="é" * 1_000_000, stage="solve")
    assert len(encode_row(make_result(outcome="error", failure=failure))) < 5000
