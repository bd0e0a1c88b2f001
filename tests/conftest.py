from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from commandline import PLUGINS, Evalkit
from forkserver import ForkServer

# The same examples each time, and no clock.
settings.register_profile(
    "evalkit",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("evalkit")


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("server"), PLUGINS)
    yield server
    server.close()


@pytest.fixture
def evalkit(tmp_path: Path, fork_server: ForkServer) -> Evalkit:
    """The command line, with a working directory and temporary files of its own."""
    return Evalkit(tmp_path, fork_server)
