"""Requirements of tests on their machine: without them a test is skipped, or fails if they were promised."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("EVALKIT_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


def shared(name: str) -> Path:
    """A path in the shared data, which only some machines have. EVALKIT_TEST_DATA overrides its folder."""
    place = SHARED / name
    if not place.exists():
        pytest.skip(f"{place} is not on this machine")
    return place


REQUIRED = os.environ.get("EVALKIT_TEST_REQUIRE", "").split(",")


def require(what: str, present: object, reason: str) -> None:
    """Skip the test if the machine lacks something, or fail if it was promised."""
    if not present:
        assert what not in REQUIRED, f"EVALKIT_TEST_REQUIRE says there is {what}, but: {reason}"
        pytest.skip(reason)


def require_program(name: str) -> str:
    found = shutil.which(name)
    require(name, found, f"there is no {name}")
    assert found is not None
    return found
