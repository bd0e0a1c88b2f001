"""What a test needs of its machine: it is skipped where that is not there, and fails where it was promised."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("EVALKIT_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


def shared(name: str) -> Path:
    """A place in the shared data, which only some machines have; EVALKIT_TEST_DATA may name them."""
    place = SHARED / name
    if not place.exists():
        pytest.skip(f"{place} is not on this machine")
    return place


REQUIRED = os.environ.get("EVALKIT_TEST_REQUIRE", "").split(",")


def require(what: str, present: object, reason: str) -> None:
    """Skip where the machine lacks something, but fail where it was promised."""
    if not present:
        assert what not in REQUIRED, f"EVALKIT_TEST_REQUIRE says there is {what}, but: {reason}"
        pytest.skip(reason)


def require_program(name: str) -> str:
    found = shutil.which(name)
    require(name, found, f"there is no {name}")
    assert found is not None
    return found
