"""Archives of an engine that is not to be trusted, and the way in."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from evalkit.containers import archives
from evalkit.domain.failures import Failed
from evalkit.domain.outputs import OutputLimit, TooLarge


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for key, value in attributes.items():
        setattr(found, key, value)
    return found, content


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def blocks(*members: tuple[tarfile.TarInfo, bytes]) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    content = buffer.getvalue()
    return (content[start : start + 700] for start in range(0, len(content), 700))


@pytest.mark.parametrize("name", ["/etc/passwd", "work/../../outside", "..", "work/a/../../../b"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failed) as caught:
        archives.unpack(blocks(folder("work"), member(name, b"evil")), tmp_path / "target")
    assert caught.value.kind == "workspace"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_link_is_kept_and_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = blocks(
        folder("work"),
        link("work/door", str(outside)),
        member("work/door/file", b"evil"),
        link("work/file", f"{outside}/file"),
        member("work/file", b"evil too"),
    )
    archives.unpack(evil, tmp_path / "target")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "target" / "door" / "file").read_bytes() == b"evil"
    assert not (tmp_path / "target" / "file").is_symlink()


def test_a_folder_above_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    evil = blocks(folder("work/a"), folder("work/a/b"), link("work/a", str(outside)), member("work/a/b/file", b"evil"))
    archives.unpack(evil, tmp_path / "target")
    assert list((outside / "b").iterdir()) == []


def test_a_link_in_the_very_place_counts_as_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for evil in (link("work", str(outside)), member("work", type=tarfile.LNKTYPE, linkname="work")):
        with pytest.raises(FileNotFoundError):
            archives.unpack(blocks(evil), tmp_path / "target")
        assert not (tmp_path / "target").is_symlink()
        assert not (tmp_path / "target").exists()


def test_a_target_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / "outside")
    archives.unpack(blocks(folder("work"), member("work/file", b"x")), tmp_path / "target")
    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "target" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("linkname", ["/etc/passwd", "work/../../../etc/passwd", "work/link", "elsewhere/none"])
def test_a_second_name_is_only_given_to_files_of_the_archive(tmp_path: Path, linkname: str) -> None:
    evil = blocks(
        folder("work"), link("work/link", "/etc/passwd"), member("work/b", type=tarfile.LNKTYPE, linkname=linkname)
    )
    with pytest.raises(Failed):
        archives.unpack(evil, tmp_path / "target")
    assert not (tmp_path / "target" / "b").exists()


def test_special_bits_and_devices_stay_behind(tmp_path: Path) -> None:
    given = blocks(
        folder("work"),
        member("work/root", b"#!", mode=0o4755),
        member("work/mine", b"", mode=0o000),
        member("work/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("work/pipe", type=tarfile.FIFOTYPE),
    )
    archives.unpack(given, tmp_path / "target")
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["mine", "root"]
    assert (tmp_path / "target" / "root").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "target" / "mine").stat().st_mode & 0o7777 == 0o600


def test_an_archive_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    whole = b"".join(blocks(folder("work"), member("work/file", b"x" * 5000)))
    with pytest.raises(Failed) as caught:
        archives.unpack(iter([whole[:3000]]), tmp_path / "target")
    assert caught.value.kind == "workspace"


def test_what_is_packed_belongs_to_whom_it_shall(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o500)
    (tmp_path / "tree" / "file").write_bytes(b"x")
    name = os.fsdecode(b"no\xfftext" * 30)
    (tree / name).write_bytes(b"")
    packed = io.BytesIO(b"".join(archives.pack(tree, PurePosixPath("/a/b"), (7, 8))))
    with tarfile.open(fileobj=packed) as archive:
        members = {info.name: info for info in archive}
    assert set(members) == {"a/b", "a/b/file", f"a/b/{name}"}
    assert {(info.uid, info.gid) for info in members.values()} == {(7, 8)}
    assert members["a/b"].mode == 0o700


LIMIT = OutputLimit("what was left", bytes=1 << 20, files=100, depth=8)


def test_an_archive_without_end_is_left_at_the_limit(tmp_path: Path) -> None:
    """An engine that goes on sending: files, or nothing that becomes one."""

    def without_end(kind: bytes) -> Iterator[bytes]:
        yield folder("work")[0].tobuf()
        for number in itertools.count():
            yield member(f"work/{number}", type=kind, linkname="elsewhere")[0].tobuf()

    for kind in (tarfile.REGTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE):
        with pytest.raises(TooLarge, match="more than 100 files"):
            archives.unpack(without_end(kind), tmp_path / "target", LIMIT)
        assert not (tmp_path / "target").exists()


def test_no_more_is_read_of_an_archive_than_its_contents_may_need(tmp_path: Path) -> None:
    """Here it is a name without end, which would be kept in memory."""
    read = 0

    def without_end() -> Iterator[bytes]:
        nonlocal read
        head = member("name", type=tarfile.GNUTYPE_LONGNAME)[0]
        head.size = 1 << 40
        yield head.tobuf(tarfile.GNU_FORMAT)
        while True:
            read += 1 << 18
            yield b"x" * (1 << 18)

    with pytest.raises(TooLarge):
        archives.unpack(without_end(), tmp_path / "target", LIMIT)
    assert read < 4 << 20


def test_a_file_that_is_said_to_be_large_is_not_begun(tmp_path: Path) -> None:
    head = member("work/large")[0]
    head.size = 1 << 40
    with pytest.raises(TooLarge, match="more than 1 MB"):
        archives.unpack(iter([folder("work")[0].tobuf(), head.tobuf()]), tmp_path / "target", LIMIT)
    assert not (tmp_path / "target").exists()


def test_names_longer_than_the_system_takes_are_too_large(tmp_path: Path) -> None:
    deep = "/".join(["work", *["n" * 200] * 30])
    with pytest.raises(TooLarge, match="longer than the system takes"):
        archives.unpack(blocks(folder("work"), folder(deep)), tmp_path / "target")
    assert not (tmp_path / "target").exists()
