"""The recordings are what Harbor says, where it is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.cases import load_cases
from tests.conformance.ground import open_ground
from tests.conformance.recording import VERSION, installed_version, read_records, run_harbor, without_message
from tests.support.engine import Engine
from tests.support.requirements import require

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def harbor() -> Path:
    """The Python that EVALKIT_TEST_HARBOR names."""
    python = Path(os.environ.get("EVALKIT_TEST_HARBOR", ""))
    require("harbor", python.is_file(), "EVALKIT_TEST_HARBOR does not name the Python of an environment with Harbor")
    require("harbor", installed_version(python) == VERSION, f"the recordings are of Harbor {VERSION}")
    return python


def test_harbor_says_what_was_recorded(harbor: Path, engine: Engine, tmp_path: Path) -> None:
    records, others = read_records(), []
    with open_ground(engine) as ground:
        for case, agent, found in run_harbor(harbor, engine, ground, load_cases().values(), tmp_path):
            if without_message(found) != records[case][agent]:
                others.append((case, agent, found))
    assert others == []
