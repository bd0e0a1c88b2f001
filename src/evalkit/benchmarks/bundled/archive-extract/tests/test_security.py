import os
import stat

from archives import ArchiveTestCase
from unpacker import UnsafeArchive, extract

LINK = stat.S_IFLNK | 0o777


class SecurityTest(ArchiveTestCase):
    def refuse(self, *entries, culprit=None):
        archive = self.archive(*entries)
        before = self.everything()
        with self.assertRaises(UnsafeArchive, msg=entries) as caught:
            extract(archive, self.folder)
        self.assertEqual(self.everything(), before, entries)
        if culprit is not None:
            self.assertEqual(caught.exception.entry, culprit)

    def test_neighbour_with_the_same_beginning(self):
        self.refuse("../alice-evil/x", culprit="../alice-evil/x")

    def test_upwards(self):
        for name in ("../x", "a/../../x", "a/../b", "a/b/..", "..", "../alice/x", "a/..//x", "./../x"):
            self.refuse(name, culprit=name)

    def test_upwards_with_backslashes(self):
        for name in ("..\\x", "..\\..\\x", "a\\..\\b", "a/..\\b", "a\\../b"):
            self.refuse(name, culprit=name)

    def test_absolute(self):
        for name in ("/x", "//x", "\\x", "\\\\host\\share\\x", self.path("alice", "x")):
            self.refuse(name, culprit=name)

    def test_drive_letters(self):
        for name in ("C:x", "c:\\x", "Z:/x", "c:"):
            self.refuse(name, culprit=name)

    def test_no_name(self):
        for name in (".", "./", "./."):
            self.refuse(name, culprit=name)

    def test_nul(self):
        self.refuse("a\0b", culprit="a\0b")

    def test_nothing_is_written_before_the_refusal(self):
        self.refuse("first", "folder/", "folder/second", "../x", "last", culprit="../x")

    def test_links(self):
        for target in ("/etc", "..", "file", "../alice/file"):
            self.refuse("file", ("here", target, LINK), culprit="here")

    def test_file_through_a_link(self):
        self.refuse(("here", self.root, LINK), "here/x")
        self.refuse("here/x", ("here", self.root, LINK))

    def test_file_through_a_file(self):
        self.refuse("a", "a/b")
        self.refuse("a/b/c", "x", "a")
        self.refuse("a", "a/b/")
        self.refuse("a", "a\\b")

    def test_same_path_twice(self):
        self.refuse("a/b", "a/b")
        self.refuse("a/b", "a//./b")
        self.refuse("a/b", "a\\b")
        self.refuse("a/", "a")
        self.refuse("a", "a/")

    def test_link_on_disk_above_an_entry(self):
        self.write("elsewhere", "secret")
        os.makedirs(self.folder)
        os.symlink(self.path("elsewhere"), self.path("alice", "link"))
        self.refuse("link/x", culprit="link/x")
        self.refuse("fine", "link/secret", culprit="link/secret")
        self.refuse("link/", culprit="link/")
        self.refuse("link/new/", culprit="link/new/")

    def test_link_on_disk_deeper_down(self):
        self.write("alice", "real", "file")
        os.symlink("real", self.path("alice", "inside"))
        self.refuse("inside/file")
        os.symlink(self.root, self.path("alice", "real", "up"))
        self.refuse("real/up/x")

    def test_link_at_the_very_place_is_replaced(self):
        self.write("precious")
        os.makedirs(self.folder)
        os.symlink(self.path("precious"), self.path("alice", "a"))
        os.symlink(self.path("nowhere"), self.path("alice", "b"))
        self.assertEqual(extract(self.archive("a", "b"), self.folder), ["a", "b"])
        self.assertEqual(
            (self.read("precious"), self.read("alice", "a"), self.read("alice", "b")), ("old", "new", "new")
        )
        self.assertFalse(os.path.islink(self.path("alice", "a")) or os.path.exists(self.path("nowhere")))

    def test_link_to_a_directory_at_the_very_place_of_a_file(self):
        os.makedirs(self.folder)
        os.symlink(self.root, self.path("alice", "a"))
        self.assertEqual(extract(self.archive("a"), self.folder), ["a"])
        self.assertEqual(self.read("alice", "a"), "new")

    def test_files_and_directories_on_disk_in_the_way(self):
        self.write("alice", "file")
        self.write("alice", "directory", "x")
        self.refuse("file/x")
        self.refuse("file/")
        self.refuse("directory")
