"""The pages for contributors speak of what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import evalkit

ROOT = Path(__file__).parents[1]
PACKAGE = Path(evalkit.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PLACE = re.compile(r"`((?:[a-z_0-9]+/)+[a-z_0-9]*(?:\.[a-z]+)?)`")


@pytest.mark.parametrize("page", [ARCHITECTURE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_each_module_that_a_page_names_exists(page: Path) -> None:
    named = set(PLACE.findall(page.read_text()))
    missing = [
        place
        for place in sorted(named)
        if not any((base / f"{place}{suffix}").exists() for base in (PACKAGE, ROOT) for suffix in ("", ".py"))
    ]
    assert named
    assert missing == []


def test_each_room_is_in_the_picture() -> None:
    picture = ARCHITECTURE.read_text().split("```")[1]
    assert [room for room in ROOMS if f"{room}/" not in picture] == []
