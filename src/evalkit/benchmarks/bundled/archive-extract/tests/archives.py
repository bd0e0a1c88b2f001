"""Makes zip files for the tests."""

import os
import stat
import tempfile
import unittest
import warnings
import zipfile


class ArchiveTestCase(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = os.path.realpath(temporary.name)
        self.folder = os.path.join(self.root, "alice")

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def archive(self, *entries):
        """A zip file of entries: a name (the content is `new`), or (name, content, mode)."""
        path = self.path("upload.zip")
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that are there twice
            for entry in entries:
                name, content, mode = (entry, "new", 0o644) if isinstance(entry, str) else entry
                info = zipfile.ZipInfo()
                info.filename = name
                info.create_system = 3
                info.external_attr = (mode | (0 if stat.S_IFMT(mode) else stat.S_IFREG)) << 16
                archive.writestr(info, "" if name.endswith(("/", "\\")) else content)
        return path

    def write(self, *parts):
        os.makedirs(os.path.dirname(self.path(*parts)), exist_ok=True)
        with open(self.path(*parts), "w", encoding="utf-8") as file:
            file.write("old")

    def read(self, *parts):
        with open(self.path(*parts), encoding="utf-8") as file:
            return file.read()

    def everything(self):
        """All paths below the root, with what they hold."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            for name in folders + files:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    found[path] = "-> " + os.readlink(path)
                else:
                    found[path] = None if os.path.isdir(path) else os.stat(path).st_size
        return found
