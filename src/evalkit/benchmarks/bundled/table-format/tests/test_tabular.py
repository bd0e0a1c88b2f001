import unittest

from tabular import clip, pad, table, width, wrap

E = "e\u0301"  # an e with an accent of its own
NIHON = "\u65e5\u672c"


class WidthTest(unittest.TestCase):
    def test_wide(self):
        self.assertEqual(width(NIHON), 4)
        self.assertEqual(width("a" + NIHON + "b"), 6)

    def test_full_width_and_half_width_forms(self):
        self.assertEqual(width("\uff21\uff22"), 4)
        self.assertEqual(width("\uff71\uff72"), 2)

    def test_marks_take_no_room(self):
        self.assertEqual(width(E), 1)
        self.assertEqual(width("o\u0328\u0301"), 1)
        self.assertEqual(width("a\u20dd"), 1)

    def test_joiners_take_no_room(self):
        self.assertEqual(width("a\u200db\u2060"), 2)

    def test_ordinary(self):
        self.assertEqual((width(""), width("plain"), width("\u00e9\u03b1\u2026")), (0, 5, 3))


class ClipTest(unittest.TestCase):
    def test_wide(self):
        self.assertEqual(clip(NIHON, 4), NIHON)
        self.assertEqual(clip(NIHON * 2, 5), NIHON + "\u2026")

    def test_half_a_character_is_left_out(self):
        self.assertEqual(clip(NIHON * 2, 4), "\u65e5\u2026")
        self.assertEqual(clip(NIHON, 2), "\u2026")

    def test_marks_stay(self):
        self.assertEqual(clip(E * 3, 3), E * 3)
        self.assertEqual(clip(E * 4, 3), E * 2 + "\u2026")

    def test_ordinary(self):
        self.assertEqual((clip("abcd", 4), clip("abcde", 4), clip("", 2)), ("abcd", "abc\u2026", ""))


class PadTest(unittest.TestCase):
    def test_wide(self):
        self.assertEqual([pad(NIHON, 7, align) for align in "<>^"], [NIHON + "   ", "   " + NIHON, " " + NIHON + "  "])

    def test_marks(self):
        self.assertEqual(pad(E, 3, ">"), "  " + E)

    def test_too_wide(self):
        self.assertEqual(pad(NIHON, 3, ">"), NIHON)

    def test_ordinary(self):
        self.assertEqual([pad("ab", 5, align) for align in "<>^"], ["ab   ", "   ab", " ab  "])


class WrapTest(unittest.TestCase):
    def test_wide_words(self):
        self.assertEqual(wrap(f"{NIHON} {NIHON} {NIHON}", 9), [f"{NIHON} {NIHON}", NIHON])
        self.assertEqual(wrap(f"{NIHON} {NIHON}", 8), [NIHON, NIHON])

    def test_wide_word_is_broken(self):
        self.assertEqual(wrap(NIHON * 3, 5), [NIHON, NIHON, NIHON])
        self.assertEqual(wrap(f"a {NIHON}\u8a9e b", 4), ["a", NIHON, "\u8a9e b"])

    def test_marks_stay_when_a_word_is_broken(self):
        self.assertEqual(wrap(E * 5, 2), [E * 2, E * 2, E])

    def test_marks_do_not_count(self):
        self.assertEqual(wrap(f"{E}{E} {E}{E}", 5), [f"{E}{E} {E}{E}"])

    def test_ordinary(self):
        self.assertEqual(wrap("the  quick brown fox ", 9), ["the quick", "brown fox"])
        self.assertEqual(wrap("a abcdefgh b", 3), ["a", "abc", "def", "gh", "b"])
        self.assertEqual((wrap("", 5), wrap("   ", 5)), ([""], [""]))


class TableTest(unittest.TestCase):
    def check(self, drawn, *lines):
        self.assertEqual(drawn.split("\n"), list(lines))

    def test_wide_cells(self):
        self.check(
            table(["name", "town"], [[NIHON * 3, "Ghent"], ["Anna", NIHON]]),
            "name" + " " * 8 + " | town",
            "-------------+------",
            NIHON * 3 + " | Ghent",
            "Anna         | " + NIHON,
        )

    def test_wide_headers(self):
        self.check(table([NIHON, "n"], [["a", "1"]], align="^>"), NIHON + " | n", "-----+--", " a   | 1")

    def test_marks(self):
        self.check(table(["a", "b"], [[E * 3, "x"], ["abc", "y"]]), "a   | b", "----+--", E * 3 + " | x", "abc | y")

    def test_limit(self):
        self.check(
            table([NIHON * 2, "n"], [[f"{NIHON} {E}{E}", "1"], ["ab", "2"]], limit=5),
            NIHON + "\u2026 | n",
            "------+--",
            NIHON + "  | 1",
            f"{E}{E}    |",
            "ab    | 2",
        )

    def test_ordinary(self):
        self.check(
            table(["name", "n"], [["Anna", "10"], ["Bo", "7"]], align="<>"),
            "name |  n",
            "-----+---",
            "Anna | 10",
            "Bo   |  7",
        )
        self.check(table(["name", "town"], []), "name | town", "-----+-----")

    def test_too_narrow(self):
        for call in (lambda: clip("abc", 1), lambda: wrap("abc", 1), lambda: table(["a"], [["b"]], limit=1)):
            with self.assertRaises(ValueError):
                call()
