"""Damaged files: documents with parts replaced, texts with bytes replaced, and a check of their readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from evalkit.errors import EvalkitError

_LONGEST_MESSAGE = 8000

_odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, 0, -1, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), float("-inf")),
        *("", "\udc80", "\x1b[2J", "\0", "x" * 5000, "2026-02-30", "{}", "[" * 5000, "NaN"),
        *([], [[]], [None], [1, "a"], {}, {"": None}, {"\udc80": []}),
    ]
)
anything = _odd | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def damaged(document: Any) -> st.SearchStrategy[Any]:
    """The document unchanged, with a part at some depth replaced or left out, or replaced as a whole."""
    if isinstance(document, Mapping):
        return st.one_of(*(_with_one_changed(document, key) for key in document), st.just(document), anything)
    if isinstance(document, list) and document:
        changed = damaged(document[0]).map(lambda first: [first, *document[1:]])
        return st.one_of(changed, st.just(document), anything)
    return st.just(document) | anything


def _with_one_changed(document: Mapping[str, Any], key: str) -> st.SearchStrategy[dict[str, Any]]:
    without = {name: value for name, value in document.items() if name != key}
    return damaged(document[key]).map(lambda value: {**document, key: value}) | st.just(without)


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def lines(documents: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """JSON lines of such documents, some damaged, in any order; the last may be torn."""
    line = st.one_of(*(damaged(each).map(as_json) for each in documents), st.binary(max_size=20))
    whole = st.lists(line, max_size=8).map(lambda some: b"\n".join(some) + b"\n")
    return whole | st.tuples(whole, st.integers(0, 40)).map(lambda pair: pair[0][: -pair[1] or None])


def with_bytes_replaced(text: bytes) -> st.SearchStrategy[bytes]:
    """The text with one stretch of it replaced by other bytes."""
    places = st.tuples(st.integers(0, len(text)), st.integers(0, 20), st.binary(max_size=20))
    return places.map(lambda at: text[: at[0]] + at[2] + text[at[0] + at[1] :])


def reads_or_refuses(read: Callable[[], Any], place: Path) -> None:
    """Check that a reader returns something that JSON can hold, or raises a short error that names the place."""
    refusal, document = None, None
    try:
        document = read()
    except EvalkitError as error:
        refusal = error.message
    json.dumps(document, allow_nan=False)
    assert refusal is None or str(place) in refusal
    assert len(refusal or "") <= _LONGEST_MESSAGE
