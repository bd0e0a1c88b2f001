"""Budgets of an attempt, of all attempts at an instance, and of the run, each part of the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from evalkit.domain.failures import Failed

Level = Literal["attempt", "instance", "run"]

_CENT_DUST = 1e-9


class BudgetSpent(Failed):
    """A budget is spent, so no model may be called."""

    def __init__(self, level: Level, message: str, *, out_of_tokens: bool = False) -> None:
        super().__init__("budget", message)
        self.level = level
        self.out_of_tokens = out_of_tokens


class Budget:
    """A limit and the amount spent. Spending from a part spends from the whole at the same moment.

    Calls under way count with what they are expected to cost, so that many at once do not go beyond the limit together.
    """

    __slots__ = ("level", "limit_tokens", "limit_usd", "parent", "reserved_usd", "spent_usd", "tokens")

    def __init__(
        self,
        level: Level,
        limit_usd: float | None = None,
        *,
        limit_tokens: int = 0,
        parent: Budget | None = None,
        spent_usd: float = 0.0,
    ) -> None:
        self.level = level
        self.limit_usd = limit_usd
        self.limit_tokens = limit_tokens
        self.parent = parent
        self.spent_usd = spent_usd
        self.reserved_usd = 0.0
        self.tokens = 0

    def __str__(self) -> str:
        if not self.is_out_of_tokens:
            under_way = f", and ${self.reserved_usd:.4g} under way" if self.reserved_usd else ""
            return f"the {self.level}'s budget of ${self.limit_usd:g} is spent (${self.spent_usd:.4g}{under_way})"
        return f"the {self.level}'s {self.limit_tokens} tokens are used ({self.tokens})"

    def spend(self, usd: float, tokens: int) -> None:
        self.spent_usd += usd
        self.tokens += tokens
        if self.parent is not None:
            self.parent.spend(usd, tokens)

    @contextmanager
    def reserving(self, usd: float) -> Iterator[None]:
        """Reserve the expected cost of a call while it lasts. Raises BudgetSpent if less is left."""
        spent = self.exhausted(expecting=usd)
        if spent is not None:
            raise BudgetSpent(spent.level, str(spent), out_of_tokens=spent.is_out_of_tokens)
        self._reserve(usd)
        try:
            yield
        finally:
            self._reserve(-usd)

    def _reserve(self, usd: float) -> None:
        self.reserved_usd += usd
        if self.parent is not None:
            self.parent._reserve(usd)

    def _lacks(self, usd: float) -> bool:
        if self.limit_usd is None:
            return False
        return (
            self.spent_usd >= self.limit_usd or self.spent_usd + self.reserved_usd + usd > self.limit_usd + _CENT_DUST
        )

    @property
    def is_out_of_tokens(self) -> bool:
        return 0 < self.limit_tokens <= self.tokens

    def exhausted(self, *, ignoring: Level | None = None, expecting: float = 0.0) -> Budget | None:
        """The widest budget that is spent, or has less left than a call is expected to cost; None if there is none."""
        wider = self.parent.exhausted(ignoring=ignoring, expecting=expecting) if self.parent is not None else None
        if wider is not None:
            return wider
        return self if (self._lacks(expecting) or self.is_out_of_tokens) and self.level != ignoring else None

    @property
    def left_usd(self) -> float | None:
        """The amount left by the tightest limit."""
        own = None if self.limit_usd is None else max(0.0, self.limit_usd - self.spent_usd)
        wider = self.parent.left_usd if self.parent is not None else None
        known = [amount for amount in (own, wider) if amount is not None]
        return min(known, default=None)


class Budgets:
    """The budgets of a run, made on demand. Spending by earlier processes counts."""

    def __init__(
        self,
        *,
        run_usd: float | None = None,
        instance_usd: float | None = None,
        attempt_usd: float | None = None,
        attempt_tokens: int = 0,
        spent_usd: float = 0.0,
        spent_usd_on: Mapping[str, float] | None = None,
    ) -> None:
        self.run = Budget("run", run_usd, spent_usd=spent_usd)
        self._instance_usd = instance_usd
        self._attempt_usd = attempt_usd
        self._attempt_tokens = attempt_tokens
        self._spent_usd_on = spent_usd_on or {}
        self._instances: dict[str, Budget] = {}

    def for_attempt(self, instance_id: str) -> Budget:
        parent = self.run
        if self._instance_usd is not None:
            parent = self._instances.setdefault(
                instance_id,
                Budget(
                    "instance",
                    self._instance_usd,
                    parent=self.run,
                    spent_usd=self._spent_usd_on.get(instance_id, 0.0),
                ),
            )
        return Budget("attempt", self._attempt_usd, limit_tokens=self._attempt_tokens, parent=parent)
