"""Any string is an instance id, and each gets a folder of its own inside the run."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from evalkit.store.folders import name_folders

NASTY = [
    *("../../etc", "a/b", "a\\b", "/etc/passwd", "..", ".", "", " ", "a", "A", "x" * 300, "X" * 300, "🦊", "\udc80"),
    *("a\0b", "trailing.", "trailing..", "-rf", "~", "con", "a b", "ünï", "attempt-1", "new\nline", "a~b", "..."),
]
IDS = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=30), st.text("aA.~/", max_size=4)), unique=True)


@given(IDS)
def test_folders_are_distinct_and_inside(ids: list[str]) -> None:
    folders = name_folders(ids)
    assert list(folders) == ids
    names = list(folders.values())
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name not in ("", ".", "..")
        assert Path(name).name == name
        assert "\0" not in name
        assert len(name.encode()) <= 120
        assert not name.endswith(".")


@given(IDS, IDS)
def test_ids_that_are_added_change_no_folder(first: list[str], more: list[str]) -> None:
    together = list(dict.fromkeys([*first, *more]))
    before, after = name_folders(first), name_folders(together)
    assert {name: after[name] for name in first} == before


def test_plain_ids_are_their_own_folders() -> None:
    ids = ["django__django-11099", "a.b", "x_1@2+3=4"]
    assert name_folders(ids) == {name: name for name in ids}


def test_all_of_them_can_be_made(tmp_path: Path) -> None:
    for name in name_folders(NASTY).values():
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(NASTY)
