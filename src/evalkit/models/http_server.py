"""HTTP as a server speaks it, one request after the other, on a stream that is there already."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import h11

from evalkit.domain.failures import unwrap
from evalkit.models.unix_server import SocketStream

_PASSED_ON = ("content-type", "retry-after", "retry-after-ms", "x-request-id")
_LARGEST_BODY = 64 << 20


class ServerConnection:
    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)
        self.body = b""

    async def next_request(self) -> h11.Request | None:
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        pieces, size = [], 0
        while isinstance(data := await self._next_event(), h11.Data):
            pieces.append(bytes(data.data))
            size += len(data.data)
            if size > _LARGEST_BODY:
                await self.refuse(413, "request_too_large", f"a request is at most {_LARGEST_BODY >> 20} MB long")
                return None
        self.body = b"".join(pieces)
        return event

    @asynccontextmanager
    async def kept_by_the_other_side(self) -> AsyncIterator[None]:
        """What is done in here is cancelled when the other side hangs up: nobody waits for it any more."""

        async def watch(scope: anyio.CancelScope) -> None:
            early = 0
            with suppress(OSError, h11.ProtocolError):
                while early <= _LARGEST_BODY and (content := await self._stream.receive()):
                    early += len(content)
                    self._http.receive_data(content)  # its next request, before this one is answered
            scope.cancel()

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
        kept = [(name, headers[name]) for name in _PASSED_ON if name in headers]
        await self._send(h11.Response(status_code=status, headers=kept))

    async def send(self, content: bytes) -> None:
        if content:
            await self._send(h11.Data(data=content))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def refuse(self, status: int, kind: str, message: str) -> None:
        error = {"error": {"message": message, "type": kind, "param": None, "code": kind}}
        await self.begin(status, {"content-type": "application/json"})
        await self.send(json.dumps(error).encode())
        await self.end()

    def goes_on(self) -> bool:
        """Whether another request may come."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    async def _send(self, event: Any) -> None:
        content = self._http.send(event)
        if content:
            await self._stream.send(content)
