"""Logs of Inspect: recorded by Inspect 0.3 itself, with transcripts left out, and broken ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UsageError
from evalkit.store.foreign import open_foreign
from evalkit.store.foreign_run import ForeignRun
from evalkit.store.inspect_logs import number_of
from tests.support.cli import Evalkit

RECORDED = Path(__file__).parent / "recorded" / "inspect"


def opened(path: Path) -> ForeignRun:
    run = open_foreign(path)
    assert run is not None
    return run


@pytest.mark.parametrize("name", ["small.eval", "small.json"])
def test_samples_are_attempts_with_the_value_of_the_first_scorer(name: str) -> None:
    run = opened(RECORDED / name)
    assert run.label == "small mockllm/model"
    assert (run.facts.attempts.count, run.facts.attempts.stop_on) == (2, "never")
    found = {(entry.row.instance_id, entry.row.attempt): entry.row for entry in run.entries}
    assert {key: (row.outcome, row.verdict) for key, row in found.items() if key[1] == 1} == {
        ("right", 1): ("submitted", "resolved"),
        ("wrong", 1): ("submitted", "unresolved"),
        ("slow", 1): ("timeout", "unresolved"),
        ("breaks", 1): ("error", "ungraded"),
    }
    right = found["right", 2]
    assert (right.usage.input_tokens, right.usage.cached_tokens, right.usage.output_tokens) == (140, 40, 10)
    assert right.usage.cost_usd == 0.002
    assert right.metrics == {"partial": 1.0}
    assert right.seconds > 0
    failure = found["breaks", 2].failure
    assert failure is not None
    assert "the sandbox went away" in failure.message


@pytest.mark.parametrize("name", ["small.eval", "small.json"])
def test_a_folder_with_one_log_is_that_log(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((RECORDED / name).read_bytes())
    assert opened(tmp_path).label == "small mockllm/model"


def test_nobody_is_advised_to_resume_what_another_tool_has_run(evalkit: Evalkit) -> None:
    aggregated = evalkit("aggregate", RECORDED / "small.eval").document
    assert (aggregated["buckets"]["error"], aggregated["resumable"]) == (1, 0)
    shown = evalkit("show", RECORDED / "small.eval", "breaks")
    assert shown.document["failure"]["hint"] == ""
    assert "resume" not in shown.stderr


def test_both_formats_are_compared_with_each_other(evalkit: Evalkit) -> None:
    done = evalkit("compare", RECORDED / "small.eval", RECORDED / "small.json")
    assert done.code == 0, done.stderr
    assert (done.document["total"], done.document["both"], done.document["neither"]) == (3, 1, 2)
    assert done.document["left_out"]["a"]["error"] == 1


def test_metadata_of_samples_are_fields_to_group_by(tmp_path: Path, evalkit: Evalkit) -> None:
    log: dict[str, Any] = json.loads((RECORDED / "small.json").read_text())
    for sample in log["samples"]:
        sample["metadata"] = {
            "kind": "new" if sample["id"] == "right" else "old",
            "level": 3,
            "patch": "x" * 101,
            "l": [],
        }
    (tmp_path / "log.json").write_text(json.dumps(log))
    done = evalkit("compare", tmp_path / "log.json", tmp_path / "log.json", "--by", "kind", "--by", "level")
    groups = {
        field: {value: each["total"] for value, each in of.items()} for field, of in done.document["groups"].items()
    }
    assert groups == {"kind": {"new": 1, "old": 2}, "level": {"3": 3}}
    evalkit("aggregate", tmp_path / "log.json", "--by", "patch").refused(2, "usage", "they have: kind, level")


def test_instances_that_a_log_did_not_reach_are_not_run(tmp_path: Path, evalkit: Evalkit) -> None:
    log: dict[str, Any] = json.loads((RECORDED / "small.json").read_text())
    log["status"], log["samples"] = "cancelled", [each for each in log["samples"] if each["id"] == "right"]
    (tmp_path / "log.json").write_text(json.dumps(log))
    done = evalkit("aggregate", tmp_path / "log.json")
    assert done.code == 1
    assert (done.document["total"], done.document["buckets"]["incomplete"]) == (4, 3)


def test_the_journal_of_a_log_without_an_end_is_read(tmp_path: Path) -> None:
    log = json.loads((RECORDED / "small.json").read_text())
    path = tmp_path / "torn.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": log["eval"]}))
        archive.writestr("_journal/summaries/1.json", json.dumps(log["samples"][:2]))
    run = opened(tmp_path)
    assert len(run.entries) == 2
    assert len(run.facts.instance_ids) == 4


@pytest.mark.parametrize("kind", ["eval", "json"])
def test_several_logs_in_a_folder_are_to_be_named(tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.{kind}").write_bytes((RECORDED / f"small.{kind}").read_bytes())
    with pytest.raises(UsageError, match="2 logs of Inspect"):
        open_foreign(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut", (RECORDED / "small.eval").read_bytes()[:4000]], ids=["empty", "head", "cut"]
)
def test_a_broken_archive_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.eval"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"broken\.eval cannot be read as a log"):
        open_foreign(path)


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1.0), ("P", 0.5), ("I", 0.0), (True, 1.0), (0.25, 0.25), ("0.5", 0.5), ("maybe", None), ({"a": 1}, None)],
)
def test_values_are_numbers_as_inspect_has_them(value: object, number: float | None) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize("damage", ["content", "password", "method"])
def test_a_member_that_cannot_be_read_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.eval"
    method = zipfile.ZIP_BZIP2 if damage == "method" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("header.json", json.dumps({"eval": {}, "filler": list(range(1000))}))
    content = bytearray(path.read_bytes())
    if damage == "content":
        content[60:200] = b"\xff" * 140
    elif damage == "password":
        content[6] |= 1  # the flag of an encrypted member, here and in the directory
        content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"log\.eval cannot be read as a log of Inspect"):
        open_foreign(path)
