"""A webhook's other end: a real HTTP server that keeps what it gets and answers as the test says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

from tests.support.processes import LOOPBACK, free_port

SECRET_PATH = "/services/T000/B000/a-secret-of-the-chat"
OTHER_PATH = "/elsewhere"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, **headers: str) -> Answer:
    """Answer with a status."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer


async def redirect(_: web.Request) -> web.StreamResponse:
    """Send the caller elsewhere, with the same method."""
    return web.Response(status=307, headers={"location": OTHER_PATH})


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def keep_waiting(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


async def talk_forever(request: web.Request) -> web.StreamResponse:
    """Answer 200 with a body that does not end while anybody listens."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


class Receiver:
    """Listens on loopback inside the `async with` block. `answers` are given in order, then 200 to everything."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.answers = deque(answers)
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self._tls = tls
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    @property
    def url(self) -> str:
        """The URL, whose path is a secret."""
        return f"{'http' if self._tls is None else 'https'}://{LOOPBACK}:{self.port}{SECRET_PATH}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port, ssl_context=self._tls).start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.bodies.append(json.loads(await request.text()))
        answer = self.answers.popleft() if self.answers else status(200)
        return await answer(request)
