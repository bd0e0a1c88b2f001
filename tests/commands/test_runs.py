"""evalkit runs, as it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.domain.records import Usage
from evalkit.store.run_directory import RunDirectory
from tests.support.cli import Evalkit
from tests.support.runs import make_manifest, make_result


def make_run(evalkit: Evalkit, name: str, results: list[Any], ids: list[str], **changes: Any) -> RunDirectory:
    run = RunDirectory.create(evalkit.runs / name, make_manifest(ids, run_id=name, **changes))
    with run.writing():
        run.append(results)
    return run


def only(document: Any) -> Any:
    (run,) = document["runs"]
    return run


def test_a_run_says_how_far_it_is(evalkit: Evalkit) -> None:
    results = [
        make_result("a", verdict="resolved", usage=Usage(cost_usd=0.5)),
        make_result("b", usage=Usage(cost_usd=0.25)),
        make_result("c", outcome="error", verdict="ungraded"),
    ]
    make_run(evalkit, "one", results, ["a", "b", "c", "d"])
    done = evalkit("runs")
    run = only(done.document)
    assert (run["done"], run["errors"], run["total"], run["cost_usd"]) == (2, 1, 4, 0.75)
    assert (run["resolve_rate"]["value"], run["resolve_rate"]["n"]) == (0.5, 2)
    assert (run["benchmark"], run["agent"], run["running"], run["problem"]) == ("tasks", "gold", False, None)
    assert done.code == 0
    assert "2/4" in done.stderr
    assert "50.0%" in done.stderr


def test_what_is_not_graded_has_no_rate(evalkit: Evalkit) -> None:
    make_run(evalkit, "one", [make_result("a", verdict="ungraded")], ["a"])
    done = evalkit("runs")
    assert only(done.document)["resolve_rate"]["value"] is None
    assert "%" not in done.stderr.splitlines()[1]


def test_the_newest_comes_last_and_one_at_work_says_so(evalkit: Evalkit) -> None:
    make_run(evalkit, "second", [], ["a"])
    first = make_run(evalkit, "first", [], ["a"])
    with first.writing():
        done = evalkit("runs")
    assert [(run["id"], run["running"]) for run in done.document["runs"]] == [("second", False), ("first", True)]
    assert "running" in done.stderr
    assert not any(run["running"] for run in evalkit("runs").document["runs"])


def test_asking_takes_no_run_from_who_works_on_it(evalkit: Evalkit) -> None:
    run = make_run(evalkit, "one", [], ["a"])
    with run.writing():
        assert evalkit("runs").code == 0
        run.append([make_result("a")])
    assert only(evalkit("runs").document)["done"] == 1


def test_without_runs_it_says_how_to_make_one(evalkit: Evalkit) -> None:
    done = evalkit("runs")
    assert (done.code, done.document["runs"]) == (0, [])
    assert "evalkit infer" in done.stderr


def damage_manifest(run: Path) -> None:
    (run / "run.json").write_text("{")


def lose_manifest(run: Path) -> None:
    (run / "run.json").unlink()


def replace_results(run: Path) -> None:
    (run / "results.jsonl").unlink()
    (run / "results.jsonl").mkdir()


@pytest.mark.parametrize("damage", [damage_manifest, lose_manifest, replace_results])
def test_a_damaged_run_is_listed_with_the_reason(evalkit: Evalkit, damage: Any) -> None:
    make_run(evalkit, "whole", [], ["a"])
    damage(make_run(evalkit, "broken", [], ["a"]).path)
    done = evalkit("runs")
    problems = {run["id"]: run["problem"] for run in done.document["runs"]}
    assert done.code == 0
    assert problems["whole"] is None
    assert problems["broken"]
    assert "broken: " in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_that_are_no_results_are_counted(evalkit: Evalkit) -> None:
    run = make_run(evalkit, "one", [make_result("a")], ["a"])
    with (run.path / "results.jsonl").open("a") as file:
        file.write("nonsense\n")
    done = evalkit("runs")
    assert (only(done.document)["done"], only(done.document)["unreadable"]) == (1, 1)
    assert "not counted: 1" in done.stderr


def test_a_brief_list_reads_no_results(evalkit: Evalkit) -> None:
    run = make_run(evalkit, "one", [make_result("a")], ["a"])
    replace_results(run.path)
    found = only(evalkit("runs", "--brief").document)
    assert (found["total"], found["done"], found["resolve_rate"], found["problem"]) == (1, None, None, None)


def test_quiet_is_quiet_and_other_folders_can_be_named(evalkit: Evalkit) -> None:
    RunDirectory.create(evalkit.folder / "elsewhere" / "one", make_manifest(["a"]))
    done = evalkit("runs", "--quiet", "--run-dir", "elsewhere")
    assert only(done.document)["run"] == "elsewhere/one"
    assert done.stderr == ""


def test_a_file_in_place_of_the_folder_is_named(evalkit: Evalkit) -> None:
    evalkit.runs.write_text("")
    evalkit("runs").refused(3, "environment", "runs cannot be read")
