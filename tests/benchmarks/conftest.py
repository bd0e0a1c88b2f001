"""The small library for all tests of a session: its image is built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine import find_engine
from tests.support.library import Library, make_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with make_library(find_engine(), tmp_path_factory.mktemp("library")) as made:
        yield made
