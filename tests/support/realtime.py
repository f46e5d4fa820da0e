"""A Realtime API behind WebSockets: the client says which events each of its messages is answered by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import aiohttp
from aiohttp import web

from extauthz.demo.upstream import Serving

STOP_SECONDS = 0.1
CLOSING_CODE = 1000

# What a client sends to make the server end the session, in order or by breaking off.
CLOSE = "close"
BREAK = "break"


class RealtimeUpstream(Serving):
    """The API on a free loopback port while the `async with` block runs. `upgrades` are the headers of the requests."""

    def __init__(self) -> None:
        self.upgrades: list[dict[str, str]] = []
        app = web.Application()
        app.router.add_get("/v1/realtime", self._session)
        super().__init__(app, stop_seconds=STOP_SECONDS)

    async def _session(self, request: web.Request) -> web.WebSocketResponse:
        self.upgrades.append({name.lower(): value for name, value in request.headers.items()})
        session = web.WebSocketResponse()
        await session.prepare(request)
        async for message in session:
            match message.data:
                case "close":
                    await session.close(code=CLOSING_CODE)
                case "break":
                    assert request.transport is not None
                    request.transport.abort()
                    return session
                case str(data):
                    for event in json.loads(data):
                        await session.send_json(event)
                case _:
                    pass
        return session


async def converse(session: aiohttp.ClientWebSocketResponse, events: Sequence[dict[str, object]]) -> None:
    """Have the server send these events, and take them all."""
    await session.send_str(json.dumps(events))
    async with asyncio.timeout(10):
        received = [await session.receive_json() for _ in events]
    assert list(events) == received
