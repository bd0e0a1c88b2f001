from __future__ import annotations

import pytest

from evalkit.models.pacing import TokenRate, backoff


def test_tokens_flow_in_over_a_minute() -> None:
    rate = TokenRate(600)
    assert rate.wait_for(600, now=0.0) == 0
    assert rate.wait_for(100, now=0.0) == pytest.approx(10.0)
    assert rate.wait_for(100, now=10.0) == 0
    assert rate.wait_for(10, now=10.0) == pytest.approx(1.0)


def test_an_estimate_is_corrected_by_what_was_used() -> None:
    rate = TokenRate(600)
    assert rate.wait_for(100, now=0.0) == 0
    rate.correct(100, 700)
    assert rate.wait_for(1, now=0.0) == pytest.approx(10.1)


def test_one_call_larger_than_a_minute_goes_through() -> None:
    rate = TokenRate(600)
    assert rate.wait_for(5000, now=0.0) == 0
    assert rate.wait_for(600, now=0.0) > 60


@pytest.mark.parametrize("tries", range(1, 12))
def test_waiting_doubles_with_jitter_and_never_undercuts_the_endpoint(tries: int) -> None:
    assert 0.25 * 2 ** (tries - 1) <= backoff(tries, None) or backoff(tries, None) >= 30
    assert backoff(tries, None) <= 60
    assert backoff(tries, 7.0) >= 7.0
