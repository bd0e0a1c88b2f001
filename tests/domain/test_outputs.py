"""What a limit leaves out of a tree."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from evalkit.domain.outputs import OutputLimit


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("cache", ["cache", "a/cache", "cache/file", "a/cache/b/c"], ["caches", "a/my-cache", "ache"]),
        ("*.pyc", ["a.pyc", "a/b.pyc", "a.pyc/inside"], ["a.py", "pyc"]),
        ("a/b", ["a/b", "x/a/b", "a/b/c"], ["a/c/b", "b"]),
        ("./top", ["top", "top/file"], ["a/top"]),
        ("build/", ["build/file", "build"], ["builds"]),
        ("a*z", ["a/b/z"], ["a/b"]),
    ],
)
def test_patterns_match_as_those_of_tar(pattern: str, left_out: list[str], kept: list[str]) -> None:
    limit = OutputLimit("it", bytes=1, exclude=(pattern,))
    assert [path for path in (*left_out, *kept) if limit.leaves_out(PurePosixPath(path))] == left_out
    assert not limit.leaves_out(PurePosixPath())


def test_without_patterns_nothing_is_left_out() -> None:
    assert not OutputLimit("it", bytes=1).leaves_out(PurePosixPath("a"))
