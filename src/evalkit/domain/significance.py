"""How likely chance alone is to make two runs differ as much as they do."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import compress
from typing import NamedTuple

_MOST_BITS = 2e10  # of arithmetic: under a second
_DRAWS = 10_000
_SEED = 20260207


class Test(NamedTuple):
    p_value: float
    method: str


def sign_flip(
    differences: Sequence[float], clusters: Sequence[Hashable] | None = None, *, unit: int | None = None
) -> Test:
    """The two-sided permutation test of paired differences, by flipping their signs.

    Exact where all differences are multiples of 1 / `unit` and few enough, else by random flips with a fixed seed.
    Differences of a cluster flip together.
    """
    sums: dict[Hashable, float] = {}
    for difference, cluster in zip(differences, clusters or range(len(differences)), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + difference
    amounts = [amount for amount in sums.values() if abs(amount) > 1e-12]
    if not amounts:
        return Test(1.0, "exact")
    if unit is not None:
        whole = [round(amount * unit) for amount in amounts]
        if sum(map(abs, whole)) * len(whole) ** 2 < _MOST_BITS:
            return Test(_flip_exactly(whole), "exact")
    return Test(_flip_randomly(amounts), "random")


def _flip_exactly(amounts: Sequence[int]) -> float:
    """Count the flips by their sums: the coefficients of the product of 1 + x^amount, packed into one large integer."""
    width = len(amounts) + 1
    ways = 1
    for amount in amounts:
        ways += ways << (abs(amount) * width)
    least = (sum(map(abs, amounts)) + abs(sum(amounts)) + 1) // 2
    tail, mask = ways >> (least * width), (1 << width) - 1
    reached = 0
    content = tail.to_bytes((tail.bit_length() + 7) // 8 + 1, "little")
    for start in range(0, tail.bit_length(), width):
        piece = content[start // 8 : (start + width) // 8 + 1]
        reached += (int.from_bytes(piece, "little") >> (start % 8)) & mask
    return min(1.0, 2 * reached / (1 << len(amounts)))


def _flip_randomly(amounts: Sequence[float]) -> float:
    import random  # takes long, and is seldom needed

    chance = random.Random(_SEED)  # noqa: S311  # random flips, not cryptography
    seen, total, hits = abs(math.fsum(amounts)), math.fsum(amounts), 0
    draws = max(1000, min(_DRAWS, 20_000_000 // len(amounts)))
    digits = bytes(code == ord("1") for code in range(256))
    for _ in range(draws):
        flips = f"{chance.getrandbits(len(amounts)):0{len(amounts)}b}".encode().translate(digits)
        flipped = math.fsum(compress(amounts, flips))
        hits += abs(total - 2 * flipped) >= seen - 1e-9
    return (hits + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, corrected for their number by Holm's method."""
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = reached
    return adjusted
