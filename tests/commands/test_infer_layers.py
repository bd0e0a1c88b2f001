"""evalkit infer with an agent that containers get as they start, from the cache of an engine's machine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from evalkit.images.agent_layer import name_layer
from evalkit.images.layer_cache import LayerCache, StoredLayer
from evalkit.runs.agent_packages import find_packages_at_start
from evalkit.settings import load
from evalkit.testing import FakeEngine
from tests.support.cli import Evalkit
from tests.support.fake_engine import IMAGE, open_fake_engine
from tests.support.tasks import make_task

PRESET = """
argv = ["my-agent"]
version = ["my-agent", "--version"]
[package]
registry = "npm"
name = "my-agent"
commands.my-agent = ["bin/my-agent"]
"""
AGENT = '#!/bin/sh\n[ "$1" = --version ] && exec echo 1.0\necho yes >answer.txt\n'


@pytest.fixture
def engine(evalkit: Evalkit) -> Iterator[FakeEngine]:
    with open_fake_engine() as engine:
        evalkit.variables |= {"DOCKER_HOST": engine.host, "EVALKIT_CACHE": str(evalkit.folder / "cache")}
        (evalkit.folder / "mine.toml").write_text(PRESET)
        make_task(evalkit.folder / "tasks" / "task", tests="grep -q yes answer.txt")
        yield engine


def assignments(evalkit: Evalkit) -> list[str]:
    preset = f"agent.preset={evalkit.folder / 'mine.toml'}@1.0"
    return [preset, "agent.name=command", "workspace.kind=docker", f"workspace.image={IMAGE}", "run.workers=1"]


def infer(evalkit: Evalkit, *more: object) -> Any:
    words = [word for each in assignments(evalkit) for word in ("--set", each)]
    return evalkit("infer", "tasks", "--run-id", "run", *words, *more)


def cache_agent(evalkit: Evalkit) -> StoredLayer:
    """What a run that could reach the registry would have left."""
    config = load(assignments=assignments(evalkit), environment={}).config
    packages = find_packages_at_start(config)
    assert packages is not None

    def make(draft: Path) -> StoredLayer:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            member = tarfile.TarInfo("evalkit-agent/bin/my-agent")
            member.mode, member.size = 0o755, len(AGENT)
            tar.addfile(member, io.BytesIO(AGENT.encode()))
        (draft / "layer.tar").write_bytes(content.getvalue())
        digest = f"sha256:{hashlib.sha256(content.getvalue()).hexdigest()}"
        return StoredLayer("mine.toml@1.0", digest, len(content.getvalue()), "base", "2026-01-01T00:00:00Z")

    cache = LayerCache(evalkit.folder / "cache" / "layers")
    return cache.provide(name_layer(config, packages, "amd64"), make, lambda _: None)


@pytest.mark.slow
def test_an_agent_in_the_cache_needs_no_registry(evalkit: Evalkit, engine: FakeEngine) -> None:
    stored = cache_agent(evalkit)
    planned = infer(evalkit, "--dry-run").document["agent_layer"]
    assert (planned["digest"], planned["cached"]) == (stored.digest, True)
    done = infer(evalkit)
    assert done.document["buckets"]["resolved"] == 1, done.stderr
    layer = json.loads((evalkit.runs / "run/run.json").read_text())["layer"]
    assert (layer["digest"], layer["bytes"]) == (stored.digest, stored.size)
    assert engine.volumes == []
    assert engine.containers == []


def test_an_agent_that_cannot_be_had_is_said_before_anything_starts(evalkit: Evalkit, engine: FakeEngine) -> None:
    assert infer(evalkit, "--dry-run").document["agent_layer"]["cached"] is False
    done = infer(evalkit, "--set", "images.agent_base=no-such.invalid/image", "--set", "images.retries=0")
    done.refused(
        3, "agent_layer", "mine.toml@1.0 cannot be put into containers", "npm's registry", "agent.install=never"
    )
    assert not (evalkit.runs / "run").exists()
    assert engine.containers == []


def test_agents_that_are_in_the_images_are_left_there(evalkit: Evalkit, engine: FakeEngine) -> None:
    planned = infer(evalkit, "--dry-run", "--set", "agent.install=never")
    assert planned.document["agent_layer"] is None


@pytest.mark.slow
def test_a_resumed_run_says_when_the_agent_was_made_anew(evalkit: Evalkit, engine: FakeEngine) -> None:
    stored = cache_agent(evalkit)
    infer(evalkit)
    (evalkit.runs / "run/results.jsonl").write_bytes(b"")
    path = evalkit.runs / "run/run.json"
    manifest = msgspec.json.decode(path.read_bytes())
    manifest["layer"]["digest"] = "sha256:before"
    path.write_bytes(msgspec.json.encode(manifest))
    resumed = evalkit("resume", "runs/run")
    assert resumed.document["buckets"]["resolved"] == 1, resumed.stderr
    assert "sha256:before" in resumed.stderr
    assert stored.digest in resumed.stderr
