"""SWT-bench and commit0 end to end in containers, on a small repository."""

from __future__ import annotations

import bz2
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cli import Evalkit, Finished
from tests.support.engine import find_engine
from tests.support.library import CODE, SETUP, TESTS, Library
from tests.support.repositories import diff_of, make_repository
from tests.support.swebench import Recipe, shelf, write_rows

pytest.importorskip("swebench", reason="swebench is not installed")
pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.usefixtures("engine")]

NEW_TEST = "printf 'from wordlist import split\\n\\ndef test_new():\\n    assert {}\\n' > tests/test_new.py"
GOOD, WRONG, HARMLESS = 'split("a  b") == ["a", "b"]', 'split("a  b") == ["a"]', 'split("a b") == ["a", "b"]'


def run(evalkit: Evalkit, *arguments: object) -> Finished:
    common = ("--dataset", "rows.jsonl", "--workspace", "docker", "--set", "workspace.memory=512m")
    return evalkit(*arguments, *common, "--set", "run.retries=0", timeout=600)


def by_script(script: str) -> tuple[object, ...]:
    return ("--agent", "command", "--set", f"agent.command={json.dumps(['/bin/bash', '-ec', script])}")


def swt_row(library: Library) -> dict[str, Any]:
    return library.short_row("split")


def report_of(evalkit: Evalkit, folder: str) -> Any:
    (path,) = (evalkit.folder / folder).glob("*/instances/*/attempt-1/report.json")
    return json.loads(path.read_text())


def test_tests_are_judged_by_what_they_do_and_what_they_reach(library: Library, evalkit: Evalkit) -> None:
    write_rows(evalkit.folder / "rows.jsonl", [swt_row(library)])
    bench = ("infer", "--benchmark", "swtbench")
    gold = run(evalkit, *bench, "--agent", "gold", "--run-dir", "gold")
    assert gold.document["ids"]["resolved"] == ["split"], gold.stderr
    report = report_of(evalkit, "gold")["split"]
    assert report["added_f2p"] == report["gold_f2p"] == ["tests/test_words.py::test_repaired"]
    assert (report["coverage_base"], report["coverage_gold"], report["coverage_pred"]) == (1.0, 1.0, 1.0)
    assert report["coverage_delta_gold"] == report["coverage_delta_pred"] == 1.0, "each line ran more often"
    delta = gold.document["metrics"]["coverage_delta_pred"]
    assert (delta["mean"], delta["instances"]) == (1.0, 1)
    nop = run(evalkit, *bench, "--agent", "nop", "--run-dir", "nop")
    assert nop.document["ids"]["empty"] == ["split"], nop.stderr


@pytest.mark.parametrize(
    ("check", "verdict", "delta"), [(GOOD, "resolved", 1.0), (WRONG, "unresolved", 1.0), (HARMLESS, "unresolved", 1.0)]
)
def test_tests_of_an_agent(library: Library, evalkit: Evalkit, check: str, verdict: str, delta: float) -> None:
    write_rows(evalkit.folder / "rows.jsonl", [swt_row(library)])
    done = run(evalkit, "infer", "--benchmark", "swtbench", *by_script(NEW_TEST.format(check)))
    assert done.document["ids"][verdict] == ["split"], done.stderr
    (row,) = evalkit.rows()
    assert row["metrics"]["coverage_delta_pred"] == delta


def test_runs_without_the_answer_are_made_once(library: Library, evalkit: Evalkit) -> None:
    write_rows(evalkit.folder / "rows.jsonl", [swt_row(library)])
    script = by_script(NEW_TEST.format(GOOD))
    run(
        evalkit,
        "infer",
        "--benchmark",
        "swtbench",
        *script,
        "--attempts",
        2,
        "--set",
        "run.stop_on=never",
        "--workers",
        1,
    )
    made = [
        sorted(path.stem for path in evalkit.run_directory().glob(f"instances/split/attempt-{n}/runs/*"))
        for n in (1, 2)
    ]
    assert made[0] == ["base-after", "base-before", "gold-after", "gold-before", "pred-after", "pred-before"]
    assert made[1] == ["pred-after", "pred-before"]
    assert [row["verdict"] for row in evalkit.rows()] == ["resolved", "resolved"]


STUBS = """\
def split(text):
    raise NotImplementedError


def longest(words):
    raise NotImplementedError


def initials(words):
    raise NotImplementedError
"""
REFERENCE = ["tests/test_words.py::test_one_space", "tests/test_words.py::test_the_longest"]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("stubs")
    repository = folder / "repository"
    repository.mkdir()
    files = {"setup.py": SETUP, "wordlist/__init__.py": STUBS, "tests/test_words.py": TESTS}
    base = make_repository(repository, files)
    with shelf(find_engine(), folder / "images") as images:
        # As the images of commit0 have it: the repository with an environment of its own inside.
        activate = "ln -s /opt/miniconda3/envs/testbed .venv && echo .venv >> .git/info/exclude"
        image = images.build("stubs", Recipe(repository, finish=f"RUN {activate}"))
        yield {
            "instance_id": "wordlist", "repo": "commit-0/wordlist", "base_commit": base, "src_dir": "wordlist",
            "image": image, "patch": diff_of(repository, {"wordlist/__init__.py": CODE}),
            "test": {"test_cmd": "pytest", "test_dir": "tests/"},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "bucket", "score"),
    [
        (("--agent", "gold"), "resolved", 1.0),
        (("--agent", "nop"), "empty", None),
        (by_script("printf 'def split(x): return x.split()\\nlongest = initials = split\\n' > wordlist/__init__.py"),
         "unresolved", 0.5),
        (by_script("rm tests/test_words.py; echo 'def test_x(): pass' > tests/test_x.py"), "unresolved", 0.0),
    ],
)  # fmt: skip
def test_a_library_is_scored_by_its_reference_tests(
    stubs: dict[str, Any], evalkit: Evalkit, agent: tuple[object, ...], bucket: str, score: float | None
) -> None:
    write_rows(evalkit.folder / "rows.jsonl", [stubs])
    reference = evalkit.folder / "reference"
    reference.mkdir()
    (reference / "wordlist.bz2").write_bytes(bz2.compress("\n".join(REFERENCE).encode()))
    done = run(evalkit, "infer", "--benchmark", "commit0", "--set", f"benchmark.reference={reference}", *agent)
    assert done.document["ids"][bucket] == ["wordlist"], done.stderr
    (row,) = evalkit.rows()
    assert row["score"] == score
    if score is not None:
        report = json.loads((evalkit.run_directory() / row["artifacts"] / "report.json").read_text())
        assert sorted(report["tests"]) == REFERENCE
