import contextlib
import io
import os
import stat
import subprocess
import sys
import tempfile
import unittest

from linkcheck.cli import main

WORK = os.environ["EVALKIT_WORK"]


class LinkcheckTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.write("good.md", "See [the rest](sub/rest.md#part), [us](https://example.org/x) and [above](#top).\n")
        self.write("sub/rest.md", "[back](../good.md)\n")

    def path(self, name):
        return os.path.join(self.root, *name.split("/"))

    def write(self, name, content):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    def run_main(self, *args):
        """Status, lines of stdout, text of stderr."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main([str(arg) for arg in args])
            except SystemExit as exit:
                status = exit.code
        self.assertIs(type(status), int)
        return status, out.getvalue().splitlines(), err.getvalue()

    def run_program(self, *command):
        done = subprocess.run([sys.executable, *command], cwd=WORK, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()

    def test_all_links_fine(self):
        self.assertEqual(self.run_main(self.root), (0, [], "0 broken links in 2 files\n"))

    def test_broken_link(self):
        self.write("a.md", "fine\n[x](gone.md) and [y](good.md)\n")
        expected = f"{self.path('a.md')}:2: gone.md"
        self.assertEqual(self.run_main(self.root), (1, [expected], "1 broken link in 3 files\n"))

    def test_many_broken_links_are_still_status_1(self):
        for number in (2, 256, 512):
            self.write("a.md", "[x](gone.md)\n" * number)
            status, lines, _ = self.run_main(self.root)
            self.assertEqual((status, len(lines)), (1, number))

    def test_max_broken(self):
        self.write("a.md", "[x](gone.md) [y](lost.md)\n")
        self.assertEqual([self.run_main("--max-broken", n, self.root)[0] for n in (0, 1, 2, 3)], [1, 1, 0, 0])

    def test_wrong_usage(self):
        for args in (
            [],
            ["--no-such-option", self.root],
            ["--max-broken", "-1", self.root],
            ["--max-broken", "many", self.root],
        ):
            status, lines, err = self.run_main(*args)
            self.assertEqual((status, lines), (2, []), args)
            self.assertTrue(err)

    def test_missing_path(self):
        missing = self.path("no-such-folder")
        status, lines, err = self.run_main(missing, self.root)
        self.assertEqual((status, lines), (2, []))
        first, summary = err.splitlines()
        self.assertTrue(first.startswith(f"linkcheck: {missing}: "), first)
        self.assertEqual(summary, "0 broken links in 2 files")

    def test_undecodable_file_does_not_stop_the_rest(self):
        self.write("b.md", b"caf\xe9\n")
        self.write("c.md", "[x](gone.md)\n")
        status, lines, err = self.run_main("--quiet", self.root)
        self.assertEqual((status, lines), (2, [f"{self.path('c.md')}:1: gone.md"]))
        self.assertEqual(len(err.splitlines()), 1)
        self.assertTrue(err.startswith(f"linkcheck: {self.path('b.md')}: "), err)

    def test_unreadable_file(self):
        os.symlink(self.path("nowhere"), self.path("d.md"))
        status, _, err = self.run_main("--quiet", self.root)
        self.assertEqual(status, 2)
        self.assertTrue(err.startswith(f"linkcheck: {self.path('d.md')}: "), err)

    def test_error_wins_over_tolerated_and_untolerated_links(self):
        self.write("a.md", "[x](gone.md)\n")
        for tolerated in ("0", "5"):
            self.assertEqual(self.run_main("--max-broken", tolerated, self.path("missing"), self.root)[0], 2)

    def test_quiet(self):
        self.write("a.md", "[x](gone.md)\n")
        status, lines, err = self.run_main("--quiet", self.root)
        self.assertEqual((status, len(lines), err), (1, 1, ""))

    def test_status_of_the_module(self):
        self.assertEqual(self.run_program("-m", "linkcheck", self.root)[0], 0)
        self.write("a.md", "[x](gone.md)\n")
        status, lines, err = self.run_program("-m", "linkcheck", self.root)
        self.assertEqual((status, len(lines), err), (1, 1, "1 broken link in 3 files\n"))

    def test_status_of_the_launcher(self):
        launcher = os.path.join(WORK, "bin", "linkcheck")
        self.write("a.md", "[x](gone.md)\n")
        self.assertEqual(self.run_program(launcher, self.root)[0], 1)
        self.assertEqual(self.run_program(launcher, self.path("missing"))[0], 2)

    def test_launcher_is_executable_by_everybody(self):
        mode = os.stat(os.path.join(WORK, "bin", "linkcheck")).st_mode
        self.assertEqual(stat.S_IMODE(mode) & 0o111, 0o111)
