"""HTTP/1.1 as bytes, for requests that no honest client would send, and answers that no honest upstream would give."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from tests.support.processes import LOOPBACK

REPLY_SECONDS_MAX = 20.0
HEAD_BYTES_MAX = 256 * 1024
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Of repeated headers the last counts; names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    trailers: Mapping[str, str]


def chunked(body: bytes) -> bytes:
    """Frame a body as chunks."""
    pieces = (body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def send(port: int, data: bytes, *, replies: int = 1) -> list[Reply]:
    """Send bytes on a connection of their own, and read so many answers.

    As a careful client does, it reads while it still writes: a refusal need not wait for the end of a body. When the
    other side closes earlier, there are fewer answers.
    """
    async with asyncio.timeout(REPLY_SECONDS_MAX):
        reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=HEAD_BYTES_MAX)
        sending = asyncio.create_task(_write(writer, data))
        received: list[Reply] = []
        try:
            while len(received) < replies:
                received.append(await _read(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it said all that it wanted to say
        finally:
            sending.cancel()
            writer.close()
        return received


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):
        writer.write(data)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Reply:
    start, headers = await read_head(reader)
    body, trailers = await read_body(reader, headers)
    return Reply(int(start.split(" ")[1]), headers, body, trailers)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Read the start of a message: its first line and its headers."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    return head[0], _fields(head[1:])


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
    """Read the body that the headers announce, and its trailers."""
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0"))), {}
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readuntil(b"\r\n")
    lines = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        lines.append(line.decode("latin-1").strip())
    return body, _fields(lines)


def _fields(lines: Iterable[str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


class Connections:
    """A raw HTTP/1.1 server on a free loopback port while the `async with` block runs.

    `answer` serves one request of a connection, and tells whether the connection can take another.
    """

    def __init__(self, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]) -> None:
        self.port = 0
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, LOOPBACK, 0, limit=HEAD_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # Envoy closes connections when it likes
        finally:
            self._tasks.discard(task)
            writer.close()
