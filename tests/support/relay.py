"""A TCP relay between two processes, which a test can cut, block in one direction, and mend."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

from tests.support.processes import LOOPBACK

READ_BYTES = 64 * 1024

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Passing = Coroutine[None, None, None]


class Relay:
    """Passes connections on to `target`, a loopback port, while the `async with` block runs and it is not cut."""

    def __init__(self, target: int | None = None) -> None:
        self.target = target
        self._cut = False
        self._answers = asyncio.Event()
        self._answers.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, LOOPBACK, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None, "start the relay first: async with Relay(...)"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Break all connections, and all that come until it is mended."""
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def hold_back(self) -> None:
        """Keep what the target answers until it is mended; what the clients send passes."""
        self._answers.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._cut = False
        self._answers.set()

    def _directions(self, client: Peer, target: Peer) -> tuple[Passing, Passing]:
        """Give what passes the client's bytes on, and the target's; the connection ends with the first that ends."""
        return _pass(client[0], target[1]), _pass(target[0], client[1], self._answers)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._cut or self.target is None:
                return
            to_reader, to_writer = await asyncio.open_connection(LOOPBACK, self.target)
            self._writers.add(to_writer)
            try:
                directions = self._directions((reader, writer), (to_reader, to_writer))
                passing = [asyncio.ensure_future(direction) for direction in directions]
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
                for task in passing:
                    task.cancel()
            finally:
                self._writers.discard(to_writer)
                to_writer.transport.abort()
        except OSError:
            return  # nobody listens at the target: the client finds its connection closed
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: asyncio.Event | None = None
) -> None:
    """Pass bytes on, when they are allowed to, until one side ends."""
    try:
        while data := await reader.read(READ_BYTES):
            if allowed is not None:
                await allowed.wait()
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
