"""Where tests find what is not in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """A place in the shared data, which only some machines have."""
    place = SHARED / name
    if not place.exists():
        pytest.skip(f"{place} is not on this machine")
    return place
