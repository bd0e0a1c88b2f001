import gc
import io
import os
import tempfile
import types
import unittest

from logmerge import LogError, Record, between, first, merge, records

FILES = {
    "a": "1 one\n4 four\n  more of four\n\tand more\n7 seven\n",
    "b": "2 two\n4 vier\n8 eight\n",
    "c": "3 three\n",
    "bad": "1.5 fine\n2.5 fine\noops\n9 late\n",
    "indented": "  from nowhere\n1 x\n",
    "empty": "",
}


class Shelf:
    """Opens FILES and remembers all it has opened.

    It also holds on to all generators that exist by then, so that nothing is closed by not being needed any more.
    """

    def __init__(self):
        self.handles = {}
        self.generators = []

    def __call__(self, path):
        self.generators += [thing for thing in gc.get_objects() if isinstance(thing, types.GeneratorType)]
        if path not in FILES:
            raise FileNotFoundError(path)
        handle = self.handles[path] = Handle(FILES[path])
        return handle

    def open(self):
        return sorted(path for path, handle in self.handles.items() if not handle.closed)


class Handle(io.StringIO):
    lines_read = 0

    def __next__(self):
        line = super().__next__()
        self.lines_read += 1
        return line


class ClosingTest(unittest.TestCase):
    def setUp(self):
        self.shelf = Shelf()
        self.kept = []  # what a caller may hold on to

    def check_closed(self, *paths):
        self.assertEqual(sorted(self.shelf.handles), sorted(paths))
        self.assertEqual(self.shelf.open(), [])

    def keep(self, iterator):
        self.kept.append(iterator)
        return iterator

    def test_exhausted(self):
        self.assertEqual(len(list(self.keep(merge("abc", self.shelf)))), 7)
        self.check_closed("a", "b", "c")

    def test_merge_closed_early(self):
        merged = self.keep(merge("abc", self.shelf))
        next(merged)
        merged.close()
        self.check_closed("a", "b", "c")

    def test_records_closed_early(self):
        iterator = self.keep(records("a", self.shelf))
        next(iterator)
        iterator.close()
        self.check_closed("a")

    def test_first(self):
        self.assertEqual([record.time for record in first("abc", 2, self.shelf)], [1, 2])
        self.check_closed("a", "b", "c")

    def test_between(self):
        self.assertEqual([record.time for record in self.keep(between("abc", 2, 4, self.shelf))], [2, 3])
        self.check_closed("a", "b", "c")

    def test_between_closed_early(self):
        iterator = self.keep(between("abc", 2, 4, self.shelf))
        next(iterator)
        iterator.close()
        self.check_closed("a", "b", "c")

    def check_error(self, error, action):
        try:
            action()
        except error:  # the error is alive in here, and so is all that it refers to
            self.assertEqual(self.shelf.open(), [])
        else:
            self.fail(f"no {error.__name__}")

    def test_bad_line(self):
        paths = ["a", "b", "bad"]
        for action in (
            lambda: list(self.keep(merge(paths, self.shelf))),
            lambda: list(self.keep(between(paths, 0, 100, self.shelf))),
            lambda: first(paths, 100, self.shelf),
            lambda: list(self.keep(records("bad", self.shelf))),
            lambda: list(self.keep(records("indented", self.shelf))),
        ):
            self.check_error(LogError, action)

    def test_missing_file(self):
        paths = ["a", "b", "missing", "c"]
        self.check_error(FileNotFoundError, lambda: list(self.keep(merge(paths, self.shelf))))
        self.check_error(FileNotFoundError, lambda: first(paths, 1, self.shelf))
        self.check_error(FileNotFoundError, lambda: list(self.keep(between(paths, 0, 1, self.shelf))))

    def test_file_is_closed_at_its_own_end(self):
        merged = self.keep(merge("abc", self.shelf))
        while next(merged).time < 4:
            pass
        self.assertEqual(self.shelf.open(), ["a", "b"])
        self.assertEqual([record.time for record in merged], [4, 7, 8])
        self.assertEqual(self.shelf.open(), [])

    def test_nothing_is_opened_in_advance(self):
        iterators = [merge("abc", self.shelf), between("abc", 0, 9, self.shelf), records("a", self.shelf)]
        self.assertEqual(first("abc", 0, self.shelf), [])
        self.assertEqual(self.shelf.handles, {})
        for iterator in iterators:
            iterator.close()
        self.assertEqual((self.shelf.handles, list(iterators[0])), ({}, []))

    def test_reads_no_further_than_needed(self):
        merged = self.keep(merge("ab", self.shelf))
        next(merged)
        self.assertEqual({path: handle.lines_read for path, handle in self.shelf.handles.items()}, {"a": 2, "b": 2})
        merged.close()


class StreamTest(unittest.TestCase):
    def test_order_and_continuation(self):
        shelf = Shelf()
        self.assertEqual(
            list(merge(["b", "a", "empty"], shelf)),
            [
                Record(1, "a", "one"),
                Record(2, "b", "two"),
                Record(4, "b", "vier"),
                Record(4, "a", "four\n  more of four\n\tand more"),
                Record(7, "a", "seven"),
                Record(8, "b", "eight"),
            ],
        )

    def test_bounds(self):
        self.assertEqual([r.text[:4] for r in between(["a", "b"], 4, 7, Shelf())], ["four", "vier"])
        self.assertEqual([r.time for r in between(["a", "b"], 7, 99, Shelf())], [7, 8])

    def test_real_files(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in "ab"]
            for path in paths:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(FILES[os.path.basename(path)])
            self.assertEqual([record.time for record in first(iter(paths), 4)], [1, 2, 4, 4])
