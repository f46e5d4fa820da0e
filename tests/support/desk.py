"""Background responses through the whole house: who asks for them, how far each is, and reads that show it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from extauthz.domain.prices import Usage
from tests.support.processes import LOOPBACK, eventually
from tests.support.redis import RedisServer
from tests.support.stack import GateProcess, Stack, patient, stack
from tests.support.tempest_books import KEYS, Books, read_books
from tests.support.upstream import EVENT_STREAM, PLAY_HEADER, Head, Play, Received

ASK, LOOK = "ask", "look"
KEY, OTHER_KEY = "sk-desk", "sk-other"
MODEL = "gpt-4o"
INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 4_000
USAGE = Usage(input_tokens=800, output_tokens=900)
BOOKED_SECONDS = 30.0

QUEUED = {"object": "response", "background": True, "status": "queued", "output": [], "usage": None}


def configuration(store: str, *, background_lease_seconds: int) -> str:
    """Write the configuration of a server that keeps its books there."""
    return f"""
model_list:
  - model_name: {MODEL}
    litellm_params: {{model: openai/{MODEL}, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
general_settings: {{user_header_name: x-end-user}}
extauthz:
  store: {store}
  store_timeout_seconds: 8
  background_lease_seconds: {background_lease_seconds}
  estimate: {{mode: fixed, output_tokens: 64}}
  keys: [{{key: {KEY}}}, {{key: {OTHER_KEY}}}]
  end_users: {{default: {{max_budget: 1000}}}}
"""


def cost(usage: Usage) -> int:
    """Tell what an answer costs."""
    return usage.input_tokens * INPUT_NANOUSD + usage.output_tokens * OUTPUT_NANOUSD


def over(usage: Usage | None = USAGE, status: str = "completed") -> Mapping[str, object]:
    """Give what a response says that nothing more is made of."""
    used = None if usage is None else {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return {**QUEUED, "status": status, "usage": used}


@dataclass(slots=True)
class Desk:
    """The house around an upstream that makes responses in the background; `states` says how far each is, by its id.

    Each is asked for by an end user of the same name, so that what it holds and costs stands on a counter of its own.
    """

    house: Stack
    store: RedisServer
    states: dict[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.house.upstream.plays |= {ASK: self._promise, LOOK: self._show}

    async def ask(self, names: Iterable[str], **fields: object) -> None:
        """Ask for responses, all at once, and wait until the store knows what was promised."""
        names = tuple(names)
        body = json.dumps({"model": MODEL, "background": True, "input": "Tell me all.", **fields}).encode()
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(self._post(session, name, body) for name in names))
        await eventually(lambda: self._promised(len(names)), BOOKED_SECONDS, "all that was promised is known")

    async def look(self, *names: str, key: str = KEY, path: str = "/v1/responses/{}") -> list[int]:
        """Read responses, all at once, and give the status of each answer; 0 where there was none."""
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(self._get(session, path.format(name), key) for name in names))

    async def look_until(self, booked: Mapping[str, int]) -> Books:
        """Read responses as clients do, again and again, until each is booked at so much, and give the books then."""

        async def read() -> Books | None:
            await self.look(*booked)
            return await self.books_with(booked)

        books = await eventually(read, BOOKED_SECONDS, f"booked is {booked}")
        assert books is not None
        return books

    async def until(self, booked: Mapping[str, int]) -> Books:
        """Wait until each is booked at so much and holds nothing, and give the books then."""
        books = await eventually(lambda: self.books_with(booked), BOOKED_SECONDS, f"booked is {booked}")
        assert books is not None
        return books

    async def books_with(self, booked: Mapping[str, int]) -> Books | None:
        """Give the books if each is booked at so much and holds nothing."""
        books = await read_books(self.store)
        right = all(
            (amount, 0) == (books.spent.get(counter(name), 0), books.held.get(counter(name), 0))
            for name, amount in booked.items()
        )
        return books if right else None

    async def held(self, name: str) -> int:
        """Tell what a response holds."""
        return (await read_books(self.store)).held.get(counter(name), 0)

    async def promises(self) -> int:
        """Count what the store remembers of promises."""
        async with self.store.client() as redis:
            return sum([await redis.hlen(key) for key in KEYS.all if ":promised:" in key])

    @asynccontextmanager
    async def another_replica(self) -> AsyncIterator[None]:
        """Kill the server, as the kernel does when memory is short, and run another on its ports inside the block."""
        gate = self.house.gate
        gate.process.kill()
        await gate.process.wait()
        ports = iter((gate.grpc_port, gate.admin_port, gate.http_port))
        async with GateProcess(gate.config.read_text(encoding="utf-8"), new_port=lambda: next(ports)) as replica:
            self.house = Stack(self.house.upstream, replica, self.house.envoy)
            await eventually(self._answers, BOOKED_SECONDS, "Envoy has found the other replica")
            yield

    async def _answers(self) -> bool:
        return await self.look("nobody") == [404]

    async def _promised(self, count: int) -> bool:
        return await self.promises() >= count

    async def _post(self, session: aiohttp.ClientSession, name: str, body: bytes) -> None:
        headers = {**self._headers(ASK, KEY), "x-end-user": name, "content-type": "application/json"}
        async with session.post(f"{self.house.url}/v1/responses", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    async def _get(self, session: aiohttp.ClientSession, path: str, key: str) -> int:
        try:
            async with session.get(f"http://{LOOPBACK}:{self.port}{path}", headers=self._headers(LOOK, key)) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientError:
            return 0

    @property
    def port(self) -> int:
        """Where Envoy listens."""
        return self.house.envoy.options.listen.port

    def _headers(self, play: str, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}", PLAY_HEADER: play}

    def _promise(self, request: Received) -> Play:
        name = request.header("x-end-user") or ""
        self.states[name] = QUEUED
        response = {"id": name, "model": MODEL, **QUEUED}
        if not request.asked.get("stream"):
            return Play((Head(), json.dumps(response).encode()))
        return Play((Head(content_type=EVENT_STREAM), event("response.created", response)))

    def _show(self, request: Received) -> Play:
        path, _, query = request.path.partition("?")
        name = path.removesuffix("/content").rpartition("/")[2]
        state = self.states.get(name)
        if state is None:
            return Play((Head(404), b'{"error":{"message":"no such response"}}'))
        response = {"id": name, "model": MODEL, **state}
        if "stream=true" not in query:
            return Play((Head(), json.dumps(response).encode()))
        return Play((Head(content_type=EVENT_STREAM), event(f"response.{state['status']}", response)))


def event(kind: str, response: Mapping[str, object]) -> bytes:
    """Write an event of a stream."""
    return f"data: {json.dumps({'type': kind, 'response': response})}\n\n".encode()


def counter(name: str) -> str:
    """Give the counter of an end user."""
    return f"end_user:{name}|lifetime"


@asynccontextmanager
async def open_desk(*, background_lease_seconds: int = 86_400, durable: bool = False) -> AsyncIterator[Desk]:
    """Run the house around the block. A `durable` store may be killed and started again."""
    async with RedisServer(appendonly=durable) as store:
        config = configuration(store.url, background_lease_seconds=background_lease_seconds)
        async with stack(config, options=patient) as house:
            yield Desk(house, store)
