"""Where tests find what is not in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("EVALKIT_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def shared(name: str) -> Path:
    """A place in the shared data, which only some machines have; EVALKIT_TEST_DATA may name them."""
    place = SHARED / name
    if not place.exists():
        pytest.skip(f"{place} is not on this machine")
    return place
