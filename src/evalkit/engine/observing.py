"""What is shown of a run must not change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evalkit.domain.protocols import Observer
from evalkit.domain.records import Failure, Result
from evalkit.logs import logger


class Guarded:
    """Passes on what happens. An observer that fails is logged, and costs no result."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def entered(self, instance_id: str, attempt: int, stage: str) -> None:
        _tell(self._observer.entered, instance_id, attempt, stage)

    def retrying(self, instance_id: str, attempt: int, failure: Failure, delay: float) -> None:
        _tell(self._observer.retrying, instance_id, attempt, failure, delay)

    def finished(self, result: Result) -> None:
        _tell(self._observer.finished, result)

    def added(self, instance_id: str, attempt: int) -> None:
        _tell(self._observer.added, instance_id, attempt)

    def held(self, reason: str | None) -> None:
        _tell(self._observer.held, reason)


def _tell(listener: Callable[..., None], *what: Any) -> None:
    try:
        listener(*what)
    except Exception:  # noqa: BLE001  # whatever it is, the run goes on
        logger.warning("the observer failed", exc_info=True)
