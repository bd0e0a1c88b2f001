"""The entries of a zip file."""

import stat
import zipfile
from typing import NamedTuple


class Entry(NamedTuple):
    """One entry, with its name as it is in the archive."""

    name: str
    kind: str  # "file", "link" or "directory"
    executable: bool
    info: zipfile.ZipInfo


def read_entries(archive):
    """All entries of an open ZipFile."""
    return [_entry(info) for info in archive.infolist()]


def _entry(info):
    name = info.orig_filename
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        kind = "link"
    elif name.endswith("/"):
        kind = "directory"
    else:
        kind = "file"
    return Entry(name, kind, bool(mode & stat.S_IXUSR), info)
