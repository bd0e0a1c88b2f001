"""Secrets are found however they are written, and wherever the bytes are cut."""

from __future__ import annotations

import base64
import json
import shlex
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit import masking

SECRET = """pa"ss/wörd+'\\x"""
PLAIN = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _secrets() -> Iterator[None]:
    masking.protect(SECRET)
    masking.protect(PLAIN)
    yield
    masking._known.clear()


def in_pieces(content: bytes, size: int) -> bytes:
    stream = masking.stream()
    assert stream is not None
    pieces = [stream.feed(content[place : place + size]) for place in range(0, len(content), size)]
    return b"".join([*pieces, stream.end()])


def encoded(secret: str) -> bytes:
    return base64.b64encode(secret.encode())


WRITTEN = {
    "as it is": SECRET.encode(),
    "json": json.dumps(SECRET)[1:-1].encode(),
    "json in json": json.dumps(json.dumps(SECRET))[3:-3].encode(),
    "json with slashes escaped": json.dumps(SECRET)[1:-1].replace("/", "\\/").encode(),
    "json in utf-8": json.dumps(SECRET, ensure_ascii=False)[1:-1].encode(),
    "python": repr(SECRET)[1:-1].encode(),
    "shell": shlex.quote(SECRET)[1:-1].encode(),
    "base64": encoded(SECRET).rstrip(b"="),
    "base64 for urls": base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"="),
    "base64 of a line": encoded(SECRET + "\n").rstrip(b"="),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("form", WRITTEN.values(), ids=WRITTEN)
def test_all_ways_to_write_it(form: bytes, size: int) -> None:
    assert in_pieces(b"<" + form + b"> <" + form + b">", size) == b"<[secret]> <[secret]>"


@pytest.mark.parametrize("before", ["u:", "us:", "use:"])
def test_it_is_found_inside_of_longer_base64(before: str) -> None:
    text = encoded(f"{before}{PLAIN}:and more")
    masked = in_pieces(text, 5)
    assert b"[secret]" in masked
    assert PLAIN.encode() not in base64.b64decode(masked.replace(b"[secret]", b"AAAA" * 4) + b"==")
    assert len(masked.replace(b"[secret]", b"")) < len(text) - len(PLAIN)


def test_long_base64_is_found_over_its_lines() -> None:
    masking.protect("0123456789" * 30)
    lines = base64.encodebytes(b"0123456789" * 30)
    assert masking.mask(lines.decode()).replace("=", "").strip() == "[secret]"


@given(st.lists(st.sampled_from([PLAIN, PLAIN[:7], PLAIN[3:], "hunter2-", SECRET, "x", "\n", "hunter"]), max_size=8))
def test_where_it_is_cut_makes_no_difference(words: list[str]) -> None:
    text = "".join(words)
    whole = masking.mask(text).encode()
    for size in (1, 2, 7, 16):
        assert in_pieces(text.encode(), size) == whole


def test_what_can_be_no_secret_is_not_held_back() -> None:
    stream = masking.stream()
    assert stream is not None
    assert stream.feed(b"all of this\n") == b"all of this\n"
    assert stream.feed(b"this hunt") == b"this "
    assert stream.feed(b"er\n") == b"hunter\n"


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes((b"y" * 99_000 + PLAIN.encode() + b"\n") * 100)
    path.chmod(0o640)
    tracemalloc.start()
    assert masking.mask_file(path) == 100
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert path.read_bytes() == (b"y" * 99_000 + b"[secret]\n") * 100
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]


def test_short_values_and_those_that_are_no_secret_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    masking._known.clear()
    for name, value in {"SHORT": "12345", "LANG": "C.UTF-8-x", "LC_ALL": "C.UTF-8-x", "PATH": "/usr/bin"}.items():
        monkeypatch.setenv(name, value)
    masking.protect_variables(["SHORT", "LANG", "LC_ALL", "PATH", "MISSING"])
    assert masking.stream() is None
