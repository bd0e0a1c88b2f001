"""evalkit infer with tasks that bring their own Dockerfiles."""

from __future__ import annotations

import pytest

from tests.support.images import Builds
from tests.support.tasks import make_task

pytestmark = pytest.mark.engine

_DOCKERFILE = """
FROM {base}
WORKDIR /app
COPY data/ /app/data/
RUN echo 'built once' >/built
"""
_SOLVE = """#!/bin/bash
set -e
grep -v '^#' data/numbers.txt | sort -n | tail -1 > /app/largest.txt
"""
_TEST = """#!/bin/bash
python3 -m unittest discover -s /tests -p 'test_*.py'
if [ $? -eq 0 ]; then echo 1 > /logs/verifier/reward.txt; else echo 0 > /logs/verifier/reward.txt; fi
"""
_OUTPUTS = """
import pathlib, unittest

class Outputs(unittest.TestCase):
    def test_largest(self):
        self.assertEqual(pathlib.Path("/app/largest.txt").read_text().strip(), "40")
        self.assertEqual(pathlib.Path("/built").read_text(), "built once\\n")
"""
_TOML = """
version = "1.0"
[metadata]
author_name = "Somebody"
author_email = "somebody@example.org"
difficulty = "easy"
category = "programming"
tags = ["shell"]
[verifier]
timeout_sec = 120.0
[agent]
timeout_sec = 120.0
[environment]
build_timeout_sec = 600.0
cpus = 1
memory_mb = 256
storage_mb = 10240
"""


def test_a_task_directory_of_other_tools_runs_unchanged_with_its_dockerfile(builds: Builds) -> None:
    """As Harbor and Terminal-Builds have it: its scripts are no shell scripts of ours, and know only fixed paths."""
    task = make_task(
        builds.tasks / "largest-number",
        files={"Dockerfile": _DOCKERFILE.format(base=builds.python), "data/numbers.txt": "# few\n7\n40\n3\n"},
        toml=_TOML,
    )
    for place, text in (("solution/solve.sh", _SOLVE), ("tests/test.sh", _TEST), ("tests/test_outputs.py", _OUTPUTS)):
        (task / place).parent.mkdir(exist_ok=True)
        (task / place).write_text(text)

    missing = builds.infer()
    missing.refused(3, "image_missing", "largest-number", "--build-missing")
    assert len(missing.document["missing_images"]) == 1
    assert not builds.evalkit.runs.exists() or list(builds.evalkit.runs.iterdir()) == [], "nothing has begun"

    gold = builds.infer("--build-missing", "--run-id", "gold")
    assert gold.code == 0, gold.stderr
    assert gold.document["buckets"]["resolved"] == 1, gold.stderr
    assert len(builds.tags()) == 1
    nop = builds.infer("--agent", "nop", "--run-id", "nop")
    assert nop.document["buckets"]["unresolved"] == 1, nop.stderr
    reward = builds.evalkit.runs / "nop" / "instances" / "largest-number" / "attempt-1" / "verifier" / "reward.txt"
    assert reward.read_text() == "0\n"


def test_all_missing_images_are_named_and_those_of_no_registry_are_not_asked_for(builds: Builds) -> None:
    for name in ("one", "two", "three"):
        builds.task(name, f"ENV NAME={name}")
    make_task(builds.tasks / "ready", toml=f'[environment]\ndocker_image = "{builds.busybox}"')
    nowhere = builds.repository.partition("/")[2]
    finished = builds.infer(repository=nowhere)
    finished.refused(3, "image_missing", "3 of the images", "--build-missing", "build-images")
    missing = finished.document["missing_images"]
    assert all(name.startswith(f"{nowhere}:") for name in missing)
    assert set(missing.values()) == {"not built"}


def test_an_image_that_cannot_be_built_is_named_before_anything_starts(builds: Builds) -> None:
    builds.task("fine")
    builds.task("broken", "RUN echo the reason; exit 3")
    finished = builds.infer("--build-missing", retries=0)
    finished.refused(3, "image_missing", "the reason", "1 of 2")
    assert not builds.evalkit.runs.exists()


def test_no_image_is_needed_or_built_for_a_task_that_is_refused(builds: Builds) -> None:
    builds.task("ready")
    built = builds.task("built", "RUN exit 3")
    (built / "task.toml").write_text('[environment]\nos = "windows"\n')
    pulled = '[environment]\ndocker_image = "127.0.0.1:1/not:there"\nos = "windows"'
    make_task(builds.tasks / "pulled", toml=pulled)
    finished = builds.infer("--build-missing", "--agent", "nop")
    assert finished.document["ids"]["unresolved"] + finished.document["ids"]["resolved"] == ["ready"], finished.stderr
    assert sorted(finished.document["ids"]["error"]) == ["built", "pulled"]
    assert len(builds.tags()) == 1
