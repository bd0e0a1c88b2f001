"""What messages word alike."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice


def first_few(names: Collection[str], most: int = 10) -> str:
    """Names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more
