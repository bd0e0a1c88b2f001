"""A model endpoint on loopback that follows a script: OpenAI-compatible, with LiteLLM's keys.

The script is a function from a request to a `Reply` or a `Fault`:

    with ModelServer(lambda request: Reply(text="hello")) as server:
        ...  # server.base_url

Every call is recorded with what it cost and whether its answer went out whole.
"""

from __future__ import annotations

import json
import random
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

FaultKind = Literal[
    "rate_limit",
    "server_error",
    "cut",
    "garbage",
    "slow",
    "context_overflow",
    "bad_request",
    "unauthorized",
    "content_filter",
    "no_quota",
]
CostStyle = Literal["none", "litellm", "openrouter"]

_PIECE = 12
_LOOK_SECONDS = 0.1
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by kind, as usage counts them: cached ones are part of the input, reasoning ones of the output."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any] | str
    """An object, or any text where the model is to get its JSON wrong."""
    id: str = ""

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(dict(self.arguments))


@dataclass(frozen=True, slots=True)
class Reply:
    text: str = ""
    calls: Sequence[ToolCall] = ()
    tokens: Tokens = Tokens(input=10, output=5)
    cost_usd: float | None = None
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str = ""
    delay: float = 0.0
    usage: bool = True
    """Whether the endpoint says what the call used."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    seconds: float = 0.0
    """For `rate_limit` the Retry-After, for `slow` how late the headers come."""
    reply: Reply = Reply(text="cut off")
    """For `cut`, what is cut off; for `slow`, what comes late."""
    message: str = "Incorrect API key provided"
    """For `unauthorized`, what the endpoint says."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call as the script sees it."""

    number: int
    path: str
    body: Mapping[str, Any]
    key: str | None
    headers: Mapping[str, str]

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.body.get("messages") or self.body.get("input") or ()
        return found

    @property
    def replies_before(self) -> int:
        """How many answers of the model the conversation holds, so how far the script is."""
        spoken = [_is_of_model(message) for message in self.messages]
        return sum(now and not before for before, now in zip([False, *spoken], spoken, strict=False))

    @property
    def statement(self) -> str:
        """The text of the first message of the user."""
        for message in self.messages:
            if message.get("role") == "user":
                return text_of(message)
        return ""


@dataclass(slots=True)
class Call:
    """What became of a request."""

    request: Request
    outcome: str = "reply"
    tokens: Tokens = Tokens()
    cost_usd: float = 0.0
    delivered: bool = False


@dataclass(slots=True)
class VirtualKey:
    """A key made by /key/generate. What it spent shows only after the proxy's delay."""

    max_budget: float | None
    expires_at: float | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    alias: str = ""
    spends: list[tuple[float, float]] = field(default_factory=list)
    deleted: bool = False

    def spent(self, until: float | None = None) -> float:
        return sum(cost for moment, cost in self.spends if until is None or moment <= until)

    @property
    def is_live(self) -> bool:
        return not self.deleted and (self.expires_at is None or time.time() < self.expires_at)


Script = Callable[[Request], Reply | Fault]


def _is_of_model(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant" or message.get("type") in ("reasoning", "function_call")


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whichever way its content is written."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def in_turn(*actions: Reply | Fault) -> Script:
    """Answer one action after the other, whoever asks; the last one for good."""
    return lambda request: actions[min(request.number, len(actions)) - 1]


def by_conversation(*replies: Reply) -> Script:
    """Answer each conversation from the start, so that any number of them may go on at once."""
    return lambda request: replies[min(request.replies_before, len(replies) - 1)]


def with_faults(script: Script, share: float, faults: Sequence[Fault], seed: int = 0) -> Script:
    """The same script, with a fault in place of this share of the answers, each kind in turn."""
    source, lock, made = random.Random(seed), threading.Lock(), 0  # noqa: S311  # repeatable on purpose

    def faulty(request: Request) -> Reply | Fault:
        nonlocal made
        with lock:
            if source.random() >= share:
                return script(request)
            made += 1
            return faults[made % len(faults)]

    return faulty


class ModelServer:
    """Serves a script while its context lasts, one thread for each connection."""

    def __init__(
        self,
        script: Script,
        *,
        keys: Sequence[str] | None = None,
        master_key: str | None = None,
        cost_style: CostStyle = "none",
        spend_delay: float = 0.0,
    ) -> None:
        self.script = script
        self.keys = set(keys) if keys is not None else None
        self.master_key = master_key
        self.cost_style = cost_style
        self.spend_delay = spend_delay
        self.calls: list[Call] = []
        self.virtual_keys: dict[str, VirtualKey] = {}
        self.lock = threading.Lock()
        self.asked = threading.Event()
        self.stopping = threading.Event()
        self.open_connections = 0
        self.most_in_flight = 0
        self.in_flight = 0
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.endpoint = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    @property
    def delivered(self) -> list[Call]:
        """The calls whose answer went out whole."""
        with self.lock:
            return [call for call in self.calls if call.delivered]

    @property
    def delivered_tokens(self) -> Tokens:
        return sum((call.tokens for call in self.delivered), Tokens())

    @property
    def live_keys(self) -> list[str]:
        with self.lock:
            return [name for name, key in self.virtual_keys.items() if key.is_live]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def admit(self, path: str, body: Mapping[str, Any], key: str | None, headers: Mapping[str, str]) -> Call:
        with self.lock:
            request = Request(len(self.calls) + 1, path, body, key, headers)
            call = Call(request)
            self.calls.append(call)
        self.asked.set()
        return call

    def refusal(self, key: str | None) -> tuple[int, dict[str, Any]] | None:
        """Why this key may not call, if so."""
        with self.lock:
            virtual = self.virtual_keys.get(key or "")
            if virtual is not None and virtual.is_live:
                spent = virtual.spent()
                if virtual.max_budget is not None and spent >= virtual.max_budget:
                    text = f"Budget has been exceeded! Current cost: {spent}, Max budget: {virtual.max_budget}"
                    return 400, _error(text, "budget_exceeded", "400")
                return None
            if self.keys is None and self.master_key is None:
                return None
            if key is not None and (key == self.master_key or key in (self.keys or ())):
                return None
        return 401, _error("Incorrect API key provided", "invalid_request_error", "invalid_api_key")

    def charge(self, call: Call, reply: Reply) -> None:
        """Note what a call uses: also one whose answer is cut off, since the endpoint did the work."""
        with self.lock:
            call.tokens, call.cost_usd = reply.tokens, reply.cost_usd or 0.0
            virtual = self.virtual_keys.get(call.request.key or "")
            if virtual is not None:
                virtual.spends.append((time.time() + self.spend_delay, call.cost_usd))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    endpoint: ModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 600

    def setup(self) -> None:
        super().setup()
        with self.endpoint.lock:
            self.endpoint.open_connections += 1

    def finish(self) -> None:
        with self.endpoint.lock:
            self.endpoint.open_connections -= 1
        with suppress(OSError):
            super().finish()

    @property
    def endpoint(self) -> ModelServer:
        return self.server.endpoint

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.endswith("/models"):
            self._send(200, {"object": "list", "data": [{"id": "scripted", "object": "model"}]})
        elif url.path == "/key/info":
            self._manage(lambda: self._key_info(parse_qs(url.query)))
        else:
            self._send(404, _error(f"there is no {url.path}", "not_found", "404"))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            self._send(400, _error("the body is no JSON", "invalid_request_error", "400"))
            return
        path = urlsplit(self.path).path
        if path == "/key/generate":
            self._manage(lambda: self._generate_key(body))
        elif path == "/key/delete":
            self._manage(lambda: self._delete_keys(body))
        elif path.endswith(("/chat/completions", *_SPEAKERS)):
            self._complete(path, body)
        else:
            self._send(404, _error(f"there is no {path}", "not_found", "404"))

    @property
    def _key(self) -> str | None:
        scheme, _, key = (self.headers.get("Authorization") or "").partition(" ")
        return key if scheme == "Bearer" else self.headers.get("x-api-key")

    def _complete(self, path: str, body: Mapping[str, Any]) -> None:
        endpoint = self.endpoint
        call = endpoint.admit(path, body, self._key, dict(self.headers.items()))
        refusal = endpoint.refusal(self._key)
        if refusal is not None:
            call.outcome = "unauthorized" if refusal[0] == 401 else "budget_exceeded"
            self._send(*refusal)
            return
        with endpoint.lock:
            endpoint.in_flight += 1
            endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
        try:
            action = endpoint.script(call.request)
            if isinstance(action, Fault):
                call.outcome = action.kind
                self._fail(call, action)
            else:
                self._answer(call, action)
        finally:
            with endpoint.lock:
                endpoint.in_flight -= 1

    def _answer(self, call: Call, reply: Reply, *, cut: bool = False) -> None:
        if reply.delay and not self._wait(reply.delay):
            call.outcome = "hung_up"
            return
        self.endpoint.charge(call, reply)
        speaks = next((each for end, each in _SPEAKERS.items() if call.request.path.endswith(end)), _Chat)
        answer = speaks(call.request, reply, self.endpoint.cost_style)
        headers = {}
        streams = bool(call.request.body.get("stream"))
        if self.endpoint.cost_style == "litellm" and reply.cost_usd is not None and not streams:
            headers["x-litellm-response-cost"] = repr(reply.cost_usd)
        if streams:
            whole = self._stream(list(answer.events()), headers, cut=cut)
        else:
            whole = self._send(200, answer.document(), headers, cut=cut)
        call.delivered = whole and not cut

    def _wait(self, seconds: float) -> bool:
        """Whether the client is still there afterwards."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.endpoint.stopping.is_set():
            poll = select.poll()  # not select, which knows no more than 1024 files
            poll.register(self.connection, select.POLLIN)
            readable = poll.poll(1000 * min(left, _LOOK_SECONDS))
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                self.close_connection = True
                return False
            if readable:  # the next request, which has to wait
                self.endpoint.stopping.wait(min(left, _LOOK_SECONDS))
        return not self.endpoint.stopping.is_set()

    def _fail(self, call: Call, fault: Fault) -> None:
        match fault.kind:
            case "rate_limit":
                after = {"Retry-After": f"{fault.seconds:g}"}
                self._send(429, _error("Rate limit reached", "rate_limit_error", "rate_limit_exceeded"), after)
            case "server_error":
                self._send(500, _error("The server had an error", "server_error", None))
            case "cut":
                self._answer(call, fault.reply, cut=True)
            case "garbage":
                self._send_bytes(200, b'{"choices": [{"mess', {"Content-Type": "application/json"})
            case "slow":
                if self._wait(fault.seconds):
                    self._answer(call, fault.reply)
            case "context_overflow":
                text = "This model's maximum context length is 8192 tokens."
                self._send(400, _error(text, "invalid_request_error", "context_length_exceeded"))
            case "bad_request":
                self._send(400, _error("Unknown parameter", "invalid_request_error", "unknown_parameter"))
            case "unauthorized":
                self._send(401, _error(fault.message, "invalid_request_error", "invalid_api_key"))
            case "content_filter":
                self._send(400, _error("The prompt was filtered", "invalid_request_error", "content_filter"))
            case "no_quota":
                self._send(429, _error("You exceeded your quota", "insufficient_quota", "insufficient_quota"))

    def _manage(self, action: Callable[[], tuple[int, dict[str, Any]]]) -> None:
        if self.endpoint.master_key is None or self._key != self.endpoint.master_key:
            self._send(401, _error("Authentication Error: not the master key", "auth_error", "401"))
        else:
            self._send(*action())

    def _generate_key(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        duration = body.get("duration")
        lives = float(duration[:-1]) * _UNITS[duration[-1]] if duration else None
        expires_at = time.time() + lives if lives is not None else None
        name = f"sk-virtual-{secrets.token_hex(8)}"
        with self.endpoint.lock:
            self.endpoint.virtual_keys[name] = VirtualKey(
                body.get("max_budget"), expires_at, body.get("metadata") or {}, body.get("key_alias") or ""
            )
        return 200, {"key": name, "max_budget": body.get("max_budget"), "expires": expires_at}

    def _key_info(self, query: Mapping[str, Sequence[str]]) -> tuple[int, dict[str, Any]]:
        name = (query.get("key") or [""])[0]
        with self.endpoint.lock:
            key = self.endpoint.virtual_keys.get(name)
            if key is None or key.deleted:
                return 404, _error("Key not found in database", "not_found_error", "404")
            return 200, {"key": name, "info": {"spend": key.spent(time.time()), "max_budget": key.max_budget}}

    def _delete_keys(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        names, aliases = body.get("keys") or (), body.get("key_aliases") or ()
        with self.endpoint.lock:
            known = self.endpoint.virtual_keys.items()
            found = [name for name, key in known if not key.deleted and (name in names or key.alias in aliases)]
            for name in found:
                self.endpoint.virtual_keys[name].deleted = True
        if not found:
            return 404, _error("No keys found", "not_found_error", "404")
        return 200, {"deleted_keys": found}

    def _send(self, status: int, document: Any, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> bool:
        content = json.dumps(document).encode()
        return self._send_bytes(status, content, {"Content-Type": "application/json", **(headers or {})}, cut=cut)

    def _send_bytes(self, status: int, content: bytes, headers: Mapping[str, str], *, cut: bool = False) -> bool:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return False
        self.close_connection = self.close_connection or cut
        return True

    def _stream(self, events: Sequence[str], headers: Mapping[str, str], *, cut: bool) -> bool:
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for event in events[: max(1, len(events) // 2)] if cut else events:
                self._send_chunk(event.encode())
            if not cut:
                self._send_chunk(b"")
        except OSError:
            self.close_connection = True
            return False
        self.close_connection = self.close_connection or cut
        return True

    def _send_chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()


@dataclass(frozen=True, slots=True)
class _Chat:
    """A reply in the words of the chat completions API."""

    request: Request
    reply: Reply
    cost_style: CostStyle

    def document(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.reply.text or None}
        if self.reply.calls:
            message["tool_calls"] = self._calls()
        if self.reply.reasoning:
            message["reasoning_content"] = self.reply.reasoning
        if self.reply.refusal:
            message["refusal"] = self.reply.refusal
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return {**self._envelope("chat.completion"), "choices": [choice], **self._usage()}

    def events(self) -> Iterator[str]:
        yield self._event({"role": "assistant", "content": ""})
        for piece in _pieces(self.reply.reasoning):
            yield self._event({"reasoning_content": piece})
        for piece in _pieces(self.reply.text):
            yield self._event({"content": piece})
        if self.reply.refusal:
            yield self._event({"refusal": self.reply.refusal})
        for index, call in enumerate(self._calls()):
            start = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
            yield self._event({"tool_calls": [start]})
            for piece in _pieces(call["function"]["arguments"]):
                yield self._event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield self._event({}, self._finish_reason)
        if (self.request.body.get("stream_options") or {}).get("include_usage"):
            yield _data({**self._envelope("chat.completion.chunk"), "choices": [], **self._usage()})
        yield "data: [DONE]\n\n"

    @property
    def _finish_reason(self) -> str:
        return self.reply.finish_reason or ("tool_calls" if self.reply.calls else "stop")

    def _event(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _data({**self._envelope("chat.completion.chunk"), "choices": [choice]})

    def _envelope(self, kind: str) -> dict[str, Any]:
        model = self.request.body.get("model", "scripted")
        return {"id": f"chatcmpl-{self.request.number}", "object": kind, "created": 0, "model": model}

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": call.id or f"call_{self.request.number}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for index, call in enumerate(self.reply.calls)
        ]

    def _usage(self) -> dict[str, Any]:
        if not self.reply.usage:
            return {}
        tokens = self.reply.tokens
        usage: dict[str, Any] = {
            "prompt_tokens": tokens.input,
            "completion_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output,
            "prompt_tokens_details": {"cached_tokens": tokens.cached},
            "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        }
        if self.cost_style == "openrouter" and self.reply.cost_usd is not None:
            usage["cost"] = self.reply.cost_usd
        return {"usage": usage}


@dataclass(frozen=True, slots=True)
class _Responses:
    """A reply in the words of the responses API."""

    request: Request
    reply: Reply
    cost_style: CostStyle

    def document(self) -> dict[str, Any]:
        incomplete = self.reply.finish_reason in ("length", "content_filter")
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        return {
            "id": f"resp_{self.request.number}",
            "object": "response",
            "created_at": 0,
            "model": self.request.body.get("model", "scripted"),
            "status": "incomplete" if incomplete else "completed",
            "incomplete_details": {"reason": reasons[self.reply.finish_reason]} if incomplete else None,
            "output": list(self._output()),
            **self._usage(),
        }

    def events(self) -> Iterator[str]:
        document = self.document()
        yield _data({"type": "response.created", "response": {**document, "status": "in_progress", "output": []}})
        for index, item in enumerate(document["output"]):
            yield _data({"type": "response.output_item.done", "output_index": index, "item": item})
        kind = "response.incomplete" if document["status"] == "incomplete" else "response.completed"
        yield _data({"type": kind, "response": document})

    def _output(self) -> Iterator[dict[str, Any]]:
        number = self.request.number
        if self.reply.reasoning:
            summary = [{"type": "summary_text", "text": self.reply.reasoning}]
            yield {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": "opaque"}
        if self.reply.text or self.reply.refusal:
            part = (
                {"type": "refusal", "refusal": self.reply.refusal}
                if self.reply.refusal
                else {"type": "output_text", "text": self.reply.text, "annotations": []}
            )
            yield {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}
        for index, call in enumerate(self.reply.calls):
            yield {
                "type": "function_call",
                "id": f"fc_{number}_{index}",
                "call_id": call.id or f"call_{number}_{index}",
                "name": call.name,
                "arguments": call.text,
            }

    def _usage(self) -> dict[str, Any]:
        if not self.reply.usage:
            return {}
        tokens = self.reply.tokens
        usage: dict[str, Any] = {
            "input_tokens": tokens.input,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.input + tokens.output,
        }
        if self.cost_style == "openrouter" and self.reply.cost_usd is not None:
            usage["cost"] = self.reply.cost_usd
        return {"usage": usage}


@dataclass(frozen=True, slots=True)
class _Messages:
    """A reply in the words of Anthropic's messages API."""

    request: Request
    reply: Reply
    cost_style: CostStyle

    def document(self) -> dict[str, Any]:
        stop = "tool_use" if self.reply.calls else "end_turn"
        return {**self._envelope(), "content": self._blocks(), "stop_reason": stop, "usage": self._usage()}

    def events(self) -> Iterator[str]:
        whole = self.document()
        start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
        yield self._event("message_start", message=start)
        for index, block in enumerate(whole["content"]):
            yield from self._pieces(index, block)
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield self._event("message_delta", delta=delta, usage={"output_tokens": whole["usage"]["output_tokens"]})
        yield self._event("message_stop")

    def _pieces(self, index: int, block: Mapping[str, Any]) -> Iterator[str]:
        is_text = block["type"] == "text"
        empty: dict[str, Any] = {"text": ""} if is_text else {"input": {}}
        content = block["text"] if is_text else json.dumps(block["input"])
        kind, name = ("text_delta", "text") if is_text else ("input_json_delta", "partial_json")
        yield self._event("content_block_start", index=index, content_block={**block, **empty})
        for piece in _pieces(content):
            yield self._event("content_block_delta", index=index, delta={"type": kind, name: piece})
        yield self._event("content_block_stop", index=index)

    def _blocks(self) -> list[dict[str, Any]]:
        text = [{"type": "text", "text": self.reply.text}] if self.reply.text else []
        return text + [
            {
                "type": "tool_use",
                "id": call.id or f"toolu_{self.request.number}_{index}",
                "name": call.name,
                "input": json.loads(call.text),
            }
            for index, call in enumerate(self.reply.calls)
        ]

    def _envelope(self) -> dict[str, Any]:
        model = self.request.body.get("model", "scripted")
        kind = {"type": "message", "role": "assistant", "stop_sequence": None}
        return {"id": f"msg_{self.request.number}", "model": model, **kind}

    def _usage(self) -> dict[str, Any]:
        tokens = self.reply.tokens
        usage: dict[str, Any] = {
            "input_tokens": tokens.input - tokens.cached,
            "cache_read_input_tokens": tokens.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": tokens.output,
        }
        if self.cost_style == "openrouter" and self.reply.cost_usd is not None:
            usage["cost"] = self.reply.cost_usd
        return usage

    def _event(self, kind: str, **content: Any) -> str:
        return f"event: {kind}\n" + _data({"type": kind, **content})


_SPEAKERS: Mapping[str, type[_Responses | _Messages]] = {"/responses": _Responses, "/messages": _Messages}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE]


def _data(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def _error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
