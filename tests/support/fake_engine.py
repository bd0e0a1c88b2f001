"""Fake container engines, and workspaces on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evalkit.config import Config
from evalkit.domain.protocols import RunScope
from evalkit.testing import FakeEngine
from evalkit.workspaces.docker.workspaces import DockerWorkspaces, create
from evalkit.workspaces.sandbox import find_bubblewrap
from tests.support.requirements import require

IMAGE = "fake"


@contextmanager
def open_fake_engine() -> Iterator[FakeEngine]:
    """Open a fake engine with one image."""
    require("bubblewrap", find_bubblewrap(), "there is no bwrap that works")
    with FakeEngine() as engine:
        engine.add_image(IMAGE)
        yield engine


@contextmanager
def workspaces_on(
    engine: FakeEngine, scratch: Path, *, passed_on: tuple[str, ...] = (), reconnect: float = 0.01
) -> Iterator[DockerWorkspaces]:
    config = Config.model_validate(
        {"workspace": {"image": IMAGE, "reconnect": reconnect}, "agent": {"env": list(passed_on)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.host)
        workspaces = create(config, RunScope("run", scratch))
    yield workspaces
    workspaces.client.close()
