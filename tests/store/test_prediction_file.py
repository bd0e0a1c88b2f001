"""Predictions are read from every form that tools write, and refused with their place where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.errors import UsageError
from evalkit.store.prediction_file import read_predictions
from tests.support.requirements import shared

ENTRY = {"instance_id": "one", "model_name_or_path": "me", "model_patch": "diff\n", "exit_status": "kept out"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preds.json", json.dumps({"one": ENTRY})),
        ("preds.json", json.dumps([ENTRY])),
        ("preds.json", json.dumps(ENTRY)),
        ("preds.json", json.dumps({"one": ENTRY}, indent=2)),
        ("preds.jsonl", json.dumps(ENTRY) + "\n\n"),
        ("preds", json.dumps(ENTRY) + "\n" + json.dumps({**ENTRY, "instance_id": "two"}) + "\n"),
    ],
)
def test_every_form(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    prediction = read_predictions(tmp_path / name)["one"]
    assert (prediction.patch, prediction.model) == (b"diff\n", "me")


@pytest.mark.parametrize("entry", [{}, {"model_patch": None}, {"model_patch": ""}])
def test_no_patch_is_an_empty_one(tmp_path: Path, entry: dict[str, object]) -> None:
    (tmp_path / "preds.json").write_text(json.dumps({"one": entry}))
    assert read_predictions(tmp_path / "preds.json")["one"].patch == b""


def test_bytes_that_were_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    patches = {"one": b"\x80\xff\0".decode("utf-8", "surrogateescape"), "two": "\ud800"}
    (tmp_path / "preds.json").write_text(json.dumps({name: {"model_patch": patch} for name, patch in patches.items()}))
    found = read_predictions(tmp_path / "preds.json")
    assert found["one"].patch == b"\x80\xff\0"
    assert found["two"].patch == b"\xed\xa0\x80"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("preds.json", '[{"instance_id": "one"}, {"instance_id": "one"}]', "entry 2: a second prediction for one"),
        ("preds.json", '{"one": {}, "one": {}}', "preds.json: one is there twice"),
        ("preds.json", '{"one": {"instance_id": "two"}}', "its instance_id is two"),
        ("preds.json", '{"one": {"model_patch": 3}}', "model_patch is int, not text"),
        ("preds.json", "[1]", "entry 1: a prediction is an object, this is int"),
        ("preds.json", "{", "preds.json: not JSON"),
        ("preds.json", "[]", "has no predictions"),
        ("preds.json", "3", "predictions are an object by instance id, a list, or JSON lines"),
        ("preds.jsonl", '{"instance_id": "one"}\n\n{', "preds.jsonl:3: not JSON"),
        ("preds.jsonl", '{"model_patch": ""}', "preds.jsonl:1: instance_id is missing"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=complaint):
        read_predictions(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.json cannot be read"):
        read_predictions(tmp_path / "nothing.json")


def test_files_of_other_tools() -> None:
    assert len(read_predictions(shared("runs/mini-swe-agent-lite/output/deepseek_bench1/preds.json"))) == 100
    assert "pydicom__pydicom-1458" in read_predictions(shared("runs/swe-agent/all_preds.jsonl"))
