"""The meaning of failed calls: whether to try again, and the failure kind if not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from evalkit import masking
from evalkit.domain.failures import Failed, Kind

_LONGEST = 300
_STATUS = re.compile(r"[0-9]{3}")
_OVERFLOW_CODES = ("context_length_exceeded", "string_above_max_length", "ContextWindowExceededError")
# vLLM, OpenRouter and LiteLLM have no error code for a conversation that is too long, only a message.
_OVERFLOW_PHRASES = ("maximum context length", "context window", "contextwindowexceeded", "too many input tokens")
_REFUSAL_CODES = ("content_filter", "content_policy_violation", "ContentPolicyViolationError")
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
_WORTH_ANOTHER_TRY = (408, 409, 425, 429)


class CallFailed(Failed):
    """A call of the model failed."""

    def __init__(self, kind: Kind, message: str, *, again: bool = False, retry_after: float | None = None) -> None:
        # Some endpoints quote the key that they refuse.
        super().__init__(kind, masking.mask(message), retry_after=retry_after)
        self.again = again


class ContentRefused(CallFailed):
    """The model, or a content filter before it, refuses to answer."""

    def __init__(self, message: str) -> None:
        super().__init__("model_request", f"the model refuses to answer: {message}")


def judge_status(status: int, headers: Mapping[str, str], body: bytes) -> CallFailed:
    """Read an error response."""
    problem = _read_problem(body)
    message = f"the model endpoint answers {status}: {problem.message}"
    if status in (401, 403):
        return CallFailed("model_auth", message)
    if status == 402 or problem.is_about(_QUOTA_CODES):
        return CallFailed("model_auth", f"{message} (the account has nothing left)")
    if problem.is_about(("budget_exceeded",)):
        return CallFailed("budget", message)
    if status in _WORTH_ANOTHER_TRY or status >= 500:
        kind: Kind = "model_limit" if status == 429 else "model_unavailable"
        return CallFailed(kind, message, again=True, retry_after=read_retry_after(headers))
    return _judge_request(problem, message)


def judge_problem(document: Mapping[str, Any]) -> CallFailed:
    """Read an error within a stream."""
    problem = _Problem.of(document)
    message = f"the model endpoint broke off its answer: {problem.message}"
    status = problem.status
    if status is not None and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:
        return judge_status(status, {}, json.dumps({"error": document}).encode())
    return CallFailed("model_limit" if status == 429 else "model_unavailable", message, again=True)


def _judge_request(problem: _Problem, message: str) -> CallFailed:
    if problem.is_about(_OVERFLOW_CODES) or any(phrase in problem.message.lower() for phrase in _OVERFLOW_PHRASES):
        return CallFailed("context_overflow", message)
    if problem.is_about(_REFUSAL_CODES):
        return ContentRefused(problem.message)
    return CallFailed("model_request", message)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: Retry-After as a number or a date, or OpenAI's `retry-after-ms`."""
    milliseconds = headers.get("retry-after-ms")
    text = headers.get("retry-after")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds is not None else float(text or "")
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


class _Problem:
    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        self.message = message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"
        self._names = names

    @classmethod
    def of(cls, document: Any) -> _Problem:
        if not isinstance(document, Mapping):
            return cls(str(document))
        names = tuple(str(document[name]) for name in ("code", "type") if document.get(name))
        return cls(str(document.get("message") or document.get("detail") or dict(document)), names)

    def is_about(self, codes: tuple[str, ...]) -> bool:
        return any(name in codes for name in self._names)

    @property
    def status(self) -> int | None:
        return next((int(name) for name in self._names if _STATUS.fullmatch(name)), None)


def _read_problem(body: bytes) -> _Problem:
    text = body.decode("utf-8", "replace").strip()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _Problem(" ".join(text.split()) or "nothing more")
    error = document.get("error", document) if isinstance(document, Mapping) else document
    return _Problem.of(error)
