"""A small library with three bugs, the instances that they are, and the image they share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.engine import Engine
from tests.support.repositories import diff_of, make_repository
from tests.support.swebench import Recipe, Shelf, eval_script, shelf

SETUP = """\
from setuptools import setup
setup(name="wordlist", version="1.0", packages=["wordlist"])
"""
CODE = """\
def split(text):
    return text.split(" ")


def longest(words):
    return max(words, key=len)


def initials(words):
    return "".join(word[1] for word in words)
"""
TESTS = """\
from wordlist import initials, longest, split


def test_one_space():
    assert split("a b") == ["a", "b"]


def test_the_longest():
    assert longest(["a", "bbb", "cc"]) == "bbb"
"""
REPAIRS = {
    "split": ('text.split(" ")', "text.split()", 'assert split("a  b\\t c") == ["a", "b", "c"]'),
    "longest": ("max(words, key=len)", 'max(words, key=len, default="")', 'assert longest([]) == ""'),
    "initials": ("word[1]", "word[0]", 'assert initials(["ab", "cd"]) == "ac"'),
}
ALL = set(REPAIRS)
P2P = ["tests/test_words.py::test_one_space", "tests/test_words.py::test_the_longest"]


REINSTALL = "python -m pip install -e ."
INSTALLED = "RUN /opt/miniconda3/envs/testbed/bin/python -m pip install -q -e ."


@dataclass(frozen=True)
class Library:
    """Three instances of one repository."""

    rows: list[dict[str, Any]]
    repository: Path
    shelf: Shelf

    def diff(self, code: str) -> str:
        return diff_of(self.repository, {"wordlist/__init__.py": code})

    def short_row(self, name: str) -> dict[str, Any]:
        """The first instance under another name, whose script does not install the library again."""
        row = self.row("split")
        return row | {"instance_id": name, "eval_script": row["eval_script"].replace(REINSTALL, "true")}

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["instance_id"] == name)


def instance_of(repository: Path, base: str, name: str) -> dict[str, Any]:
    old, new, check = REPAIRS[name]
    patch = diff_of(repository, {"wordlist/__init__.py": CODE.replace(old, new)})
    test_patch = diff_of(repository, {"tests/test_words.py": f"{TESTS}\n\ndef test_repaired():\n    {check}\n"})
    files = ["tests/test_words.py"]
    script = eval_script(base, test_patch, "pytest -rA tests/test_words.py", files, REINSTALL)
    return {
        "instance_id": name, "repo": "me/wordlist", "version": "1.0", "base_commit": base, "patch": patch,
        "problem_statement": f"{name}() is wrong.", "test_patch": test_patch, "eval_script": script,
        "FAIL_TO_PASS": json.dumps(["tests/test_words.py::test_repaired"]), "PASS_TO_PASS": json.dumps(P2P),
        "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail",
    }  # fmt: skip


@contextmanager
def make_library(engine: Engine, folder: Path) -> Iterator[Library]:
    repository = folder / "repository"
    repository.mkdir()
    files = {
        "setup.py": SETUP,
        "wordlist/__init__.py": CODE,
        "tests/test_words.py": TESTS,
        ".gitignore": "*.egg-info\n",
    }
    base = make_repository(repository, files)
    with shelf(engine, folder / "images") as images:
        rows = [instance_of(repository, base, name) for name in REPAIRS]
        image = images.build("wordlist", Recipe(repository, finish=INSTALLED))
        for row in rows:
            row["image"] = image
        yield Library(rows, repository, images)
