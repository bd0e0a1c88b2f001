"""The statistics of two runs on the same instances."""

from __future__ import annotations

import math

import pytest

from evalkit.domain.comparison import Pairs, Standing, compare, mcnemar, paired_interval


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (5, 5, 1.0), (2, 10, 2 * (1 + 12 + 66) / 4096)],
)
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int, p_value: float) -> None:
    assert mcnemar(Pairs(100, only_a, only_b, 7)) == pytest.approx(p_value)
    assert mcnemar(Pairs(0, only_b, only_a, 0)) == pytest.approx(p_value), "which run is which does not matter"


def test_mcnemar_of_many_instances() -> None:
    assert 0.0 < mcnemar(Pairs(0, 900, 1100, 0)) < 1e-4


@pytest.mark.parametrize("pairs", [Pairs(36, 12, 2, 0), Pairs(0, 0, 0, 5), Pairs(5, 0, 0, 0), Pairs(1, 20, 0, 3)])
def test_the_interval_holds_the_difference_and_turns_with_the_runs(pairs: Pairs) -> None:
    low, high = paired_interval(pairs)
    rate_a, rate_b = pairs.rates
    assert -1.0 <= low <= rate_b - rate_a <= high <= 1.0
    turned = paired_interval(Pairs(pairs.both, pairs.only_b, pairs.only_a, pairs.neither))
    assert turned == pytest.approx((-high, -low))


def test_pairing_makes_the_interval_narrower_than_two_independent_ones() -> None:
    agreeing, opposed = paired_interval(Pairs(45, 5, 5, 45)), paired_interval(Pairs(5, 45, 45, 5))
    assert agreeing[1] - agreeing[0] < opposed[1] - opposed[0]


@pytest.mark.parametrize("chances", [(0.4, 0.1, 0.1, 0.4), (0.3, 0.05, 0.25, 0.4), (0.2, 0.2, 0.1, 0.5)])
def test_the_interval_covers_the_truth_as_often_as_it_says(chances: tuple[float, ...]) -> None:
    """Exactly: the sum of the chances of all tables of 20 instances whose interval holds the true difference."""
    truth, total, covered = chances[2] - chances[1], 20, 0.0
    for both in range(total + 1):
        for only_a in range(total + 1 - both):
            for only_b in range(total + 1 - both - only_a):
                counts = (both, only_a, only_b, total - both - only_a - only_b)
                low, high = paired_interval(Pairs(*counts))
                if low <= truth <= high:
                    ways = math.factorial(total)
                    for count in counts:
                        ways //= math.factorial(count)
                    covered += ways * math.prod(chance**count for chance, count in zip(chances, counts, strict=True))
    assert 0.93 < covered < 0.995


def test_only_what_both_have_is_compared_and_the_rest_is_named() -> None:
    a = {"x": Standing(True, "resolved", 1.0, 10.0), "y": Standing(), "only here": Standing(True, "resolved")}
    b = {"y": Standing(True, "resolved", None, 5.0), "x": Standing(True, "resolved", 0.5, 2.0), "there": Standing()}
    document = compare(("A", "B"), a, b)
    assert document["ids"] == {"both": ["x"], "only_a": [], "only_b": ["y"], "neither": []}
    assert (document["both"], document["only_b"], document["total"]) == (1, 1, 2)
    assert document["difference"]["value"] == 0.5
    assert document["cost_usd"] == {"a": 1.0, "b": None}, "an unknown cost makes the sum unknown"
    assert document["seconds"] == {"a": 10.0, "b": 7.0}
    assert document["unfinished"] == {"a": 1, "b": 0}
    assert document["unpaired"] == {"a": ["only here"], "b": ["there"]}


def test_runs_without_a_common_instance_have_no_numbers() -> None:
    document = compare(("A", "B"), {"x": Standing()}, {"y": Standing()})
    assert document["total"] == 0
    assert document["difference"]["value"] is document["mcnemar"]["p_value"] is None
