"""The formulas against slow ones that are plainly right."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.domain.statistics import Distribution, pass_at_k, wilson_interval


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_correct_sample(case: tuple[int, int, int]) -> None:
    samples, correct, k = case
    draws = list(itertools.combinations([True] * correct + [False] * (samples - correct), k))
    assert pass_at_k(samples, correct, k) == pytest.approx(float(Fraction(sum(map(any, draws)), len(draws))))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_are_where_the_score_test_just_rejects(case: tuple[int, int]) -> None:
    successes, total = case
    low, high = wilson_interval(successes, total)
    share = successes / total
    assert 0.0 <= low <= share <= high <= 1.0
    for bound in (low, high):
        if 0.0 < bound < 1.0:
            score = (share - bound) / math.sqrt(bound * (1 - bound) / total)
            assert abs(score) == pytest.approx(1.959963984540054, rel=1e-6)


def test_wilson_of_known_numbers() -> None:
    low, high = wilson_interval(265, 500)
    assert (round(low, 4), round(high, 4)) == (0.4862, 0.5734)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from((0.01, 0.5, 0.95, 1.0)))
def test_percentiles_are_those_of_the_sorted_list(values: list[float], share: float) -> None:
    distribution = Distribution()
    for start in range(0, len(values), 7):
        distribution.add(values[start : start + 7])
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    found = distribution.percentile(share)
    assert found == pytest.approx(exact, abs=0.0006)


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_percentiles_of_many_values_are_right_to_a_thousandth_of_their_number(order: str) -> None:
    many = 200_000
    values = list(map(float, range(many)))
    if order == "falling":
        values.reverse()
    elif order == "mixed":
        random.Random(1).shuffle(values)
    distribution = Distribution()
    for start in range(0, many, 100):
        distribution.add(values[start : start + 100])
    for share in (0.01, 0.5, 0.95, 1.0):
        assert distribution.percentile(share) == pytest.approx(share * many, abs=many / 1000)


def test_percentile_of_nothing() -> None:
    assert Distribution().percentile(0.5) is None
