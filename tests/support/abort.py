"""A client that hangs up when a test says so: raw HTTP/1.1, one request on each connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from tests.support.processes import LOOPBACK

CALL_SECONDS_MAX = 30.0
HEAD_BYTES_MAX = 64 * 1024


class Call:
    """A request that is on its way, and what came back of it so far.

    `status` is 0 until the headers came, `received` is the body without its framing, `whole` says that it came to its
    end.
    """

    def __init__(self, reader: asyncio.StreamReader, *, method: str = "POST") -> None:
        self._reader = reader
        self._bodiless = method == "HEAD"
        self._left: int | None = None  # bytes of the body, or of its current chunk, that are still to come
        self._chunked = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.received = b""
        self.whole = False

    @property
    def events(self) -> int:
        """How many events of a stream came whole."""
        return self.received.count(b"\n\n")

    async def head(self) -> None:
        """Wait for the status and the headers; when the connection breaks, there are none."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        self.status = int(head[0].split(" ")[1])
        pairs = (line.partition(":") for line in head[1:] if line)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        self._left = 0 if self._chunked else int(self.headers.get("content-length", "0"))
        self.whole = self._bodiless

    async def until(self, enough: Callable[[Call], bool]) -> None:
        """Read until there is enough, the body is over, or the connection breaks."""
        if not self.status:
            await self.head()
        try:
            while self.status and not self.whole and not enough(self):
                await self._read_on()
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def end(self) -> None:
        """Read all that comes."""
        await self.until(lambda _: False)

    async def _read_on(self) -> None:
        """Read a piece of the body."""
        if not self._left and self._chunked:
            self._left = int(await self._reader.readuntil(b"\r\n"), 16)
            if self._left == 0:
                await self._reader.readuntil(b"\r\n")
        if not self._left:
            self.whole = True
            return
        piece = await self._reader.read(self._left)
        if not piece:
            raise asyncio.IncompleteReadError(b"", self._left)
        self.received += piece
        self._left -= len(piece)
        if self._left == 0 and self._chunked:
            await self._reader.readexactly(2)


@asynccontextmanager
async def calling(
    port: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    content_type: str = "application/json",
) -> AsyncIterator[Call]:
    """Send a request, and hang up when the block ends. Raises TimeoutError when that takes CALL_SECONDS_MAX."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"content-type: {content_type}"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    async with asyncio.timeout(CALL_SECONDS_MAX):
        reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=HEAD_BYTES_MAX)
        try:
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            await writer.drain()
            yield Call(reader, method=method)
        finally:
            writer.transport.abort()
