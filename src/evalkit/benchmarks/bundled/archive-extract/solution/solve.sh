#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace unpacker/entries.py 27 27 <<'END'
    elif name.endswith(("/", "\\")):
END

replace unpacker/extract.py 31 31 <<'END'
    if os.path.lexists(path):
        os.unlink(path)
    with opened.open(entry.info) as source, open(path, "xb") as target:
END

replace unpacker/extract.py 22 26 <<'END'
            _write_file(opened, entry, path)
            written.append("/".join(parts))
END

replace unpacker/extract.py 15 17 <<'END'
        planned = plan(read_entries(opened), folder)
        os.makedirs(folder, exist_ok=True)
        for entry, parts in planned:
            path = os.path.join(folder, *parts)
END

replace unpacker/extract.py 8 8 <<'END'
from .paths import plan
END

cat >unpacker/paths.py <<'END'
"""Where the entries of an archive belong."""

import os
import re

from .errors import UnsafeArchive


def plan(entries, folder):
    """(entry, parts of its path) for all *entries*; UnsafeArchive if one of them must not be written."""
    planned = [(entry, _parts(entry)) for entry in entries]
    _check_each_other(planned)
    for entry, parts in planned:
        _check_disk(entry, parts, folder)
    return planned


def _parts(entry):
    path = entry.name.replace("\\", "/")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if entry.kind == "link":
        raise UnsafeArchive(entry.name, "a symbolic link")
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        raise UnsafeArchive(entry.name, "not a relative path")
    if ".." in parts:
        raise UnsafeArchive(entry.name, "leads upwards")
    if not parts or "\0" in path:
        raise UnsafeArchive(entry.name, "not a name for a file")
    return parts


def _check_each_other(planned):
    kinds = {}
    for entry, parts in planned:
        if parts in kinds and "file" in (entry.kind, kinds[parts]):
            raise UnsafeArchive(entry.name, "has the path of another entry")
        kinds[parts] = entry.kind
    for entry, parts in planned:
        if any(kinds.get(parts[:length]) == "file" for length in range(1, len(parts))):
            raise UnsafeArchive(entry.name, "leads through another file")


def _check_disk(entry, parts, folder):
    path = folder
    for part in parts[:-1] if entry.kind == "file" else parts:
        path = os.path.join(path, part)
        if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
            raise UnsafeArchive(entry.name, "leads through a link or a file on disk")
    if entry.kind == "file":
        path = os.path.join(path, parts[-1])
        if os.path.isdir(path) and not os.path.islink(path):
            raise UnsafeArchive(entry.name, "there is a directory in its place")
END
