import os

from archives import ArchiveTestCase
from unpacker import extract


class FunctionTest(ArchiveTestCase):
    def test_files_and_directories(self):
        written = extract(self.archive("b.txt", "a/", "a/c.txt", "deep/er/d.txt", "empty/"), self.folder)
        self.assertEqual(written, ["a/c.txt", "b.txt", "deep/er/d.txt"])
        self.assertEqual(self.read("alice", "deep", "er", "d.txt"), "new")
        self.assertTrue(os.path.isdir(self.path("alice", "empty")))

    def test_backslashes(self):
        self.assertEqual(extract(self.archive("a\\b.txt", "dir\\", "dir\\x\\y"), self.folder), ["a/b.txt", "dir/x/y"])
        self.assertEqual(self.read("alice", "a", "b.txt"), "new")

    def test_parts_that_do_not_matter(self):
        self.assertEqual(extract(self.archive("./a", "b//c", "d/./e"), self.folder), ["a", "b/c", "d/e"])

    def test_names_that_only_look_suspicious(self):
        names = ["..hidden", "...", "a..b/c...", "ab:c", "d/C:"]
        self.assertEqual(extract(self.archive(*names), self.folder), sorted(names))

    def test_directory_twice(self):
        self.assertEqual(extract(self.archive("a/", "a/", "a//", "a/x"), self.folder), ["a/x"])

    def test_executable(self):
        extract(self.archive(("run", "#!", 0o744), ("read", "x", 0o644)), self.folder)
        modes = [os.stat(self.path("alice", name)).st_mode for name in ("run", "read")]
        self.assertEqual([mode & 0o111 for mode in modes], [(modes[0] & 0o444) >> 2, 0])

    def test_into_a_folder_with_content(self):
        self.write("alice", "kept")
        self.write("alice", "a", "replaced")
        self.assertEqual(extract(self.archive("a/", "a/replaced", "a/added"), self.folder), ["a/added", "a/replaced"])
        self.assertEqual(
            [self.read("alice", *p) for p in (["kept"], ["a", "replaced"], ["a", "added"])], ["old", "new", "new"]
        )

    def test_into_a_folder_that_is_a_link(self):
        os.makedirs(self.path("volume", "alice"))
        os.symlink(self.path("volume", "alice"), self.folder)
        self.assertEqual(extract(self.archive("a/b"), self.folder), ["a/b"])
        self.assertEqual(self.read("volume", "alice", "a", "b"), "new")

    def test_relative_folder(self):
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.root)
        self.assertEqual(extract(self.archive("a/b"), "alice"), ["a/b"])
        self.assertEqual(self.read("alice", "a", "b"), "new")
