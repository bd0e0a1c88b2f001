"""What a call cost, by the price table."""

from __future__ import annotations

import pytest

from evalkit.config import Prices
from evalkit.models.usage import price


@pytest.mark.parametrize(
    ("cached", "dollars"),
    [(0, 3.0), (400_000, 1.92), (1_000_000, 0.3), (2_000_000, 0.6)],
    ids=["none cached", "some cached", "all cached", "more cached than read, as some endpoints count"],
)
def test_cached_tokens_are_cheaper_and_no_token_gives_money_back(cached: int, dollars: float) -> None:
    assert price(1_000_000, cached, 0, Prices(input=3.0, cached=0.3, output=15.0)) == pytest.approx(dollars)
