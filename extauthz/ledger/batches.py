"""Calls that wait at the same time share one round trip.

Whoever calls in one turn of the event loop, or while all connections are busy, goes out together: the busier the store,
the larger its bites, and no timer delays the first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from extauthz.errors import StoreUnavailableError
from extauthz.ledger.link import CONNECTIONS, Link
from extauthz.ledger.script import Script

# Calls in one script: some 20 µs each on one core of the store, which serves others in between.
BATCH_MAX = 64
WAITING_MAX = 20_000

Arguments = tuple[str, ...]
Waiting = tuple[Script, Arguments, asyncio.Future[Any]]


class Batches:
    """Sends items of scripts, many in one call. `learn` hears the store's time, in Unix milliseconds, at each reply."""

    def __init__(self, link: Link, keys: Sequence[str], retention_ms: int, learn: Callable[[int], None]) -> None:
        self._link = link
        self._keys = keys
        self._retention = str(retention_ms)
        self._learn = learn
        self._waiting: dict[str, deque[Waiting]] = {}
        self._count = 0
        self._starting = False
        self._closed = False
        self._senders: set[asyncio.Task[None]] = set()

    async def call(self, script: Script, arguments: Arguments) -> Any:  # noqa: ANN401 - RESP
        """Carry out one item of a script, and give its answer. Raises StoreUnavailableError."""
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        if not self._link.up:
            raise StoreUnavailableError("the store is away")
        if self._count >= WAITING_MAX:
            raise StoreUnavailableError(f"{WAITING_MAX} calls wait for the store already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.setdefault(script.name, deque()).append((script, arguments, answer))
        self._count += 1
        if not self._starting and len(self._senders) < CONNECTIONS:
            # The task begins in the loop's next turn, when all who call in this one are waiting.
            self._starting = True
            sender = loop.create_task(self._send())
            self._senders.add(sender)
        return await answer

    async def close(self) -> None:
        """Fail whoever still waits."""
        self._closed = True
        senders = tuple(self._senders)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        while batch := self._next():
            _fail(batch, StoreUnavailableError("the store is closed"))

    async def _send(self) -> None:
        """Send batches until nobody waits."""
        self._starting = False
        try:
            while batch := self._next():
                await self._carry_out(batch)
        finally:
            # In the same step in which nobody waited: who calls after it must not take this one for a sender.
            self._senders.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _carry_out(self, batch: Sequence[Waiting]) -> None:
        script = batch[0][0]
        arguments = [self._retention, str(len(batch))]
        for _, item, _ in batch:
            arguments.extend(item)
        try:
            now_ms, answers = await self._link.run(script, self._keys, arguments)
        except asyncio.CancelledError:
            _fail(batch, StoreUnavailableError("the store is closed"))
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            _fail(batch, error)
        else:
            self._learn(now_ms)
            for (_, _, waiting), answer in zip(batch, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)

    def _next(self) -> list[Waiting]:
        """Take what waits for the script that waits longest; nobody carries out what its caller gave up on."""
        while self._waiting:
            name, waiting = next(iter(self._waiting.items()))
            batch: list[Waiting] = []
            while waiting and len(batch) < BATCH_MAX:
                item = waiting.popleft()
                self._count -= 1
                if not item[2].done():
                    batch.append(item)
            del self._waiting[name]
            if waiting:
                self._waiting[name] = waiting
            if batch:
                return batch
        return []


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    for _, _, waiting in batch:
        if not waiting.done():
            waiting.set_exception(error)
