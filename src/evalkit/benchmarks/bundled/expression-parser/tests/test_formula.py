import itertools
import unittest

from formula import FormulaError, calculate, parse, show
from formula.tree import Binary, Call, Name, Negative, Number, Percent

A, B, C = Name("a"), Name("b"), Name("c")


def trees(depth):
    """All trees of some depth over one name, with an operator of each kind."""
    if depth == 0:
        return [A]
    smaller = trees(depth - 1)
    pairs = list(itertools.product(smaller, repeat=2))
    found = [Binary(operator, left, right) for operator in "<+-*/^" for left, right in pairs]
    return smaller + found + [kind(tree) for kind in (Negative, Percent) for tree in smaller]


class ValueTest(unittest.TestCase):
    def check(self, text, value):
        self.assertEqual(calculate(text, {"x": 3}), value, text)

    def test_sums_group_from_the_left(self):
        self.check("8 - 3 - 2", 3)
        self.check("8 - 3 + 2", 7)
        self.check("1 - 2 - 3 - 4", -8)
        self.check("8 - (3 - 2)", 7)

    def test_products_group_from_the_left(self):
        self.check("16 / 4 / 2", 2)
        self.check("16 / 4 * 2", 8)
        self.check("16 / (4 / 2)", 8)

    def test_powers_group_from_the_right(self):
        self.check("2 ^ 3 ^ 2", 512)
        self.check("(2 ^ 3) ^ 2", 64)

    def test_sign_is_weaker_than_a_power(self):
        self.check("-2 ^ 2", -4)
        self.check("(-2) ^ 2", 4)
        self.check("2 * -3 ^ 2", -18)
        self.check("--2 ^ 2", 4)

    def test_sign_in_the_exponent(self):
        self.check("2 ^ -1", 0.5)
        self.check("2 ^ -1 ^ 2", 0.5)
        self.check("2 ^ -x * 8", 1)

    def test_sign_is_stronger_than_the_rest(self):
        self.check("-x + 5", 2)
        self.check("-x * 2 - 1", -7)

    def test_percent_is_the_strongest(self):
        self.check("4 ^ 50%", 2)
        self.check("-50%", -0.5)
        self.check("200%%", 0.02)
        self.check("100 * (1 + 20%)", 120)

    def test_functions(self):
        self.check("max(1, 8 - 3 - 2, x)", 3)
        self.check("if(x > 2, 10 - 5 - 5, 1)", 0)
        self.check("round(2.345, 1) - 1 - 1", 2.3 - 1 - 1)


class TreeTest(unittest.TestCase):
    def test_shapes(self):
        for text, tree in (
            ("a - b - c", Binary("-", Binary("-", A, B), C)),
            ("a - b * c", Binary("-", A, Binary("*", B, C))),
            ("a ^ b ^ c", Binary("^", A, Binary("^", B, C))),
            ("-a ^ b", Negative(Binary("^", A, B))),
            ("a ^ -b ^ c", Binary("^", A, Negative(Binary("^", B, C)))),
            ("-a * b", Binary("*", Negative(A), B)),
            ("a^b%", Binary("^", A, Percent(B))),
            ("f()", Call("f", ())),
            ("f(a, b - 1)", Call("f", (A, Binary("-", B, Number(1.0))))),
        ):
            self.assertEqual(parse(text), tree, text)


class ErrorTest(unittest.TestCase):
    def test_positions(self):
        for text, position in (
            ("1 < 2 < 3", 6), ("1 +", 3), ("", 0), ("(1", 2), ("1)", 1), ("2 ^ * 3", 4), ("1 2", 2),
            ("f(1,)", 4), ("3 $ 4", 2), ("%", 0), ("1 - - ", 6), ("+1", 0), ("a = = b", 4),
        ):  # fmt: skip
            with self.assertRaises(FormulaError, msg=text) as caught:
                parse(text)
            self.assertEqual(caught.exception.position, position, text)


class ShowTest(unittest.TestCase):
    def test_texts(self):
        for text, shown in (
            ("8-(3-2)", "8 - (3 - 2)"),
            ("((8 - 3)) - (2 * 1)", "8 - 3 - 2 * 1"),
            ("(8-3)*2", "(8 - 3) * 2"),
            ("a/(b*c)", "a / (b * c)"),
            ("(a/b)*c", "a / b * c"),
            ("-(2^2)", "-2^2"),
            ("(-2)^2", "(-2)^2"),
            ("(2^3)^2", "(2^3)^2"),
            ("2^(3^2)", "2^3^2"),
            ("2^(-1)", "2^-1"),
            ("2^(a+b)", "2^(a + b)"),
            ("(a*b)^c", "(a * b)^c"),
            ("-(a*b)", "-(a * b)"),
            ("(-a)*(-b)", "-a * -b"),
            ("a-(-b)", "a - -b"),
            ("(-a)%", "(-a)%"),
            ("-(a%)", "-a%"),
            ("(a^b)%", "(a^b)%"),
            ("(a<b)=c", "(a < b) = c"),
            ("f((a),(b<c))", "f(a, b < c)"),
            ("1.50 + 2.0", "1.5 + 2"),
            ("0.0000125 * 3" + "0" * 25, "0.0000125 * 3" + "0" * 25),
        ):
            self.assertEqual(show(parse(text)), shown)

    def test_round_trip_of_all_small_trees(self):
        for tree in trees(2):
            self.assertEqual(parse(show(tree)), tree, show(tree))

    def test_no_parentheses_can_be_left_out(self):
        for tree in trees(2):
            text = show(tree)
            for i, j in itertools.combinations(range(len(text)), 2):
                if text[i] == "(" and text[j] == ")":
                    shorter = text[:i] + text[i + 1 : j] + text[j + 1 :]
                    self.assertFalse(self.means(shorter, tree), f"{text} could be {shorter}")

    def means(self, text, tree):
        try:
            return parse(text) == tree
        except FormulaError:
            return False
