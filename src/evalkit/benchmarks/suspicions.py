"""Changes in a patch that affect how tests run rather than the code: rare in honest work, and only reported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

_FILE = re.compile(
    rb'^(?:diff --git "?a/.*? "?b/|\+\+\+ "?b/|--- "?a/|(?:rename|copy) (?:from|to) "?)([^"\n\t]+)', re.MULTILINE
)
_NAMES = frozenset(
    (
        "conftest.py",
        "pytest.ini",
        ".pytest.ini",
        "setup.cfg",
        "tox.ini",
        "pyproject.toml",
        "sitecustomize.py",
        "usercustomize.py",
    )
)
_CODE = {
    "adds a call of os._exit": re.compile(rb"^\+(?!\+\+ ).*\b_exit\b", re.MULTILINE),
    "adds a use of atexit": re.compile(rb"^\+(?!\+\+ ).*\batexit\b", re.MULTILINE),
    "adds a build backend": re.compile(rb"^\+(?!\+\+ ).*\b(?:build-backend|backend-path)\b", re.MULTILINE),
    "adds options of pytest": re.compile(rb"^\+(?!\+\+ ).*\b(?:addopts|PYTEST_ADDOPTS)\b", re.MULTILINE),
    "adds a plugin of pytest": re.compile(rb"^\+(?!\+\+ ).*\b(?:pytest11|pytest_plugins)\b", re.MULTILINE),
}


def find_suspicions(patch: bytes) -> tuple[str, ...]:
    """Short reasons to look at a patch before its verdict is believed."""
    return (*_of_files(patch), *(reason for reason, code in _CODE.items() if code.search(patch)))


def _of_files(patch: bytes) -> Iterator[str]:
    files = {match.decode("utf-8", "replace") for match in _FILE.findall(patch)}
    for file in sorted(files):
        path = PurePosixPath(file)
        if path.name in _NAMES or path.suffix == ".pth":
            yield f"touches {file}"
