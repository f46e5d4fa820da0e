"""Clients that ask at a steady rate, whether they are answered or not, and count what they got."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

SECONDS_MAX = 30.0
TEXT_MAX = 100


@dataclass(slots=True)
class Load:
    """A new request every 1/`rate` s.

    `answers` counts what came: "200", another status with the beginning of its body, or the name of what went wrong.
    """

    url: str
    key: str
    model: str
    rate: int
    answers: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while the block runs; wait for the last answers at its end."""
        connections = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(SECONDS_MAX)
        async with (
            aiohttp.ClientSession(connector=connections, timeout=timeout) as session,
            asyncio.TaskGroup() as requests,
        ):
            sender = asyncio.create_task(self._send(session, requests))
            try:
                yield
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, session: aiohttp.ClientSession, requests: asyncio.TaskGroup) -> None:
        # By the clock and not by pauses, so that a late turn is made up for.
        clock = asyncio.get_running_loop()
        due = clock.time()
        while True:
            requests.create_task(self._ask(session))
            due += 1 / self.rate
            await asyncio.sleep(due - clock.time())

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        question = {"model": self.model, "messages": [{"role": "user", "content": "what does this cost"}]}
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            async with session.post(f"{self.url}/chat/completions", json=question, headers=headers) as answer:
                text = await answer.text()
                self.answers["200" if answer.ok else f"{answer.status} {text[:TEXT_MAX]}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
