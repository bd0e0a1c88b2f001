"""A model's answer, independent of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.domain.protocols import Message, ToolUse
from evalkit.models.call_failures import CallFailed


class Garbled(CallFailed):
    """The response cannot be read as an answer; the next try may succeed."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "model_unavailable", f"the model endpoint sent something else than an answer: {reason}", again=True
        )


@dataclass(frozen=True, slots=True)
class ModelReply:
    message: Message
    text: str
    tool_uses: Sequence[ToolUse]
    counted: Mapping[str, Any] | None
    finish_reason: str = ""
    reasoning: str = ""
    model: str = ""


def as_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Garbled("it has another shape")
    return value
