"""Stands for gost in Harbor's sidecar for networks: a proxy that connections are redirected to, with an allow-list.

It has the names and numbers of Harbor's scripts in the sidecar: the port, the mark that keeps its own connections from
being redirected, and the file of the list.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from pathlib import Path

PORT = 12345
MARK = 114514
ALLOWED = Path("/opt/egress-sidecar/allowlist.txt")
SO_MARK, SO_ORIGINAL_DST = 36, 80


def is_allowed(host: str, address: str) -> bool:
    return any(matches(entry, host, address) for entry in ALLOWED.read_text().split())


def matches(entry: str, host: str, address: str) -> bool:
    if entry.startswith("*."):
        return host.endswith(entry[1:])
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(entry)
    except ValueError:
        return host == entry


def host_in(request: bytes) -> str:
    for line in request.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            return value.strip().decode().rpartition(":")[0] or value.strip().decode()
    return ""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, packed = struct.unpack("!2xH4s8x", raw)
        address = socket.inet_ntoa(packed)
        request = await asyncio.wait_for(reader.read(65536), 5)
        if is_allowed(host_in(request), address):
            await pass_on(request, address, port, reader, writer)
    finally:
        writer.close()


async def pass_on(
    request: bytes, address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    onward = socket.socket()
    onward.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
    onward.setblocking(False)
    await asyncio.get_running_loop().sock_connect(onward, (address, port))
    far_reader, far_writer = await asyncio.open_connection(sock=onward)
    far_writer.write(request)
    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "0.0.0.0", PORT)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
