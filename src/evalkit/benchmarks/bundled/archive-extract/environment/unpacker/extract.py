"""Writes the entries of an archive to disk."""

import os
import shutil
import zipfile

from .entries import read_entries
from .paths import place_of


def extract(archive, folder):
    """Unpack the zip file *archive* into *folder*; the sorted relative paths of the files written."""
    written = []
    with zipfile.ZipFile(archive) as opened:
        os.makedirs(folder, exist_ok=True)
        for entry in read_entries(opened):
            path = place_of(entry, folder)
            if entry.kind == "directory":
                os.makedirs(path, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if entry.kind == "link":
                os.symlink(opened.read(entry.info).decode(), path)
            else:
                _write_file(opened, entry, path)
            written.append(os.path.relpath(path, folder).replace(os.sep, "/"))
    return sorted(written)


def _write_file(opened, entry, path):
    with opened.open(entry.info) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
    if entry.executable:
        mode = os.stat(path).st_mode
        os.chmod(path, mode | (mode & 0o444) >> 2)
