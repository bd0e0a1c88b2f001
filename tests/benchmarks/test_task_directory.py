"""What of a task directory an agent gets to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.benchmarks.task_directory import Task, read_task, strip_canary
from tests.support.tasks import make_task

IMAGE = '[environment]\ndocker_image = "some/image:1"\n'


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("Do it.\n", "Do it.\n"),
        ("<!-- a canary GUID 1 -->\n# CANARY two\n\n\nDo it.\n", "Do it.\n"),
        ("# Title\n# canary\n", "# Title\n# canary\n"),
        ("\nDo it.\n", "\nDo it.\n"),
        ("# canary", ""),
    ],
)
def test_marks_at_the_start_of_a_statement_are_not_shown(statement: str, seen: str) -> None:
    assert strip_canary(statement) == seen


@pytest.mark.parametrize(
    ("toml", "files", "brings"),
    [
        ("", {}, True),
        ("", {"data.txt": "x"}, True),
        ("", {"Dockerfile": "FROM x", "data.txt": "x"}, False),
        (IMAGE, {}, False),
        (IMAGE, {"data.txt": "x"}, True),
        (IMAGE, {"Dockerfile": "FROM x", "data.txt": "x"}, False),
        (f'{IMAGE}[evalkit]\ngrade = "fresh"\n', {"data.txt": "x"}, False),
    ],
)
def test_files_are_laid_into_the_work_folder_where_no_dockerfile_takes_them(
    tmp_path: Path, toml: str, files: dict[str, str], brings: bool
) -> None:
    task = read_task(make_task(tmp_path / "task", toml=toml, files=files), in_containers=True).data
    assert isinstance(task, Task)
    assert task.brings_files is brings
