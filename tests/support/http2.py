"""HTTP/2 by hand, as much as it takes to reset a stream from either side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES = 9

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 0x1, 0x4
CANCEL = 8


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Write one frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def request(path: str) -> bytes:
    """Open a connection and send one GET on stream 1. Its headers are literals, each of less than 127 bytes."""
    fields = {":method": "GET", ":scheme": "http", ":path": path, ":authority": "gateway"}
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())
    return PREFACE + frame(SETTINGS) + frame(HEADERS, block, flags=END_STREAM | END_HEADERS, stream=1)


def reset(stream: int = 1) -> bytes:
    """End a stream without an answer."""
    return frame(RST_STREAM, CANCEL.to_bytes(4), stream=stream)


def upstream_that(
    answers: Callable[[int], bytes],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Give a connection handler that answers the headers of each request with these bytes, by the stream's number."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(frame(SETTINGS))
            await reader.readexactly(len(PREFACE))
            while True:
                head = await reader.readexactly(FRAME_HEAD_BYTES)
                await reader.readexactly(int.from_bytes(head[:3]))
                if head[3] == HEADERS:
                    writer.write(answers(int.from_bytes(head[5:9])))
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # Envoy closes connections when it likes
        finally:
            writer.close()

    return serve


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()
