"""Tasks among the paths of a repository."""

from __future__ import annotations

import pytest

from evalkit.errors import DatasetError
from evalkit.sources.contents import find_collision, find_tasks

PATHS = ("README.md", "tasks/a/task.toml", "tasks/b/instruction.md", "tasks/b/steps/one/instruction.md", "tasks/x.md")
ELSEWHERE = ("data/qa/a/task.toml", "data/qa/b/task.toml", "data/tw/c/task.toml", "data/tw/c/steps/s/instruction.md")


@pytest.mark.parametrize(
    ("paths", "folder", "expected"),
    [
        (PATHS, "", ["tasks/a", "tasks/b"]),
        (PATHS, "tasks", ["tasks/a", "tasks/b"]),
        (PATHS, "tasks/b", ["tasks/b"]),
        (ELSEWHERE, "data/qa", ["data/qa/a", "data/qa/b"]),
        (("a/task.toml", "b/task.toml"), "", ["a", "b"]),
        (("task.toml",), "", [""]),
        (("sub/tasks/a/task.toml",), "sub", ["sub/tasks/a"]),
    ],
)
def test_tasks_are_found_where_they_belong(paths: tuple[str, ...], folder: str, expected: list[str]) -> None:
    assert find_tasks(paths, folder, "repo") == expected


@pytest.mark.parametrize(
    ("paths", "folder", "hint"),
    [
        (ELSEWHERE, "", "data/qa (2), data/tw (1)"),
        (("src/x.py", "README.md"), "", "there is: README.md, src"),
        (("src/x.py",), "src", "there is: x.py"),
        ((), "", "nothing"),
    ],
)
def test_where_there_are_none_it_says_what_there_is(paths: tuple[str, ...], folder: str, hint: str) -> None:
    with pytest.raises(DatasetError, match="no tasks in") as caught:
        find_tasks(paths, folder, "repo")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("paths", "collides"),
    [
        (["a/x", "a/y"], False),
        (["a/x", "a/X"], True),
        (["A/x", "a/y"], True),
        (["caf\u00e9", "cafe\u0301"], True),
        (["stra\u00dfe", "STRASSE"], True),
    ],
)
def test_names_that_are_one_elsewhere(paths: list[str], collides: bool) -> None:
    assert (find_collision(paths) is not None) is collides
