"""The server side of HTTP/1.1 on an open stream, one request after the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import h11

from evalkit.domain.failures import unwrap
from evalkit.domain.protocols import Stream
from evalkit.models.held import LARGEST_REQUEST, HeldBytes, TooMuchHeld

_PASSED_ON = ("content-type", "retry-after", "retry-after-ms", "x-request-id")
_MOST_EARLY = 1 << 16
# Time for a client to finish sending a refused request: many read no response before their body is sent.
_TURN_AWAY_SECONDS = 60.0
_READ_ON_SECONDS = 10.0
_TOO_LARGE = f"a request is at most {LARGEST_REQUEST >> 20} MB long"
_ANSWERABLE = (h11.IDLE, h11.SEND_RESPONSE)


class ServerConnection:
    def __init__(self, stream: Stream, held: HeldBytes) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)
        self._held = held
        self._answers = False
        self._is_gone = False
        self.body: bytes | bytearray = b""

    async def next_request(self) -> h11.Request | None:
        """The next request, with its body. None if there is none, or it was refused."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self._answers = False
        body = self.body = bytearray()
        if _length(event) > LARGEST_REQUEST:
            await self._turn_away(413, "request_too_large", _TOO_LARGE)
            return None
        while isinstance(data := await self._next_event(), h11.Data):
            if len(body) + len(data.data) > LARGEST_REQUEST:
                await self._turn_away(413, "request_too_large", _TOO_LARGE)
                return None
            try:
                self._held.take(len(data.data))
            except TooMuchHeld:
                text = "requests under way take all the memory there is for them; send less at once"
                await self._turn_away(429, "rate_limit_exceeded", text, retry_after="1")
                return None
            body += data.data
        return event

    async def _turn_away(self, status: int, kind: str, message: str, **headers: str) -> None:
        """Refuse a request while it is being received, and read it to its end so that the client reads the answer."""
        self.drop_body()
        await self.refuse(status, kind, message, connection="close", **headers)
        with anyio.move_on_after(_TURN_AWAY_SECONDS):
            while isinstance(await self._next_event(), h11.Data):
                pass

    def drop_body(self) -> None:
        """Release the body of the request, which has been passed on or never will be."""
        size, self.body = len(self.body), b""
        self._held.give(size)

    def replace_body(self, body: bytes) -> None:
        """Put another body in place of the one received."""
        self.drop_body()
        self._held.take(len(body))
        self.body = body

    @asynccontextmanager
    async def kept_by_the_other_side(self) -> AsyncIterator[None]:
        """Cancel the body of this context when the client hangs up.

        An answer that has begun is read for a little longer, since only its end says what it cost.
        """

        async def watch(scope: anyio.CancelScope) -> None:
            early = 0
            with suppress(OSError, h11.ProtocolError):
                while early <= _MOST_EARLY and (content := await self._stream.receive()):
                    early += len(content)
                    self._http.receive_data(content)  # its next request, before this one is answered
            self._is_gone = True
            scope.deadline = anyio.current_time() + (_READ_ON_SECONDS if self._answers else 0.0)

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch, tasks.cancel_scope)
                yield
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise unwrap(group) from group

    async def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._stream.receive())
        return event

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._answers = True
        kept = [(name, headers[name]) for name in _PASSED_ON if name in headers]
        await self._send(h11.Response(status_code=status, headers=kept))

    async def send(self, content: bytes) -> None:
        if content:
            await self._send(h11.Data(data=content))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def refuse(self, status: int, kind: str, message: str, **headers: str) -> None:
        error = {"error": {"message": message, "type": kind, "param": None, "code": kind}}
        given = {"content-type": "application/json"} | {name.replace("_", "-"): headers[name] for name in headers}
        await self._send(h11.Response(status_code=status, headers=list(given.items())))
        await self.send(json.dumps(error).encode())
        await self.end()

    async def refuse_nonsense(self, error: h11.RemoteProtocolError) -> None:
        """Answer a malformed request, where an answer can still be sent."""
        if self._http.our_state in _ANSWERABLE:
            with suppress(h11.LocalProtocolError):
                await self.refuse(error.error_status_hint, "invalid_request_error", str(error), connection="close")

    def goes_on(self) -> bool:
        """Whether the connection stays open for another request."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._is_gone:
            self._http.start_next_cycle()
            return True
        return False

    async def _send(self, event: Any) -> None:
        content = self._http.send(event)
        if not content or self._is_gone:
            return
        try:
            await self._stream.send(content)
        except OSError:
            if not self._answers:
                raise
            self._is_gone = True  # the rest of the answer is read for its usage


def _length(request: h11.Request) -> int:
    """The Content-Length of a request, which h11 has checked to be a number."""
    return next((int(value) for name, value in request.headers if name == b"content-length"), 0)
