"""A relay before a Redis that loses replies to scripts: the server has done what was asked, and the client never knows.

It reads the protocol (RESP 2 and 3) only as far as it must to tell one request and one reply from the next. Clients may
pipeline, but not subscribe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto

from tests.support.relay import READ_BYTES, Passing, Peer, Relay

SCRIPTS = frozenset({b"EVAL", b"EVALSHA"})
# What follows the first line of a value, by the line's first byte: bytes of a given length, or so many values.
BLOBS = b"$=!"
VALUES_PER_ENTRY = {b"*": 1, b"~": 1, b">": 1, b"%": 2}
ATTRIBUTES = b"|"
PUSH = b">"


class Loss(Enum):
    """How a reply is lost."""

    SWALLOW = auto()  # the connection stays open, and nothing comes through it any more
    CUT = auto()  # the connection breaks


class DroppingProxy(Relay):
    """Passes connections on to a Redis, and loses the replies to EVAL and EVALSHA that it is told to lose.

    `target` may change while it runs, for the connections that come after. `lost` counts the replies lost so far.
    """

    def __init__(self, target: int | None = None) -> None:
        super().__init__(target)
        self.lost = 0
        self._orders: deque[Loss] = deque()

    def swallow(self, replies: int = 1) -> None:
        """Keep the next replies to scripts for ever; the client waits.

        Each takes all that follows on its connection with it, for TCP loses an end of a stream and never its middle.
        """
        self._orders.extend([Loss.SWALLOW] * replies)

    def cut_at_reply(self, replies: int = 1) -> None:
        """Break the connection instead of passing the next reply to a script on, so many times."""
        self._orders.extend([Loss.CUT] * replies)

    def mend(self) -> None:
        """Let everything through again; what is lost stays lost."""
        self._orders.clear()
        super().mend()

    def _directions(self, client: Peer, target: Peer) -> tuple[Passing, Passing]:
        asked: deque[bytes] = deque()
        return _pass_requests(client[0], target[1], asked), self._pass_replies(target[0], client[1], asked)

    async def _pass_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: deque[bytes]
    ) -> None:
        """Pass whole replies on, each against the request that it answers, until one is to be lost or a side ends."""
        try:
            while True:
                reply = await _value(reader)
                if not reply.startswith(PUSH) and asked.popleft() in SCRIPTS and self._orders:
                    self.lost += 1
                    await _lose_all(reader, self._orders.popleft())
                    return
                await self._answers.wait()
                writer.write(reply)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return


async def _lose_all(reader: asyncio.StreamReader, loss: Loss) -> None:
    """Lose what still comes: until the server ends it, or by ending it now."""
    while loss is Loss.SWALLOW and await reader.read(READ_BYTES):
        pass


async def _pass_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: deque[bytes]) -> None:
    """Pass whole requests on and note the name of each, until one side ends."""
    try:
        while True:
            request = await _value(reader)
            asked.append(request.split(b"\r\n", 3)[2].upper())  # *3 $4 EVAL …
            writer.write(request)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        return


async def _value(reader: asyncio.StreamReader) -> bytes:
    """Read one value with all that is inside it."""
    line = await reader.readuntil(b"\r\n")
    kind, size = line[:1], line[1:-2]
    if kind in BLOBS:
        return line if int(size) < 0 else line + await reader.readexactly(int(size) + len(b"\r\n"))
    if kind in ATTRIBUTES:  # they come before the value that they describe
        values = int(size) * 2 + 1
    else:
        values = max(0, int(size)) * VALUES_PER_ENTRY[kind] if kind in VALUES_PER_ENTRY else 0
    return line + b"".join([await _value(reader) for _ in range(values)])
