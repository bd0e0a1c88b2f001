"""What users hand in is read without a crash, whatever their files hold."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from evalkit.benchmarks.datasets import read_rows
from evalkit.benchmarks.swebench.instances import to_instance
from evalkit.benchmarks.taskfile import read_task
from evalkit.benchmarks.tasks import read_rewards
from evalkit.domain.failures import Failed
from evalkit.settings import load
from tests.support.fuzz import as_json, damaged, lines, reads_or_refuses, with_bytes_replaced
from tests.support.tasks import make_task

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
def test_config_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evalkit.toml"
    path.write_bytes(content)
    reads_or_refuses(lambda: bool(load(file=path, environment={})), path)
