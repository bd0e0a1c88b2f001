"""Predictions that evalkit prints are taken by the official harness as they are."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Evalkit
from tests.support.tasks import make_task

pytest.importorskip("swebench", reason="swebench is not installed")

LOCAL = ("--workspace", "local", "--set", "workspace.unsandboxed=true")


def official_loader() -> Callable[..., list[dict[str, Any]]]:
    """The function that reads predictions, without the module around it, which imports half a gigabyte."""
    spec = importlib.util.find_spec("swebench")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "harness" / "utils.py").read_text())
    wanted = [node for node in tree.body if getattr(node, "name", "") == "get_predictions_from_file"]
    assert len(wanted) == 1
    names: dict[str, Any] = {"json": json}
    exec(compile(ast.Module(list(wanted), []), "utils.py", "exec"), names)
    found: Callable[..., list[dict[str, Any]]] = names["get_predictions_from_file"]
    return found


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_the_official_harness_takes_them(tmp_path: Path, evalkit: Evalkit, suffix: str) -> None:
    solutions = {
        "text": "printf 'caf\\303\\251\\n' > a",
        "bytes": "printf '\\377\\n' > a",
        "binary": "printf '\\000\\377' > b",
    }
    for name, solution in (solutions | {"empty": "true"}).items():
        make_task(tmp_path / "tasks" / name, solution=f'cd "$EVALKIT_WORK" && {solution}', files={"a": "old\n"})
    done = evalkit("infer", "tasks", *LOCAL)
    assert done.code == 0, done.stderr
    lines = evalkit("predictions").stdout
    place = tmp_path / f"preds.{suffix}"
    if suffix == "json":
        place.write_text(json.dumps([json.loads(line) for line in lines.splitlines()]))
    else:
        place.write_bytes(lines)
    loaded = {each["instance_id"]: each for each in official_loader()(str(place), "", "test")}
    assert set(loaded) == {*solutions, "empty"}
    assert loaded["empty"]["model_patch"] == ""
    for name in loaded:
        assert loaded[name]["model_name_or_path"] == "gold"
        (kept,) = evalkit.run_directory().glob(f"instances/{name}/attempt-1/patch.diff")
        assert loaded[name]["model_patch"].encode("utf-8", "surrogateescape") == kept.read_bytes()
    again = evalkit("predictions", place).stdout
    assert [json.loads(line)["model_patch"] for line in again.splitlines()] == [
        each["model_patch"] for each in loaded.values()
    ]
