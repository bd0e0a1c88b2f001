"""Trees are copied as they are, without what only seems to be there, and no longer than somebody waits."""

from __future__ import annotations

import os
import random
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from evalkit.domain.outputs import OutputLimit, TooLarge
from evalkit.system import files, scratch

TERABYTE = 1 << 40


def test_a_file_of_holes_takes_no_room(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(TERABYTE)
        for place in (0, 5 << 20, TERABYTE // 2, TERABYTE - 3):
            os.pwrite(file.fileno(), b"abc", place)
    (tmp_path / "copy").write_text("something longer that was here before")
    files.copy(tmp_path / "large", tmp_path / "copy")
    copied = (tmp_path / "copy").stat()
    assert copied.st_size == TERABYTE
    assert copied.st_blocks * 512 < 1 << 20
    with (tmp_path / "copy").open("rb") as file:
        for place in (0, 5 << 20, TERABYTE // 2, TERABYTE - 3):
            assert os.pread(file.fileno(), 5, place).rstrip(b"\0") == b"abc"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, (4 << 20) - 1, 4 << 20, (9 << 20) + 5])
def test_contents_arrive_whole(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    files.copy(tmp_path / "file", tmp_path / "deep" / "er" / "copy")
    assert (tmp_path / "deep" / "er" / "copy").read_bytes() == content


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_copy_ends_with_the_deadline_of_who_waits_for_it(tmp_path: Path, backend: str) -> None:
    """Here it would never end, as that of a very large tree seems not to."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number:02}").mkdir()

    async def copy() -> None:
        with anyio.move_on_after(0.05):
            await anyio.to_thread.run_sync(copy_again_and_again)

    rounds = 0

    def copy_again_and_again() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            files.copy(source, tmp_path / "target")

    anyio.run(copy, backend=backend)
    assert rounds


def make_deep(folder: Path, depth: int, name: str) -> None:
    """Deeper than a path can be long."""
    folder.mkdir()
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=place)
        place, above = os.open(name, os.O_RDONLY, dir_fd=place), place
        os.close(above)
    os.close(place)


@pytest.mark.parametrize(("depth", "name"), [(3000, "d"), (150, "long" * 50)])
def test_folders_deeper_than_paths_are_long_are_too_large(tmp_path: Path, depth: int, name: str) -> None:
    make_deep(tmp_path / "deep", depth, name)
    with pytest.raises(TooLarge, match=r"folders more than 200 deep|longer than the system takes"):
        files.take(tmp_path / "deep", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    scratch.remove(tmp_path / "deep")


@pytest.mark.slow
def test_a_copy_ends_at_the_first_file_too_many(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50_001):
        (source / str(number)).touch()
    with pytest.raises(TooLarge, match="more than 50,000 files"):
        files.take(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_tree_may_be_as_large_as_it_was_before_and_more(tmp_path: Path) -> None:
    before = tmp_path / "before"
    (before / "a" / "b").mkdir(parents=True)
    (before / "a" / "b" / "file").write_text("12345")
    (before / "link").symlink_to("a")
    extent = files.measure(before)
    assert extent == (5, 5, 3)
    limit = OutputLimit("what was left", bytes=2, files=1, depth=1)
    with pytest.raises(TooLarge):
        files.take(before, tmp_path / "copy", limit)
    (before / "more").write_text("67")
    files.take(before, tmp_path / "copy", limit.beyond(extent))
    (before / "one more").touch()
    with pytest.raises(TooLarge, match="more than 6 files"):
        files.take(before, tmp_path / "copy", limit.beyond(extent))
