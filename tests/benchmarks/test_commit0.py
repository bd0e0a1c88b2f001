"""commit0: the share of the reference tests that pass, whatever else ran."""

from __future__ import annotations

import bz2
import json
import sys
from pathlib import Path

import pytest

from evalkit.agents.builtin import GoldAgent
from evalkit.benchmarks.commit0 import Commit0, make_command, make_report, read_test_ids
from evalkit.errors import DatasetError
from tests.support.repositories import Project, git
from tests.support.requirements import shared
from tests.support.runs import Outcome, ScriptAgent, attempt

STUB = "def double(x):\n    raise NotImplementedError\n"
TESTS = """import pytest
from lib import double

@pytest.mark.parametrize("x", [1, 2])
def test_double(x):
    assert double(x) == 2 * x

@pytest.mark.xfail
def test_known():
    assert double("a") == 2

@pytest.mark.skip
def test_skipped():
    pass
"""
REFERENCE = ["tests/test_lib.py::test_double[1]", "tests/test_lib.py::test_double[2]", "tests/test_lib.py::test_known"]


@pytest.mark.parametrize(
    ("outcomes", "score"),
    [
        ({"a": "passed", "b": "passed"}, 1.0),
        ({"a": "passed", "b": "xfailed"}, 1.0),
        ({"a": "passed", "b": "xpassed"}, 0.5),
        ({"a": "passed", "b": "skipped"}, 0.5),
        ({"a": "passed", "b": "error"}, 0.5),
        ({"a": "passed"}, 0.5),
        ({"a": "passed", "c": "passed", "d": "passed"}, 0.5),
        ({}, 0.0),
    ],
)
def test_missing_tests_have_failed_and_others_do_not_count(outcomes: dict[str, str], score: float) -> None:
    assert make_report(["a", "b"], outcomes)["score"] == score


def test_no_reference_tests_are_no_success() -> None:
    assert make_report([], {"a": "passed"})["score"] == 0.0


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pytest", "python -m pytest "),
        ("pytest -x", "python -m pytest -x "),
        ("pytest-3 -x", "pytest-3 -x "),
        ("tox", "tox "),
    ],
)
def test_a_bare_pytest_is_that_of_the_image(command: str, expected: str) -> None:
    assert make_command({"test_cmd": command, "test_dir": "my tests/"}).startswith(expected)
    assert make_command({"test_cmd": command, "test_dir": "my tests/"}).endswith(" 'my tests/'")


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        folder = root / "project"
        (folder / "tests").mkdir(parents=True)
        (folder / "lib.py").write_text(STUB)
        (folder / "tests" / "test_lib.py").write_text(TESTS)
        (folder / "spec.pdf.bz2").write_bytes(b"spec")
        (folder / ".gitignore").write_text(".venv\n__pycache__\n")
        git("init", "-q", cwd=folder)
        git("add", "-A", cwd=folder)
        git("commit", "-qm", "Stubs", cwd=folder)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"; export PATH')
        self.project = Project(folder, git("rev-parse", "HEAD", cwd=folder), "", "", "")

    def benchmark(self, **changes: object) -> Commit0:
        data = self.root / "data"
        data.mkdir()
        row = {
            "repo": "commit-0/Lib.py", "base_commit": self.project.base, "src_dir": "lib.py",
            "test": {"test_cmd": "pytest", "test_dir": "tests"}, **changes,
        }  # fmt: skip
        (data / "test.jsonl").write_text(json.dumps(row))
        (data / "lib-py.bz2").write_bytes(bz2.compress("\n".join(REFERENCE).encode()))
        return Commit0(str(data), "test", None, place=None)

    def solve(self, script: str) -> Outcome:
        return attempt(self.root, self.project, self.benchmark(), ScriptAgent(script))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_complete_library_is_resolved(bench: Bench) -> None:
    outcome = bench.solve("printf 'def double(x):\\n    return 2 * x\\n' > lib.py; echo new > spec.pdf.bz2")
    assert (outcome.row["verdict"], outcome.row["score"]) == ("resolved", 1.0)
    report = json.loads((outcome.folder / "report.json").read_text())
    assert report["tests"] == {REFERENCE[0]: "passed", REFERENCE[1]: "passed", REFERENCE[2]: "xfailed"}
    assert b"spec.pdf" not in outcome.patch


def test_half_a_library_is_not(bench: Bench) -> None:
    outcome = bench.solve("printf 'def double(x):\\n    return 2\\n' > lib.py")
    assert outcome.row["verdict"] == "unresolved"
    assert outcome.row["score"] == pytest.approx(1 / 3), "a test that passed although it should not does not count"


def test_tests_that_are_gone_have_failed(bench: Bench) -> None:
    outcome = bench.solve("rm -r tests; mkdir tests; echo 'def test_x(): pass' > tests/test_x.py")
    assert (outcome.row["verdict"], outcome.row["score"]) == ("unresolved", 0.0)


def test_an_image_without_pytest_is_trouble_of_the_grader(bench: Bench) -> None:
    (bench.project.folder / ".venv/bin/activate").write_text('PATH="$PWD/.venv/none:$PATH"')
    (bench.project.folder / ".venv/none").mkdir()
    (bench.project.folder / ".venv/none/python").write_text("#!/bin/sh\nexit 1\n")
    (bench.project.folder / ".venv/none/python").chmod(0o755)
    outcome = bench.solve("echo '# more' >> lib.py")
    assert outcome.row["failure"]["kind"] == "grader"


def test_a_reference_solution_that_rows_bring_is_applied(bench: Bench) -> None:
    (bench.project.folder / "lib.py").write_text(STUB.replace("raise NotImplementedError", "return 2 * x"))
    patch = git("diff", cwd=bench.project.folder) + "\n"
    git("checkout", "-q", ".", cwd=bench.project.folder)
    benchmark = bench.benchmark(patch=patch)
    assert attempt(bench.root, bench.project, benchmark, GoldAgent(benchmark)).row["verdict"] == "resolved"


def test_images_and_reference_tests_are_found_by_name(bench: Bench) -> None:
    (instance,) = bench.benchmark().load()
    assert instance.image == "wentingzhao/lib.py:v0"
    (bench.root / "data" / "lib-py.bz2").unlink()
    with pytest.raises(DatasetError, match=r"lib-py\.bz2 is in none of the places"):
        list(Commit0(str(bench.root / "data"), "test", None).load())


def test_the_real_lists_are_read() -> None:
    lists = {path.stem: read_test_ids(path) for path in shared("commit0").glob("*.bz2")}
    assert len(lists) > 50
    assert all(lists.values())
