import unittest
from decimal import Decimal as D

from splitbill import settle, split


def texts(amounts):
    return [str(amount) for amount in amounts]


class SplitTest(unittest.TestCase):
    def check(self, amount, weights, expected, **kwargs):
        shares = split(D(amount), weights, **kwargs)
        self.assertEqual(texts(shares), expected.split())
        self.assertEqual(sum(shares), D(amount))

    def test_three_ways(self):
        self.check("10.00", [1, 1, 1], "3.34 3.33 3.33")
        self.check("20.00", [1, 1, 1], "6.67 6.67 6.66")

    def test_left_over_goes_to_the_largest_loss_not_to_the_first(self):
        self.check("1.00", [1, 2], "0.33 0.67")
        self.check("0.10", [10, 25, 65], "0.01 0.03 0.06")
        self.check("1.00", [1, 1, 4], "0.17 0.17 0.66")

    def test_ties_go_to_the_first(self):
        self.check("0.02", [1, 1, 1, 1], "0.01 0.01 0.00 0.00")
        self.check("0.10", [65, 10, 25], "0.07 0.01 0.02")

    def test_weight_zero_gets_nothing(self):
        self.check("0.05", [0, 1, 0, 1], "0.00 0.03 0.00 0.02")

    def test_large_amounts_are_exact(self):
        self.check("90071992547409.93", [1], "90071992547409.93")
        self.check("900719925474099300.01", [1, 1], "450359962737049650.01 450359962737049650.00")

    def test_decimal_weights(self):
        self.check("10.00", [D("0.1"), D("0.2")], "3.33 6.67")
        self.check("1.00", [D("12.5"), D("12.5"), 75], "0.13 0.12 0.75")

    def test_weights_with_many_digits(self):
        third = D("0.3333333333333333333333333333333333")
        self.check("3.00", [third, third, third], "1.00 1.00 1.00")

    def test_refund_mirrors_the_payment(self):
        self.check("-10.00", [1, 1, 1], "-3.34 -3.33 -3.33")
        self.check("-1.00", [1, 2], "-0.33 -0.67")

    def test_zero_is_never_negative(self):
        self.check("-0.01", [1, 1, 0], "-0.01 0.00 0.00")
        self.check("0.00", [1, 1], "0.00 0.00")

    def test_currencies(self):
        self.check("100", [1, 1, 1], "34 33 33", currency="JPY")
        self.check("1.000", [1, 1, 1], "0.334 0.333 0.333", currency="KWD")

    def test_sums_hold_for_many_cases(self):
        for cents in range(0, 400, 7):
            for weights in ([1, 2, 3], [7, 11, 13, 17], [1] * 9, [5, 0, 1]):
                shares = split(D(cents) / 100, weights)
                self.assertEqual(sum(shares), D(cents) / 100)
                for share, weight in zip(shares, weights):
                    self.assertLess(abs(share * sum(weights) - D(cents) / 100 * weight), D("0.01") * sum(weights))

    def test_bad_input(self):
        for amount, weights, currency in (
            ("1.001", [1], "EUR"),
            ("0.5", [1], "JPY"),
            ("1", [-1, 2], "EUR"),
            ("1", [0, 0], "EUR"),
            ("1", [], "EUR"),
        ):
            with self.assertRaises(ValueError, msg=(amount, weights)):
                split(D(amount), weights, currency)


class SettleTest(unittest.TestCase):
    def test_balances_sum_to_zero(self):
        trip = [
            ("ann", D("10.00"), {"ann": 1, "bob": 1, "cid": 1}),
            ("bob", D("0.05"), {"ann": 1, "cid": 1}),
            ("cid", D("-7.99"), {"ann": 2, "bob": 1}),
        ]
        balances = settle(trip)
        self.assertEqual(sum(balances.values()), 0)
        self.assertEqual(balances, {"ann": D("11.96"), "bob": D("-0.62"), "cid": D("-11.34")})

    def test_no_negative_zero(self):
        balances = settle([("ann", D("3.00"), {"ann": 1}), ("bob", D("-2.00"), {"bob": 1})])
        self.assertEqual(texts(balances.values()), ["0.00", "0.00"])
