"""Where an entry belongs."""

import os

from .errors import UnsafeArchive


def place_of(entry, folder):
    """The path for *entry* inside *folder*."""
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, entry.name))
    if not path.startswith(root):
        raise UnsafeArchive(entry.name, "outside the folder")
    return path
