import itertools
import unittest

from relver import Version, newest

# From the lowest to the highest precedence, each strictly below the next.
ASCENDING = [
    "0.9.9",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0--",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.1.0",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1-rc.1",
    "1.0.1",
    "1.9.0",
    "1.10.0",
    "10.0.0-a",
    "10.0.0",
]


class OrderTest(unittest.TestCase):
    def test_all_pairs_with_all_operators(self):
        for (i, a), (j, b) in itertools.product(enumerate(ASCENDING), repeat=2):
            left, right = Version(a), Version(b)
            with self.subTest(left=a, right=b):
                self.assertEqual(left < right, i < j)
                self.assertEqual(left <= right, i <= j)
                self.assertEqual(left > right, i > j)
                self.assertEqual(left >= right, i >= j)
                self.assertEqual(left == right, i == j)
                self.assertEqual(left != right, i != j)

    def test_text_that_holds_digits_is_text(self):
        self.assertGreater(Version("1.0.0-rc9"), Version("1.0.0-rc10"))

    def test_capitals_come_first_as_in_ascii(self):
        self.assertLess(Version("1.0.0-RC"), Version("1.0.0-alpha"))

    def test_build_metadata_does_not_matter(self):
        a, b, plain = Version("1.4.0+build.5"), Version("1.4.0+build.7"), Version("1.4.0")
        self.assertTrue(a == b == plain)
        self.assertEqual(len({a, b, plain}), 1)
        self.assertFalse(a < b or b < a or a > b or b > a)
        self.assertTrue(a <= b and b <= a)
        self.assertEqual((str(a), str(b)), ("1.4.0+build.5", "1.4.0+build.7"))

    def test_prerelease_with_build(self):
        self.assertEqual(Version("1.0.0-rc.1+x"), Version("1.0.0-rc.1"))
        self.assertNotEqual(Version("1.0.0-rc.1"), Version("1.0.0+rc.1"))

    def test_other_types(self):
        self.assertFalse(Version("1.0.0") == "1.0.0")
        self.assertTrue(Version("1.0.0") != "1.0.0")
        with self.assertRaises(TypeError):
            Version("1.0.0") < "1.0.1"

    def test_invalid_text(self):
        for text in (
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.0.0-",
            "1.0.0-01",
            "1.0.0-a..b",
            "1.0.0+",
            "v1.0.0",
            " 1.0.0",
            "1.0.0\n",
        ):
            with self.assertRaises(ValueError, msg=text):
                Version(text)


class NewestTest(unittest.TestCase):
    published = ["1.4.0", "1.10.0", "1.9.3", "2.0.0-rc.10", "2.0.0-rc.9"]

    def test_no_prereleases_unless_asked_for(self):
        self.assertEqual(newest(self.published), "1.10.0")
        self.assertEqual(newest(self.published, allow_prerelease=True), "2.0.0-rc.10")

    def test_release_beats_its_candidates(self):
        self.assertEqual(newest(["2.0.0", *self.published], allow_prerelease=True), "2.0.0")

    def test_first_of_equals(self):
        self.assertEqual(newest(["1.0.0+a", "1.0.0+b"]), "1.0.0+a")

    def test_nothing_to_choose_from(self):
        self.assertIsNone(newest([]))
        self.assertIsNone(newest(["1.0.0-rc.1"]))
