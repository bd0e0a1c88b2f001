"""The way to the model for agents that live in a workspace: a door to one endpoint, with the key on our side of it.

Each attempt has a socket of its own, so no caller needs to say who it is. Whatever goes through is counted, streamed or
not, and stops at the limits of the attempt, the instance and the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h11

from evalkit import masking
from evalkit.domain.budget import BudgetSpent
from evalkit.domain.failures import Failed
from evalkit.domain.records import Meter, Usage
from evalkit.logs import logger
from evalkit.models.call_failures import judge_status
from evalkit.models.http_server import ServerConnection
from evalkit.models.pacing import Taken
from evalkit.models.unix_server import SocketStream
from evalkit.models.upstream import Upstream
from evalkit.models.usage import UNMETERED, read_usage

if TYPE_CHECKING:
    import httpx

_ASKING = ("/chat/completions", "/responses", "/messages", "/completions", "/embeddings")
_LISTING = ("/models",)
_PASSED_UP = ("content-type", "accept", "anthropic-version", "anthropic-beta")
_BYTES_PER_TOKEN = 4


class _BrokenOff(Exception):
    """The endpoint left in the middle of an answer."""


class Proxy:
    """Serves one attempt."""

    def __init__(self, upstream: Upstream, meter: Meter) -> None:
        self._upstream = upstream
        self._meter = meter
        self._latest_usd = upstream.pace.opening_usd
        self.problem: Failed | None = None
        """Why the model could not be asked, where trying again from inside cannot help."""

    async def serve(self, stream: SocketStream) -> None:
        """One connection, until either side ends it."""
        try:
            await self._serve(ServerConnection(stream))
        except (_BrokenOff, h11.ProtocolError) as error:
            logger.debug("a connection of the agent to its model ended: %r", error)

    async def _serve(self, connection: ServerConnection) -> None:
        while (request := await connection.next_request()) is not None:
            path = request.target.decode("ascii", "replace").partition("?")[0].removeprefix("/v1")
            if request.method == b"GET" and path in _LISTING:
                await self._list(connection, path)
            elif request.method == b"POST" and path in _ASKING:
                await self._ask(connection, path, request)
            else:
                await connection.refuse(404, "not_found", f"only the model can be reached here, not {path}")
            if not connection.goes_on():
                return

    async def _list(self, connection: ServerConnection, path: str) -> None:
        import httpx  # not before a model is asked

        try:
            response = await self._upstream.http.get(self._upstream.base_url + path, headers=self._upstream.headers)
        except httpx.RequestError as error:
            await connection.refuse(502, "model_unavailable", f"the model endpoint cannot be reached: {error!r}")
            return
        await connection.begin(response.status_code, response.headers)
        await connection.send(response.content)
        await connection.end()

    async def _ask(self, connection: ServerConnection, path: str, request: h11.Request) -> None:
        try:
            body = self._prepare(path, connection.body)
        except ValueError:
            await connection.refuse(400, "invalid_request_error", "the body is no JSON object")
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        kept = {name: headers[name] for name in _PASSED_UP if name in headers}
        async with self._upstream.pace.slot(len(body) // _BYTES_PER_TOKEN) as taken:
            try:
                with self._meter.budget.reserving(self._latest_usd):
                    async with connection.kept_by_the_other_side():
                        await self._forward(connection, path, body, kept | self._credentials(path), taken)
            except BudgetSpent as spent:
                self.problem = self.problem or spent
                await connection.refuse(400, "budget_exceeded", spent.message)

    def _credentials(self, path: str) -> dict[str, str]:
        """As the API in question wants them; proxies take either."""
        key = self._upstream.key
        return self._upstream.headers | ({"x-api-key": key} if key and path == "/messages" else {})

    def _prepare(self, path: str, body: bytes) -> bytes:
        """The request as it goes up: to the model of this run and no other, and telling what it used."""
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("no object")
        document["model"] = self._upstream.model
        if document.get("stream") and path == "/chat/completions":
            document["stream_options"] = {**(document.get("stream_options") or {}), "include_usage": True}
        return json.dumps(document).encode()

    async def _forward(
        self, connection: ServerConnection, path: str, body: bytes, headers: Mapping[str, str], taken: Taken
    ) -> None:
        import httpx

        usage, counter = UNMETERED, Counter("")
        told: Mapping[str, str] = {}
        try:
            url, headers = self._upstream.base_url + path, {**headers, "Accept-Encoding": "identity"}
            async with self._upstream.http.stream("POST", url, content=body, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    usage = Usage()
                    await self._pass_on_refusal(connection, response)
                    return
                told = response.headers
                counter = Counter(told.get("content-type", ""))
                await connection.begin(response.status_code, response.headers)
                async for block in response.aiter_raw():
                    counter.feed(block)
                    await connection.send(block)
                counter.is_final = True
                await connection.end()
        except httpx.ConnectError as error:
            usage = Usage()
            await connection.refuse(502, "model_unavailable", f"the model endpoint cannot be reached: {error!r}")
        except httpx.RequestError as error:
            logger.warning("the connection to the model broke: %r", error)
            # In the middle of an answer, so that the other side sees that it is not whole.
            raise _BrokenOff from error
        finally:
            # Callers hang up as soon as they have heard enough, which may be before the answer has ended.
            if counter.is_final:
                usage = read_usage(counter.counted(), told, self._upstream.prices)
            self._meter.add(usage)
            taken.used = usage.tokens
            self._latest_usd = usage.known_cost_usd or self._latest_usd

    async def _pass_on_refusal(self, connection: ServerConnection, response: httpx.Response) -> None:
        content = await response.aread()
        failure = judge_status(response.status_code, response.headers, content)
        if failure.kind in ("model_auth", "budget"):
            self.problem = self.problem or failure
        await connection.begin(response.status_code, response.headers)
        await connection.send(_masked(content))
        await connection.end()


def _masked(content: bytes) -> bytes:
    """Endpoints like to repeat the key that they refuse."""
    return masking.mask(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


class Counter:
    """Finds the usage in an answer that passes by, in one piece or as a stream, in any of the three APIs."""

    def __init__(self, content_type: str) -> None:
        self._streams = content_type.startswith("text/event-stream")
        self._rest = b""
        self._found: dict[str, Any] = {}
        self.is_final = False
        """Whether the usage is known that comes at the end."""

    def feed(self, block: bytes) -> None:
        self._rest += block
        if self._streams:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and b"usage" in line:
                    self._look_into(line.removeprefix(b"data:"))

    def counted(self) -> dict[str, Any]:
        if not self._streams:
            self._look_into(self._rest)
        found = dict(self._found)
        if "cache_read_input_tokens" in found:  # Anthropic's: what is cached is not part of the input
            cached = found["cache_read_input_tokens"] or 0
            found["input_tokens"] = (
                (found.get("input_tokens") or 0) + cached + (found.get("cache_creation_input_tokens") or 0)
            )
            found["input_tokens_details"] = {"cached_tokens": cached}
        return found

    def _look_into(self, content: bytes) -> None:
        try:
            document = json.loads(content)
        except ValueError:
            return
        if not isinstance(document, dict):
            return
        for name, place in (
            ("", document),
            ("response", document.get("response")),
            ("message", document.get("message")),
        ):
            if isinstance(place, dict) and isinstance(place.get("usage"), dict):
                self._found |= place["usage"]
                self.is_final = self.is_final or name != "message"  # with which a stream of Anthropic's begins
