"""What users hand in is read without a crash, whatever their files hold."""

from __future__ import annotations

import base64
import bz2
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evalkit.agents.prompts import find_prompt
from evalkit.benchmarks.commit0 import Commit0, read_test_ids
from evalkit.benchmarks.datasets import read_rows
from evalkit.benchmarks.gaia import to_instance as to_question
from evalkit.benchmarks.rewards import read_rewards
from evalkit.benchmarks.swebench.instances import to_instance
from evalkit.benchmarks.swebench.multimodal import illustrate
from evalkit.benchmarks.task_directory import read_task
from evalkit.config import Config
from evalkit.containers import credentials
from evalkit.domain.failures import Failed
from evalkit.errors import UsageError
from evalkit.runs.execute import select_instances
from evalkit.settings import load
from tests.support.fuzz import as_json, damaged, lines, reads_or_refuses, with_bytes_replaced
from tests.support.tasks import make_task

AS_PROCESSES = settings(max_examples=int(os.environ.get("EVALKIT_TEST_EXAMPLES") or 8))
"""For what starts a process for each example."""
ROW = {
    "instance_id": "a",
    "repo": "o/r",
    "base_commit": "0" * 40,
    "problem_statement": "fix it",
    "patch": "diff",
    "version": "1",
    "FAIL_TO_PASS": '["t"]',
    "PASS_TO_PASS": ["u"],
}
TASK_FILE = b"""\
version = "1.0"
[metadata]
difficulty = "easy"
[agent]
timeout_sec = 60.0
[verifier]
env = { A = "${HOME:-x}" }
[environment]
cpus = 1
memory_mb = 512
"""
CONFIG = b"""\
[run]
workers = 3
max_cost_usd = 1.5
[timeouts]
solve = "90s"
[agent]
command = ["sh", "-c", "true"]
"""


def load_rows(path: Path) -> list[str]:
    return [to_instance(row).id for row in read_rows(str(path), "test")]


@given(content=lines([ROW]))
@example(content=b"3\n")
def test_json_lines(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    reads_or_refuses(lambda: load_rows(path), path)


@example(content=as_json([{**ROW, "PASS_TO_PASS": "[" * 5000}]))
@given(content=damaged([ROW]).map(as_json) | with_bytes_replaced(as_json([ROW, ROW])))
def test_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    reads_or_refuses(lambda: load_rows(path), path)


@given(content=with_bytes_replaced(TASK_FILE))
@example(content=b"version = " + b"[" * 5000)
def test_task_files(tmp_path: Path, content: bytes) -> None:
    task = tmp_path / "task"
    if not task.exists():
        make_task(task)
    (task / "task.toml").write_bytes(content)
    reads_or_refuses(lambda: read_task(task, in_containers=True).id, task)


@given(content=damaged({"reward": 1.0}).map(as_json) | with_bytes_replaced(b'{"reward": 1.0}'), text=st.booleans())
@example(content=b"[" * 5000, text=False)
def test_rewards(tmp_path: Path, content: bytes, text: bool) -> None:
    for name in ("reward.json", "reward.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / ("reward.txt" if text else "reward.json")).write_bytes(content)

    def read() -> dict[str, float] | None:
        try:
            return read_rewards(tmp_path)
        except Failed as failure:
            return {} if failure.kind == "grader" else {"blamed on another": float("nan")}

    reads_or_refuses(read, tmp_path)


@given(content=with_bytes_replaced(CONFIG))
@example(content=b"[run]\nworkers = " + b"[" * 5000)
def test_config_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evalkit.toml"
    path.write_bytes(content)
    reads_or_refuses(lambda: bool(load(file=path, environment={})), path)


def as_parquet(rows: list[dict[str, Any]], **how: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out, **how)
    return out.getvalue()


def odd_texts() -> bytes:
    """Rows whose text is no UTF-8, which parquet does not check."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    text = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({**{name: ["a"] for name in ROW}, "problem_statement": text}), out)
    return out.getvalue()


@AS_PROCESSES
@given(data=st.data())
def test_parquet(tmp_path: Path, data: st.DataObject) -> None:
    """In any of its encodings, with any bytes in the place of others."""
    encoding: dict[str, Any] = data.draw(
        st.sampled_from(({}, {"compression": "none"}, {"use_dictionary": False, "compression": "zstd"}))
    )
    path = tmp_path / "rows.parquet"
    path.write_bytes(data.draw(with_bytes_replaced(as_parquet([ROW, ROW], **encoding))))
    reads_or_refuses(lambda: load_rows(path), path)


def test_parquet_with_text_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(odd_texts())
    reads_or_refuses(lambda: load_rows(path), path)


@pytest.mark.slow
@AS_PROCESSES
@given(content=st.binary(max_size=40) | st.integers(0, 40).map(lambda cut: as_parquet([ROW])[: -cut or None]))
def test_files_that_are_no_parquet(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    reads_or_refuses(lambda: load_rows(path), path)


PROMPT = b"""\
{% extends "shell.j2" %}
{% block task %}In {{ work }}: {{ statement | trim }}{% for url in images %} {{ loop.index }}: {{ url }}{% endfor %}
{% if fields.repo %}{{ fields.repo | upper }}{% else %}{{ max_steps + 1 }}{% endif %}{% endblock %}
"""
VARIABLES: dict[str, Any] = {
    "statement": "fix it",
    "work": "/w",
    "instance_id": "i",
    "fields": {"repo": "o/r"},
    "images": ["a.png"],
    "command_timeout": "3 s",
    "max_steps": 3,
}


@given(content=with_bytes_replaced(PROMPT))
@example(content=b"{{ 1 / 0 }}")
@example(content=b"{{ statement + 1 }}")
@example(content=b"{{ max_steps.x.y }}")
@example(content=b"{{ range(10 ** 9) | list }}")
@example(content=b"{{ 'x' * 10 ** 12 }}")
@example(content=b"{{ fields.pop() }}")
@example(content=b'{% extends "mine.j2" %}')
@example(content=b'{% include "mine.j2" %}')
@example(content=b"{{ " + b"(" * 3000 + b"1" + b")" * 3000 + b" }}")
@example(content=b"{{ " + b"-" * 3000 + b"1 }}")
@example(content=b"{{ statement.format(statement) }}{{ '%d' | format(statement) }}")
@example(content=b"\xff\xfe")
def test_prompts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.j2"
    path.write_bytes(content)

    def render() -> Any:
        prompt = find_prompt(Config.model_validate({"agent": {"name": "shell", "prompt": path}}))
        return None if prompt is None else prompt.render(VARIABLES)

    reads_or_refuses(render, path)


QUESTION = {"task_id": "a", "Question": "how many?", "Final answer": "3", "Level": 1, "file_name": ""}
LIBRARY = {
    "instance_id": "a",
    "repo": "o/r",
    "base_commit": "0" * 40,
    "src_dir": "src",
    "test": {"test_cmd": "pytest", "test_dir": "tests"},
    "test_ids": ["t"],
}


ILLUSTRATED = {**ROW, "image_assets": {"problem_statement": ["a.png"], "patch": [{"path": "a.png", "url": "u"}]}}


@given(content=lines([ILLUSTRATED]))
@example(content=as_json({**ILLUSTRATED, "image_assets": "[" * 5000}))
@example(content=as_json({**ILLUSTRATED, "image_assets": {"problem_statement": 3, "patch": 3}}))
@example(content=as_json({**ILLUSTRATED, "image_assets": {"problem_statement": [{}]}}))
def test_rows_with_pictures(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    reads_or_refuses(lambda: [illustrate(row).id for row in read_rows(str(path), "test")], path)


@given(content=lines([QUESTION]))
@example(content=as_json({**QUESTION, "file_name": ["x"]}))
def test_rows_of_gaia(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    reads_or_refuses(lambda: [to_question(row).id for row in read_rows(str(path), "test")], path)


@given(content=lines([LIBRARY]))
@example(content=as_json({**LIBRARY, "test_ids": 3}))
@example(content=as_json({**LIBRARY, "image": 3}))
def test_rows_of_commit0(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    reads_or_refuses(lambda: [each.id for each in Commit0(str(path), "test", tmp_path).load()], tmp_path)


@given(
    content=with_bytes_replaced(bz2.compress(b"tests/test_a.py::test_one\n")) | st.binary(max_size=20).map(bz2.compress)
)
def test_lists_of_tests(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tests.bz2"
    path.write_bytes(content)
    reads_or_refuses(lambda: len(read_test_ids(path)), path)


@given(content=with_bytes_replaced(b"a\n# more\nb.*\n"))
@example(content=b"(\n")
@example(content=b"\0\n")
def test_lists_of_instances(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "names"
    path.write_bytes(content)
    config = Config.model_validate({"benchmark": {"select": str(path).replace(",", "?")}})

    def choose() -> list[str]:
        try:
            return list(select_instances({"a": 1, "b": 2}, config))
        except UsageError as error:
            return [] if "benchmark.select" in error.message + error.hint else [error.message]

    assert set(choose()) <= {"a", "b"}


DOCKER_CONFIG = {
    "auths": {"registry.example": {"auth": base64.b64encode(b"me:secret").decode()}, "b": {"identitytoken": "t"}},
    "credHelpers": {"other.example": ""},
    "credsStore": "",
}


@given(content=damaged(DOCKER_CONFIG).map(as_json) | with_bytes_replaced(as_json(DOCKER_CONFIG)))
@example(content=b'{"auths": ["registry.example"]}')
@example(content=b'{"auths": {"registry.example": "secret"}}')
@example(content=b'{"auths": {"registry.example": {"auth": 3}}}')
@example(content=b'{"auths": {"registry.example": {"auth": "\\u00e4"}}}')
@example(content=b'{"credHelpers": 3}')
@example(content=b'{"credsStore": ["x"]}')
@example(content=b"[" * 5000)
def test_configs_of_docker(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", str(tmp_path))
        reads_or_refuses(lambda: bool(credentials.find("registry.example")), path)
