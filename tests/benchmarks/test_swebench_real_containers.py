"""Instances of SWE-bench Verified end to end: libraries of the package index, where it and the rows can be had.

Their images are made from the sources of the release that has the bug, so that commits have other names. All else is
the row's own: statement, tests, script, lists.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evalkit.benchmarks.datasets import read_rows
from tests.support.cli import Evalkit, Finished
from tests.support.engine import find_engine
from tests.support.repositories import git
from tests.support.requirements import shared
from tests.support.swebench import Recipe, shelf, write_rows

pytest.importorskip("swebench", reason="swebench is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.usefixtures("engine")]


@dataclass(frozen=True)
class Release:
    """The release whose sources are nearest to the base commit, and what its tests need."""

    requirement: str
    install: Sequence[str]


PYTEST_NEEDS = (
    *("attrs==23.1.0", "iniconfig==2.0.0", "packaging==23.1", "pluggy==0.13.1", "py==1.11.0", "tomli==2.0.1"),
    "setuptools_scm[toml]<8",
)
REQUESTS_NEEDS = (
    *("pytest<8", "pytest-mock<4", "urllib3<1.27", "idna<4", "certifi", "charset_normalizer~=2.0.0", "PySocks"),
)
RELEASES = {
    "pytest-dev__pytest-10051": Release("pytest==7.1.3", PYTEST_NEEDS),
    "pytest-dev__pytest-10356": Release("pytest==7.1.3", PYTEST_NEEDS),
    "psf__requests-6028": Release("requests==2.27.0", REQUESTS_NEEDS),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    data = shared("swebench/SWE-bench_Verified")
    folder = tmp_path_factory.mktemp("real")
    named = {row.values["instance_id"]: row.values for row in read_rows(str(data), "test")}
    with shelf(find_engine(), folder / "images") as images:
        made = []
        for name, release in RELEASES.items():
            repository = folder / name
            base = unpack(release.requirement, repository)
            finish = "RUN /opt/miniconda3/envs/testbed/bin/python -m pip install -q -e ."
            image = images.build(name, Recipe(repository, release.install, packages=(), finish=finish))
            made.append(settle(named[name], base, image))
        yield made


def unpack(requirement: str, target: Path) -> str:
    """The sources of a release as a repository. Returns the name of its commit."""
    download = target.with_suffix(".download")
    arguments = ("download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(download), requirement)
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{requirement} cannot be had from the package index: {done.stderr[-300:]}")
    (archive,) = download.iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(download, filter="data")
    (sources,) = (path for path in download.iterdir() if path.is_dir())
    sources.rename(target)
    git("init", "-q", cwd=target)
    git("add", "-A", "-f", cwd=target)
    git("commit", "-qm", "Sources", cwd=target)
    git("tag", requirement.partition("==")[2], cwd=target)
    return git("rev-parse", "HEAD", cwd=target)


def settle(row: dict[str, Any], base: str, image: str) -> dict[str, Any]:
    script = row["eval_script"].replace(row["base_commit"], base)
    return row | {"base_commit": base, "eval_script": script, "image": image}


def grade(evalkit: Evalkit, rows: Sequence[dict[str, Any]], *arguments: object) -> Finished:
    write_rows(evalkit.folder / "rows.jsonl", rows)
    source = ("--benchmark", "swebench", "--dataset", "rows.jsonl", "--workspace", "docker", "--workers", 2)
    return evalkit(*arguments, *source, "--set", "workspace.memory=1g", timeout=1200)


def test_references_resolve_and_nothing_does_not(rows: list[dict[str, Any]], evalkit: Evalkit) -> None:
    gold = grade(evalkit, rows, "infer", "--agent", "gold", "--run-dir", "gold")
    assert sorted(gold.document["ids"]["resolved"]) == sorted(RELEASES), explain(evalkit, gold.stderr)
    nop = grade(evalkit, rows, "infer", "--agent", "nop", "--run-dir", "nop")
    assert sorted(nop.document["ids"]["empty"]) == sorted(RELEASES), nop.stderr


def test_other_patches_do_not_resolve(rows: list[dict[str, Any]], evalkit: Evalkit) -> None:
    idle = (
        "diff --git a/idle.txt b/idle.txt\nnew file mode 100644\n--- /dev/null\n+++ b/idle.txt\n@@ -0,0 +1 @@\n+idle\n"
    )
    cases = {
        "idle": idle,
        "unfit": idle.replace("--- /dev/null", "--- a/idle.txt").replace("new file mode 100644\n", ""),
    }
    cloned = [row | {"instance_id": f"{row['instance_id']}-{name}"} for row in rows for name in cases]
    given = {row["instance_id"]: {"model_patch": cases[row["instance_id"].rpartition("-")[2]]} for row in cloned}
    (evalkit.folder / "preds.json").write_text(json.dumps(given))
    done = grade(evalkit, cloned, "grade", "--predictions", "preds.json")
    assert sorted(done.document["ids"]["unresolved"]) == sorted(given), explain(evalkit, done.stderr)


def explain(evalkit: Evalkit, said: str) -> str:
    reports = [path.read_text() for path in evalkit.folder.glob("*/*/instances/*/attempt-1/report.json")]
    failing = []
    for ((name, report),) in (json.loads(text).items() for text in reports):
        tests = report.get("tests_status", {})
        failing.append((name, {kind: each["failure"][:8] for kind, each in tests.items()}))
    return f"{failing}\n{said}"
