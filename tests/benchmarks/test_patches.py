"""Patches are made of what an agent left, which may lead anywhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import pytest

from evalkit.benchmarks.patches import apply_patch, compare_trees
from evalkit.domain.failures import Failed, kind_of, unwrap


def test_a_link_in_the_place_of_a_tree_is_not_followed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (canary / ".git").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(canary)
    with pytest.raises(Failed, match="link"):
        anyio.run(compare_trees, tmp_path / "a", tmp_path / "b", tmp_path / "patch.diff")
    assert (canary / ".git").is_dir()


def test_links_inside_a_tree_are_not_followed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (canary / ".git").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "door").symlink_to(canary)
    (tmp_path / "b" / ".git").symlink_to(canary / ".git")
    anyio.run(compare_trees, tmp_path / "a", tmp_path / "b", tmp_path / "patch.diff")
    assert (canary / ".git").is_dir()


def test_what_was_changed_added_and_removed_comes_back(tmp_path: Path) -> None:
    before, after, again = tmp_path / "a", tmp_path / "b", tmp_path / "again"
    for tree in (before, again):
        tree.mkdir()
        (tree / "kept").write_bytes(b"one\n")
        (tree / "gone").write_bytes(b"two\n")
    after.mkdir()
    (after / "kept").write_bytes(b"\xff\x00 binary")
    (after / "new").write_text("#!/bin/sh\n")
    (after / "new").chmod(0o755)
    anyio.run(compare_trees, before, after, tmp_path / "patch.diff")
    assert anyio.run(apply_patch, tmp_path / "patch.diff", again) is None
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        "kept": b"\xff\x00 binary",
        "new": b"#!/bin/sh\n",
    }
    assert (again / "new").stat().st_mode & 0o111


def test_a_full_disk_makes_no_patch_that_looks_whole(tmp_path: Path) -> None:
    """git itself ends as if it had written everything."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "new").write_text("content\n")
    with pytest.raises(OSError, match="space") as raised:
        anyio.run(compare_trees, tmp_path / "a", tmp_path / "b", Path("/dev/full"))
    assert kind_of(unwrap(raised.value), "collect") == "disk_full"


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Path]:
    """A patch of one file, and a tree that it applies to."""
    before, after, tree = tmp_path / "a", tmp_path / "b", tmp_path / "tree"
    for folder, content in ((before, "one\n"), (after, "two\n"), (tree, "one\n")):
        folder.mkdir()
        (folder / "file").write_text(content)
    anyio.run(compare_trees, before, after, tmp_path / "patch.diff")
    return tmp_path / "patch.diff", tree


def test_git_refuses_what_does_not_fit_or_is_damaged(prepared: tuple[Path, Path]) -> None:
    patch, tree = prepared
    (tree / "file").write_text("three\n")
    assert "patch does not apply" in (anyio.run(apply_patch, patch, tree) or "")
    patch.write_text("no patch at all\n")
    assert anyio.run(apply_patch, patch, tree)


@pytest.mark.parametrize(
    "fault",
    [
        "exit 1",
        "exit 128",
        "exit 127",
        "kill -9 $$",
        'case "$*" in *--check*) exit 0 ;; esac; echo error: unable to write file >&2; exit 1',
        'echo "fatal: out of memory $$" >&2; exit 128',
    ],
    ids=["no words", "128", "127", "killed", "no room", "no memory"],
)
def test_a_git_that_fails_for_other_reasons_refuses_nothing(
    prepared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    patch, tree = prepared
    programs = tmp_path / "programs"
    programs.mkdir()
    script = programs / "git"
    script.write_text(f"#!/bin/sh\n{fault}\n")
    script.chmod(0o755)
    with monkeypatch.context() as changed:
        changed.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        with pytest.raises(Failed) as raised:
            anyio.run(apply_patch, patch, tree)
    assert raised.value.kind == "workspace"
    shutil.rmtree(programs)
    assert anyio.run(apply_patch, patch, tree) is None
