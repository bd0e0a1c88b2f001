"""The responses API: conversations are kept in the format of chat completions, and translated for each call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit.config import ModelConfig
from evalkit.domain.protocols import Message, Tool, ToolUse
from evalkit.models.call_failures import ContentRefused, judge_problem
from evalkit.models.replies import Garbled, ModelReply, as_object

PATH = "/responses"
ITEMS = "response_items"
"""The key for the original items of a message: reasoning models require them back unchanged."""

_ENDINGS = ("response.completed", "response.incomplete", "response.failed")


def make_body(messages: Sequence[Message], tools: Sequence[Tool], config: ModelConfig) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": config.name,
        "input": [item for message in messages for item in _items(message)],
        # Nothing is stored at the endpoint, so encrypted reasoning is sent back with the conversation:
        # https://platform.openai.com/docs/guides/reasoning
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "strict": False,
            }
            for tool in tools
        ]
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if config.stream:
        body["stream"] = True
    return body | dict(config.options)


def _items(message: Message) -> Iterator[Mapping[str, Any]]:
    if ITEMS in message:
        yield from message[ITEMS]
    elif message["role"] == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
    else:
        yield {"role": message["role"], "content": _parts(message["content"])}


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [
        {"type": "input_image", "image_url": part["image_url"]["url"]}
        if part["type"] == "image_url"
        else {"type": "input_text", "text": part["text"]}
        for part in content
    ]


def read_document(document: Mapping[str, Any]) -> ModelReply:
    if document.get("error"):
        raise judge_problem(as_object(document["error"]))
    items = document.get("output")
    if not isinstance(items, list):
        raise Garbled("the answer has no output")
    text, reasoning, uses = "", "", []
    for item in map(as_object, items):
        match item.get("type"):
            case "message":
                text += _read_text(item)
            case "reasoning":
                reasoning += "".join(str(part.get("text", "")) for part in item.get("summary") or ())
            case "function_call":
                uses.append(_read_call(item))
    reason = str((document.get("incomplete_details") or {}).get("reason") or "")
    if reason == "content_filter":
        raise ContentRefused("its content filter stopped the answer")
    return ModelReply(
        message={"role": "assistant", "content": text, ITEMS: items},
        text=text,
        tool_uses=tuple(uses),
        counted=document.get("usage"),
        finish_reason="length" if reason == "max_output_tokens" else reason or ("tool_calls" if uses else "stop"),
        reasoning=reasoning,
        model=str(document.get("model") or ""),
    )


def _read_text(item: Mapping[str, Any]) -> str:
    text = ""
    for part in map(as_object, item.get("content") or ()):
        if part.get("type") == "refusal":
            raise ContentRefused(str(part.get("refusal")))
        text += str(part.get("text", ""))
    return text


def _read_call(item: Mapping[str, Any]) -> ToolUse:
    try:
        return ToolUse(str(item["call_id"]), str(item["name"]), str(item.get("arguments") or "{}"))
    except KeyError:
        raise Garbled("a tool call has no id or name") from None


class ResponsesStream:
    """Reads a stream up to the event that holds the whole answer."""

    def __init__(self) -> None:
        self._document: Mapping[str, Any] | None = None

    @property
    def counted(self) -> Any:
        return self._document.get("usage") if self._document else None

    def add(self, event: Mapping[str, Any]) -> None:
        if event.get("type") == "error":
            raise judge_problem(as_object(event.get("error") or event))
        if event.get("type") in _ENDINGS:
            self._document = as_object(event.get("response"))

    def document(self) -> Mapping[str, Any]:
        if self._document is None:
            raise Garbled("the stream ended before the answer did")
        return self._document


def make_stream() -> ResponsesStream:
    return ResponsesStream()
