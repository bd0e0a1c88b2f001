import csv
import io
import itertools
import unittest

from sheetio import Dialect, dumps, loads

DIALECTS = [
    Dialect(),
    Dialect(delimiter=";"),
    Dialect(delimiter="\t", terminator="\n"),
    Dialect(quote="'"),
    Dialect(delimiter="|", quote="'", terminator="\r"),
]
ALPHABET = ["a", " ", ",", ";", '"', "'", "\n", "\r", "\\", "\t", "|", "\u2028", "\x0c"]


class WriterTest(unittest.TestCase):
    def test_quotes_are_doubled(self):
        self.assertEqual(dumps([['Jo "the hat" Miller', "Ghent"]]), '"Jo ""the hat"" Miller",Ghent\r\n')

    def test_backslash_is_an_ordinary_character(self):
        self.assertEqual(dumps([["C:\\", 'a\\"b']]), 'C:\\,"a\\""b"\r\n')

    def test_delimiter_of_the_dialect(self):
        self.assertEqual(dumps([["12;50", "1,5"]], Dialect(delimiter=";")), '"12;50";1,5\r\n')

    def test_line_breaks(self):
        self.assertEqual(dumps([["a\nb", "a\rb", "a\r\nb"]]), '"a\nb","a\rb","a\r\nb"\r\n')

    def test_only_field_is_empty(self):
        self.assertEqual(dumps([["a"], [""], [None], ["b"]]), 'a\r\n""\r\n""\r\nb\r\n')
        self.assertEqual(dumps([[""]], Dialect(quote="'")), "''\r\n")

    def test_no_needless_quotes(self):
        self.assertEqual(dumps([["a b", "it's", "#1", " x ", "\u2028"]]), "a b,it's,#1, x ,\u2028\r\n")

    def test_values_that_are_no_strings(self):
        self.assertEqual(dumps([[1, 2.5, None, True]]), "1,2.5,,True\r\n")
        self.assertEqual(dumps([[2.5, 10]], Dialect(delimiter=".")), '"2.5".10\r\n')

    def test_row_without_fields(self):
        with self.assertRaises(ValueError):
            dumps([["a"], []])

    def test_rows_can_be_any_iterables(self):
        self.assertEqual(dumps(iter([iter(["a", "b"]), ("c",)])), "a,b\r\nc\r\n")


class RoundTripTest(unittest.TestCase):
    def rows(self):
        texts = ["".join(letters) for length in (0, 1, 2) for letters in itertools.product(ALPHABET, repeat=length)]
        return [[text] for text in texts] + [[text, "x", text[::-1]] for text in texts]

    def test_through_our_reader(self):
        for dialect in DIALECTS:
            rows = self.rows()
            self.assertEqual(loads(dumps(rows, dialect), dialect), rows, dialect)

    def test_through_the_csv_module(self):
        for dialect in DIALECTS:
            rows = self.rows()
            text = io.StringIO(dumps(rows, dialect), newline="")
            read = csv.reader(text, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
            self.assertEqual(list(read), rows, dialect)

    def test_reader_takes_files_of_others(self):
        self.assertEqual(loads('a,"b\n""c"""\n\n"",d\r\r\n""\ne'), [["a", 'b\n"c"'], ["", "d"], [""], ["e"]])
