"""The chat completions API: requests, and answers, whole or streamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.config import ModelConfig
from evalkit.domain.protocols import Message, Tool, ToolUse
from evalkit.models.call_failures import ContentRefused, judge_problem
from evalkit.models.replies import Garbled, ModelReply, as_object

PATH = "/chat/completions"
# Some endpoints require the reasoning behind a tool call to be sent back with it.
_KEPT = ("role", "content", "tool_calls", "reasoning_details", "thinking_blocks")
_CONCATENATED = ("content", "reasoning_content", "reasoning", "refusal")


def make_body(messages: Sequence[Message], tools: Sequence[Tool], config: ModelConfig) -> dict[str, Any]:
    body: dict[str, Any] = {"model": config.name, "messages": list(messages)}
    if tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            }
            for tool in tools
        ]
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if config.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body | dict(config.options)


def read_document(document: Mapping[str, Any]) -> ModelReply:
    if document.get("error"):
        raise judge_problem(as_object(document["error"]))
    try:
        choice = document["choices"][0]
        message = as_object(choice["message"])
    except (KeyError, IndexError, TypeError):
        raise Garbled("the answer has no message") from None
    finish_reason = str(choice.get("finish_reason") or "")
    if message.get("refusal"):
        raise ContentRefused(str(message["refusal"]))
    if finish_reason == "content_filter":
        raise ContentRefused("its content filter stopped the answer")
    return ModelReply(
        message={"role": "assistant", **{name: message[name] for name in _KEPT if message.get(name) is not None}},
        text=_text(message.get("content")),
        tool_uses=tuple(map(_read_call, message.get("tool_calls") or ())),
        counted=document.get("usage"),
        finish_reason=finish_reason,
        reasoning=str(message.get("reasoning_content") or message.get("reasoning") or ""),
        model=str(document.get("model") or ""),
    )


def _read_call(call: Any) -> ToolUse:
    try:
        function = call["function"]
        return ToolUse(str(call["id"]), str(function["name"]), str(function.get("arguments") or "{}"))
    except (KeyError, TypeError, AttributeError):
        raise Garbled("a tool call has no id or name") from None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


class ChatStream:
    """Puts the pieces of a streamed answer together."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._document: dict[str, Any] = {}
        self._finish_reason: str | None = None

    @property
    def counted(self) -> Any:
        return self._document.get("usage")

    def add(self, event: Mapping[str, Any]) -> None:
        if event.get("error"):
            raise judge_problem(as_object(event["error"]))
        for name in ("model", "usage"):
            if event.get(name):
                self._document[name] = event[name]
        for choice in event.get("choices") or ():
            self._add_delta(as_object(choice.get("delta") or {}))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def document(self) -> dict[str, Any]:
        """The whole answer in the format of one that is not streamed. Raises Garbled if its end is missing."""
        if self._finish_reason is None:
            raise Garbled("the stream ended before the answer did")
        message = self._message | ({"tool_calls": list(self._calls.values())} if self._calls else {})
        return self._document | {"choices": [{"message": message, "finish_reason": self._finish_reason}]}

    def _add_delta(self, delta: Mapping[str, Any]) -> None:
        for name in _CONCATENATED:
            if isinstance(delta.get(name), str):
                self._message[name] = self._message.get(name, "") + delta[name]
        for name in ("reasoning_details", "thinking_blocks"):
            if isinstance(delta.get(name), list):
                self._message[name] = [*self._message.get(name, ()), *delta[name]]
        for piece in delta.get("tool_calls") or ():
            self._add_call(as_object(piece))

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        function = as_object(piece.get("function") or {})
        index = int(piece.get("index") or 0)
        call = self._calls.setdefault(index, {"type": "function", "function": {"name": "", "arguments": ""}})
        if piece.get("id"):
            call["id"] = piece["id"]
        if function.get("name"):
            call["function"]["name"] = function["name"]
        call["function"]["arguments"] += function.get("arguments") or ""


def read_event(line: str) -> Mapping[str, Any] | None:
    """The event in a line of a stream, if there is one."""
    if not line.startswith("data:"):
        return None
    content = line.removeprefix("data:").strip()
    if not content or content == "[DONE]":
        return None
    try:
        return as_object(json.loads(content))
    except (ValueError, RecursionError):
        raise Garbled("an event of the stream is no JSON") from None


def make_stream() -> ChatStream:
    return ChatStream()
