"""Access to the endpoint for one attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.config import Prices
from evalkit.models.pacing import Pace

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Upstream:
    """Address, key, connections and pace for the calls of one attempt."""

    model: str
    base_url: str
    key: str | None
    http: httpx.AsyncClient
    pace: Pace
    prices: Prices | None
    keeps_budget: bool = False
    """Whether the endpoint itself stops at the budget of the key."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}
