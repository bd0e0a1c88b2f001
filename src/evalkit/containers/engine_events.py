"""Waits for what happens to a container, told by the engine rather than asked for again and again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from evalkit.containers.api import Client
from evalkit.containers.connection import Exchange, Unreachable

_KINDS = ("health_status", "die", "oom")


@asynccontextmanager
async def following(client: Client, name: str) -> AsyncIterator[Exchange]:
    """The events of a container from now on, which need not exist yet. What it is, an inspection tells."""
    filters = json.dumps({"type": ["container"], "container": [name], "event": list(_KINDS)})
    news = await client.read(f"/events?{urlencode({'filters': filters})}")
    try:
        yield news
    finally:
        await news.aclose()


async def next_event(news: Exchange) -> None:
    """Return once something has happened."""
    while data := await news.receive():
        if b"{" in data:
            return
    raise Unreachable("the engine has ended its report of events")
