"""The texts that name a set of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import ConfigError, DatasetError
from evalkit.sources.source import (
    FolderSource,
    GitSource,
    HubSource,
    RegistrySource,
    Source,
    read_source,
    split_tail,
)

HOST = "https://git.example"
COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org/name", GitSource(f"{HOST}/org/name")),
        ("org/name@v1.1", GitSource(f"{HOST}/org/name", ref="v1.1")),
        ("org/name@feature/x", GitSource(f"{HOST}/org/name", ref="feature/x")),
        ("org/name/tree/main/data/qa", GitSource(f"{HOST}/org/name", tail="main/data/qa")),
        ("org/name#set@2.0", GitSource(f"{HOST}/org/name", dataset="set@2.0")),
        ("org/name@v1#set", GitSource(f"{HOST}/org/name", ref="v1", dataset="set")),
        ("https://h.example/org/name", GitSource("https://h.example/org/name")),
        ("https://h.example/org/name.git@v1", GitSource("https://h.example/org/name.git", ref="v1")),
        ("https://h.example/org/name/tree/main", GitSource("https://h.example/org/name", tail="main")),
        ("https://h.example/o/n/-/tree/main/sub", GitSource("https://h.example/o/n", tail="main/sub")),
        ("https://h.example/o/n/blob/main/a/r.json#x", GitSource("https://h.example/o/n", "", "main/a/r.json", "x")),
        ("https://h.example/o/n/blob/main/r.json", GitSource("https://h.example/o/n", "", "main/r.json", "")),
        ("ssh://git@h.example/org/name@v1", GitSource("ssh://git@h.example/org/name", ref="v1")),
        ("git@h.example:org/name.git", GitSource("git@h.example:org/name.git")),
        ("git@h.example:org/name.git@v1", GitSource("git@h.example:org/name.git", ref="v1")),
        ("git@h.example:org/name/tree/main/sub", GitSource("git@h.example:org/name", tail="main/sub")),
        ("file:///srv/git/name@v1", GitSource("file:///srv/git/name", ref="v1")),
        ("https://h.example/a/registry.json", RegistrySource("https://h.example/a/registry.json")),
        ("https://h.example/registry.json#n@1", RegistrySource("https://h.example/registry.json", "n@1")),
        ("hf:org/name", HubSource("org/name")),
        ("hf:org/name@v1", HubSource("org/name", "v1")),
        ("hf:org/name/tree/main/tasks", HubSource("org/name", "main", "tasks")),
    ],
)
def test_each_form_is_read(text: str, meant: Source) -> None:
    assert read_source(text, HOST) == meant


def test_what_is_there_is_meant_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/name").mkdir(parents=True)
    Path("registry.json").touch()
    assert read_source("org/name", HOST) == FolderSource(Path("org/name"))
    assert read_source("registry.json#set@1", HOST) == RegistrySource("registry.json", "set@1")
    assert read_source("org/name#set", HOST) == RegistrySource("org/name/registry.json", "set")


@pytest.mark.parametrize(
    "text",
    [
        "org/name@--upload-pack=x",
        "org/name/tree/--upload-pack=x",
        "ext::sh -c true",
        "ext::sh",
        "ftp://h.example/org/name",
        "https://user:secret@h.example/org/name",
        "https://token@h.example/org/name",
        "https://h.example/org/name/tree/main/../../x",
        "https://h.example/org/ name",
        "hf:name",
    ],
)
def test_what_git_must_not_be_given_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_source(text, HOST)


@pytest.mark.parametrize("text", ["./tasks", "/srv/tasks", "tasks", "-x/y"])
def test_what_is_not_there_says_what_could_be(text: str) -> None:
    with pytest.raises(DatasetError, match="there is no directory of tasks") as caught:
        read_source(text, HOST)
    assert "org/name@ref" in caught.value.hint


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("main/data/qa", ("main", "data/qa")),
        ("feature/x/data", ("feature/x", "data")),
        ("feature/x", ("feature/x", "")),
        (f"{COMMIT}/data", (COMMIT, "data")),
        ("nowhere/data", ("nowhere", "data")),
    ],
)
def test_a_ref_with_slashes_is_told_from_the_folder(tail: str, expected: tuple[str, str]) -> None:
    assert split_tail(tail, {"main", "feature/x", "data"}) == expected
