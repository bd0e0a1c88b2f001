"""The official scorer's rules, and the way of an answer from the agent's message to its verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.agents.builtin import GoldAgent
from evalkit.benchmarks.datasets import read_rows
from evalkit.benchmarks.gaia import Gaia, extract_answer, is_right, to_instance
from evalkit.errors import DatasetError
from tests.support.cli import Evalkit
from tests.support.repositories import Project
from tests.support.runs import Outcome, ScriptAgent, attempt

# Made up: the rows of GAIA may not be published.
QUESTION = {"task_id": "t-1", "Question": "How many?", "Level": 1, "Final answer": "1,234 apples", "file_name": "a.txt"}


@pytest.mark.parametrize(
    ("given", "truth", "right"),
    [
        ("42", "42", True),
        ("42.0", "42", True),
        ("$42", "42", True),
        ("4,200 ", "4200", True),
        ("17%", "17", True),
        ("42 apples", "42", False),
        ("forty-two", "42", False),
        ("", "42", False),
        ("1e3", "1000", True),
        ("a, b,c", "a,b,c", True),
        ("a; b", "a, b", True),
        ("a,b", "b,a", False),
        ("a,b,c", "a,b", False),
        ("1, 2.0", "1,2", True),
        ("$1;two", "1;two", True),
        ("a.b, c", "ab, c", False),  # punctuation counts in lists
        ("A B,c", "ab, C", True),
        ("St. Petersburg", "st petersburg", True),  # and does not elsewhere
        ("right-hand", "righthand", True),
        ("Paris", "London", False),
        ("the cat", "cat", False),
        ("", "", True),
        ("1,234 Apples", "1,234 apples", True),
    ],
)
def test_the_rules_of_the_scorer(given: str, truth: str, right: bool) -> None:
    assert is_right(given, truth) is right


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("so <solution>4</solution>", "4"),
        ("<solution>3</solution> no, <SOLUTION>\n4 </SOLUTION>.", "4"),
        (" just this\n", "just this"),
        ("<solution>open", "<solution>open"),
        ("I thought.\nFINAL ANSWER: 17", "17"),
        ("**FINAL ANSWER:** 17 apples**\n", "17 apples"),
        ("FINAL ANSWER: 3\nNo: \nFinal answer: a, b\nThat is it.", "a, b"),
        ("A <solution>3</solution> would do.\nFINAL ANSWER: 17", "17"),
        ("FINAL ANSWER: 3\n<solution>17</solution>", "17"),
        ("FINAL ANSWER: <solution>17</solution>", "17"),
        ("no final answer: yet", "no final answer: yet"),
    ],
)
def test_the_last_solution_is_the_answer(message: str, answer: str) -> None:
    assert extract_answer(message) == answer


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", "", "", "", "")


def benchmark(root: Path, **changes: object) -> Gaia:
    folder = root / "data" / "2023" / "validation"
    folder.mkdir(parents=True)
    (folder / "metadata.jsonl").write_text(json.dumps({**QUESTION, **changes}))
    (folder / "a.txt").write_text("the attachment")
    return Gaia(str(root / "data"), "validation")


def verdict(outcome: Outcome) -> tuple[str, str]:
    return outcome.row["outcome"], outcome.row["verdict"]


def test_an_answer_that_a_program_leaves_in_the_workspace_is_scored(tmp_path: Path, project: Project) -> None:
    script = 'mkdir "$EVALKIT_LOGS/agent"; cat a.txt; echo "<solution>1,234 Apples</solution>" > "$EVALKIT_LOGS/agent/'
    script += 'answer.txt"'
    outcome = attempt(tmp_path, project, benchmark(tmp_path), ScriptAgent(script))
    assert verdict(outcome) == ("submitted", "resolved")
    assert outcome.log == "the attachment"
    assert len(outcome.workspaces.opened) == 1, "no second workspace is needed to compare two strings"


def test_no_answer_is_an_empty_one(tmp_path: Path, project: Project) -> None:
    assert verdict(attempt(tmp_path, project, benchmark(tmp_path), ScriptAgent("true"))) == ("empty", "ungraded")


def test_the_reference_answer_is_right_and_a_hidden_one_is_not_graded(tmp_path: Path, project: Project) -> None:
    known = benchmark(tmp_path)
    assert verdict(attempt(tmp_path, project, known, GoldAgent(known))) == ("submitted", "resolved")


def test_hidden_truths_give_no_verdict(tmp_path: Path, project: Project) -> None:
    hidden = benchmark(tmp_path, **{"Final answer": "?", "file_name": ""})
    script = 'mkdir -p "$EVALKIT_LOGS/agent"; echo 4 > "$EVALKIT_LOGS/agent/answer.txt"'
    assert verdict(attempt(tmp_path, project, hidden, ScriptAgent(script))) == ("submitted", "ungraded")


def test_the_truth_is_not_in_the_statement(tmp_path: Path) -> None:
    (instance,) = benchmark(tmp_path).load()
    assert "apples" not in instance.statement
    assert "a.txt" in instance.statement
    assert instance.fields == {"level": "1"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "missing.txt", ".."])
def test_files_of_rows_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    benchmark(tmp_path, file_name=name)
    (row,) = read_rows(str(tmp_path / "data"), "validation")
    with pytest.raises(DatasetError, match="file"):
        to_instance(row)


def test_a_local_copy_as_the_hub_has_it(tmp_path: Path, evalkit: Evalkit) -> None:
    rows = [
        {**QUESTION, "task_id": "two", "Level": "2", "Final answer": "a, b", "file_name": ""},
        {**QUESTION, "Annotator Metadata": {"Steps": "1"}},
    ]
    for split, truth in (("validation", None), ("test", "?")):
        folder = tmp_path / "copy" / "2023" / split
        folder.mkdir(parents=True)
        lines = [json.dumps(row if truth is None else {**row, "Final answer": truth}) for row in rows]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
        (folder / "a.txt").write_text("the attachment")
    chosen = ("--benchmark", "gaia", "--dataset", "copy", "--workspace", "local")
    done = evalkit("infer", *chosen, "--split", "validation", "--agent", "gold", "--run-id", "known")
    assert done.document["buckets"]["resolved"] == 2, done.stderr
    groups = evalkit("aggregate", "known", "--by", "level").document["groups"]["level"]
    assert {level: group["resolved"] for level, group in groups.items()} == {"1": 1, "2": 1}
    done = evalkit("predictions", "known")
    assert done.code == 2
    assert "holds no patches" in done.document["error"]["message"]
    assert "answer.txt" in done.document["error"]["hint"]
    done = evalkit("infer", *chosen, "--split", "dev", "--agent", "gold")
    assert done.code == 3
    assert "2023/validation/metadata.jsonl" in done.document["error"]["hint"]
