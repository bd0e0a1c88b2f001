"""evalkit aggregate: the numbers of runs, at any time, as the contract has them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import Config
from evalkit.domain.results import Usage
from evalkit.store.rows import encode_row
from evalkit.store.run_directory import RunDirectory
from tests.support.cli import Evalkit
from tests.support.runs import make_manifest, make_result
from tests.support.tasks import make_task, make_tasks
from tests.support.waiting import wait_until

BUCKETS = {"resolved", "unresolved", "ungraded", "empty", "timeout", "error", "incomplete"}
ROW = {
    "schema", "instance_id", "attempt", "outcome", "verdict", "score", "failure", "patch", "usage", "started_at",
    "finished_at", "seconds", "stages", "retries", "resource_factor", "artifacts",
}  # fmt: skip
USAGE = {"llm_calls", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_usd"}


def infer(script: str, *more: object) -> tuple[object, ...]:
    return (
        "infer", "tasks", "--workspace", "local", "--agent", "command", "--set", "workspace.unsandboxed=true",
        "--set", f"agent.command={shlex.join(['sh', '-c', script])}", *more,
    )  # fmt: skip


def store(
    path: Path,
    ids: list[str],
    rows: list[Any],
    *,
    model: str | None = None,
    shard: str | None = None,
    fingerprint: str = "",
    **config: Any,
) -> None:
    whole = Config().model_dump(mode="json")
    changed = {"run": config, "model": {"name": model}, "benchmark": {"shard": shard}}
    whole |= {section: whole[section] | changes for section, changes in changed.items()}
    manifest = make_manifest(ids, run_id=path.name, config=whole, dataset={"fingerprint": fingerprint})
    run = RunDirectory.create(path, manifest)
    with run.writing():
        run.append(rows)


def test_the_document_and_the_rows_are_those_of_the_contract(evalkit: Evalkit) -> None:
    """Every field under the name and with the type that users' scripts rely on."""
    make_task(evalkit.folder / "tasks" / "one", tests="grep -q done answer")
    make_task(evalkit.folder / "tasks" / "two", tests="exit 1")
    spent = {"llm_calls": 31, "input_tokens": 5, "cached_tokens": 4, "output_tokens": 3, "reasoning_tokens": 2}
    usage = json.dumps(spent | {"cost_usd": 0.41})
    script = f"echo done > answer; echo '{usage}' > $EVALKIT_USAGE; echo '{{}}' > $EVALKIT_TRAJECTORY"
    finished = evalkit(*infer(script))
    assert finished.code == 0, finished.stderr
    document = finished.document
    assert document["run"] == str(evalkit.run_directory().relative_to(evalkit.folder))
    aggregated = evalkit("aggregate").document
    assert aggregated == {key: value for key, value in document.items() if key != "run"}
    assert aggregated["schema"] == 1
    assert aggregated["runs"] == [document["run"]]
    assert aggregated["total"] == 2
    assert set(aggregated["buckets"]) == set(aggregated["ids"]) == BUCKETS
    assert aggregated["ids"] | {"resolved": [], "unresolved": []} == {name: [] for name in BUCKETS}
    assert (aggregated["ids"]["resolved"], aggregated["ids"]["unresolved"]) == (["one"], ["two"])
    rate = aggregated["resolve_rate"]
    assert (rate["value"], rate["confidence"], rate["method"]) == (0.5, 0.95, "wilson")
    assert 0 < rate["low"] < 0.5 < rate["high"] < 1
    assert aggregated["pass_at"] == {"1": 0.5}
    assert aggregated["failures"] == aggregated["groups"] == {}
    spent_twice = {name: 2 * number for name, number in spent.items()} | {"cost_usd": 0.82}
    assert {name: aggregated["usage"][name] for name in USAGE} == spent_twice
    assert set(aggregated["seconds"]) == {"total", "p50", "p95"}

    (row,) = (row for row in evalkit.rows() if row["instance_id"] == "one")
    assert set(row) >= ROW
    assert (row["schema"], row["attempt"], row["outcome"], row["verdict"], row["score"]) == (
        1, 1, "submitted", "resolved", 1.0,
    )  # fmt: skip
    assert row["failure"] is None
    folder = evalkit.run_directory() / row["artifacts"]
    assert set(row["patch"]) == {"sha256", "bytes", "path"}
    assert (evalkit.run_directory() / row["patch"]["path"]).stat().st_size == row["patch"]["bytes"]
    assert set(row["usage"]) >= USAGE
    assert set(row["stages"]) == {"queued", "open", "prepare", "solve", "collect", "grade"}
    assert row["started_at"].endswith("Z")
    assert row["finished_at"].endswith("Z")
    assert row["artifacts"] == "instances/one/attempt-1"
    files = {"agent.log", "patch.diff", "trajectory.jsonl", "test_output.txt", "report.json"}
    assert {each.name for each in folder.iterdir()} >= files
    assert {each.name for each in evalkit.run_directory().iterdir()} >= {"run.json", "results.jsonl", "run.log"}
    manifest = json.loads((evalkit.run_directory() / "run.json").read_text())
    assert manifest["instance_ids"] == ["one", "two"]
    assert manifest["dataset"]["fingerprint"]
    assert manifest["versions"]["evalkit"]
    assert manifest["origin"]["agent.name"].startswith("flag")


@pytest.mark.slow
def test_groups_and_a_table_for_people(evalkit: Evalkit) -> None:
    for name, difficulty in (("a", "easy"), ("b", "hard"), ("c", "hard")):
        toml = f'[metadata]\ndifficulty = "{difficulty}"\n'
        make_task(evalkit.folder / "tasks" / name, tests="exit 0" if name != "b" else "exit 1", toml=toml)
    assert evalkit(*infer("touch x")).code == 0
    finished = evalkit("aggregate", "--by", "difficulty", "--format", "table")
    groups = finished.document["groups"]["difficulty"]
    assert (groups["easy"]["total"], groups["easy"]["resolved"]) == (1, 1)
    assert (groups["hard"]["total"], groups["hard"]["resolved"]) == (2, 1)
    assert groups["hard"]["resolve_rate"] | {"value": 0.5, "n": 2, "method": "wilson"} == groups["hard"]["resolve_rate"]
    for words in ("resolved", "66.7%", "difficulty", "easy", "hard"):
        assert words in finished.stderr
    evalkit("aggregate", "--by", "colour").refused(2, "usage", "--by colour", "no such field")


@pytest.mark.slow
def test_while_it_runs(evalkit: Evalkit) -> None:
    make_tasks(evalkit.folder / "tasks", 3)
    script = "[ $EVALKIT_INSTANCE_ID = task-000 ] || sleep 300"
    process = evalkit.start(*infer(script, "--workers", 3))
    wait_until(lambda: len(evalkit.rows_so_far()) == 1, process)
    now = evalkit("aggregate")
    assert now.code == 1
    assert now.document["buckets"] == dict.fromkeys(BUCKETS, 0) | {"empty": 1, "incomplete": 2}
    assert now.document["ids"]["incomplete"] == ["task-001", "task-002"]
    process.kill()
    process.communicate()


def test_all_attempts_of_several_runs(evalkit: Evalkit) -> None:
    """pass@k is the unbiased estimate over all samples; an instance counts once, as its best."""
    always: dict[str, Any] = {"attempts": 2, "stop_on": "never"}
    resolved, failed = {"verdict": "resolved"}, {"verdict": "unresolved"}
    store(evalkit.runs / "a", ["x", "y"], [
        make_result("x", 1, **resolved), make_result("x", 2, **failed),
        make_result("y", 1, **failed), make_result("y", 2, **failed),
    ], **always)  # fmt: skip
    store(evalkit.runs / "b", ["x", "y"], [
        make_result("x", 1, **failed), make_result("x", 2, **failed), make_result("y", 1, **resolved),
    ], **always)  # fmt: skip
    document = evalkit("aggregate", "a", "b", "b").document
    assert document["runs"] == ["runs/a", "runs/b"]
    assert document["total"] == document["buckets"]["resolved"] == 2
    # One of four is right for x, one of three for y, whose fourth attempt was never made.
    assert document["pass_at"] == pytest.approx(
        {"1": (1 / 4 + 1 / 3) / 2, "2": (1 / 2 + 2 / 3) / 2, "3": 7 / 8, "4": 1.0}
    )
    assert document["resolve_rate"]["value"] == pytest.approx(document["pass_at"]["1"]), (
        "the headline is no best of four"
    )
    assert document["resolve_rate"]["n"] == 2
    assert document["repeats"]["pass_all"]["2"]["value"] == 0.0
    assert document["repeats"]["pass_at"]["4"]["n"] == 1
    assert evalkit("aggregate", "a").document["pass_at"] == {"1": 0.25, "2": 0.5}


def test_runs_that_measure_different_things_are_not_merged(evalkit: Evalkit) -> None:
    resolved, failed = "resolved", "unresolved"
    for name, rows in (("a", (resolved, failed)), ("again", (failed, failed)), ("b", (resolved, resolved))):
        usage = Usage(cost_usd=0.5, input_tokens=7)
        results = [make_result(each, usage=usage, verdict=verdict) for each, verdict in zip("xy", rows, strict=True)]
        store(evalkit.runs / name, ["x", "y"], results, model="other" if name == "b" else None)
    done = evalkit("aggregate", "a", "again", "b", "--format", "table")
    assert done.code == 0
    assert [each["runs"] for each in done.document["documents"]] == [["runs/a", "runs/again"], ["runs/b"]]
    assert [each["resolve_rate"]["value"] for each in done.document["documents"]] == [0.25, 1.0]
    assert done.document["resolve_rate"] is None
    assert done.document["usage"]["cost_usd"] == 3.0
    assert [each["runs"] for each in done.document["pareto"]] == [["runs/b"]]
    assert "listed one by one" in done.stderr
    assert "tasks gold other" in done.stderr
    merged = evalkit("aggregate", "a", "again", "b", "--merge").document
    assert (merged["total"], merged["resolve_rate"]["value"]) == (2, pytest.approx(0.5))
    assert "documents" not in evalkit("aggregate", "a", "again").document


def test_shards_of_one_selection_are_one(evalkit: Evalkit) -> None:
    for number, name in enumerate(("x", "y"), 1):
        store(evalkit.runs / name, [name], [make_result(name)], shard=f"{number}/2", fingerprint=name)
    document = evalkit("aggregate", "x", "y").document
    assert (document["total"], document["resolve_rate"]["n"]) == (2, 2)


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(evalkit: Evalkit) -> None:
    """Rows of ten runs take no more than those of one."""
    ids = [f"instance-{number:03}" for number in range(100)]
    peaks = []
    for name, rounds in (("few", 10), ("many", 600)):
        store(evalkit.runs / name, ids, [])
        row = encode_row(make_result("NAME", 1, verdict="unresolved")).decode().rstrip("\n")
        lines = "".join(row.replace("NAME", instance) + "\n" for instance in ids)
        (evalkit.runs / name / "results.jsonl").write_text(lines * rounds)
        peaks.append(measure_peak(evalkit, "aggregate", str(evalkit.runs / name)))
    assert peaks[1] < peaks[0] + (10 << 10)


PROBE = """
import re, sys
from pathlib import Path
from evalkit.__main__ import main
try:
    main()
except SystemExit:
    print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def measure_peak(evalkit: Evalkit, *arguments: str) -> int:
    """The most memory in KB that a command ever had."""
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=evalkit.environment(), check=True)
    assert json.loads(done.stdout)["buckets"]["unresolved"] == 100
    return int(done.stderr.splitlines()[-1])


def test_suspicious_instances_are_counted_once_and_no_more_after_a_clean_verdict(evalkit: Evalkit) -> None:
    doubtful = {"outcome": "submitted", "verdict": "resolved", "suspicious": ("edits conftest.py",)}
    rows = [make_result("a", 1, **doubtful), make_result("a", 2, **doubtful), make_result("b", 1, **doubtful)]
    rows += [make_result("b", 1, outcome="submitted", verdict="resolved"), make_result("c", 1)]
    store(evalkit.folder / "run", ["a", "b", "c"], rows, attempts=2)
    document = evalkit("aggregate", "run").document
    assert (document["suspicious"], document["suspicious_ids"]) == (1, ["a"])
