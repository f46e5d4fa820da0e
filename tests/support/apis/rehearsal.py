"""Many calls at once, which end in every way there is, and what came of each.

    async with rehearsing(version) as stage:
        results = await stage.play(cases)

Each call has an end user of its own, so that what it held and cost stands on a counter of its own. All of them wait at
the upstream until the last is there or was refused; then the books say what each holds, and all go on.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial

import aiohttp

from extauthz.domain.endpoints import Api
from tests.support.abort import Call, calling
from tests.support.apis.paths import OWN_PREFIX
from tests.support.apis.prices import OUTPUT_TOKENS, model_list
from tests.support.apis.sample import Due, Sample
from tests.support.apis.upstream import ApisUpstream
from tests.support.apis.wire import Wire, cut
from tests.support.envoy import EnvoyVersion
from tests.support.processes import eventually
from tests.support.redis import RedisServer
from tests.support.stack import Stack, patient, stack
from tests.support.storm import first_of
from tests.support.tempest_books import Books, Entry, read_books
from tests.support.upstream import PLAY_HEADER, Cue, Head, Play, Received, Step

KEY = "sk-ana"
SETTLE_SECONDS = 20.0
ARRIVE_SECONDS = 25.0
IN_FLIGHT = 50
# Where each API's clients put their key.
# What does not stand in the name of an end user here.
UNNAMEABLE = re.compile(r"[^\w.-]")

CREDENTIALS: Mapping[Api, Mapping[str, str]] = {
    Api.OPENAI: {"authorization": f"Bearer {KEY}"},
    Api.ANTHROPIC: {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    Api.GEMINI: {"x-goog-api-key": KEY},
}


def configuration(store: str, rules: str = "") -> str:
    """Write the configuration of a server that keeps its books there; `rules` is a line of it."""
    return f"""
{model_list()}
general_settings: {{user_header_name: x-end-user, budget_exceeded_models_policy: free_only}}
extauthz:
  store: {store}
  store_timeout_seconds: 8
  api_prefixes: [{OWN_PREFIX}]
  estimate: {{mode: fixed, output_tokens: {OUTPUT_TOKENS}}}
  global: {{max_budget: 100000}}
  keys: [{{key: {KEY}}}]
  end_users: {{default: {{max_budget: 1000}}}}
  {rules}
"""


class Ending(Enum):
    """How a call ends."""

    WHOLE = "whole"
    REFUSED = "400"
    LIMITED = "429"
    FAILED = "500"
    BROKEN = "broken"  # the upstream breaks off in the middle of its answer
    LEFT_AT_ONCE = "left at once"  # the client leaves when it has asked: nobody knows who has heard of it
    LEFT_EARLY = "left early"  # the client leaves before the headers
    LEFT = "left"  # the client leaves in the middle of the answer, when it has all that was sent

    @property
    def error(self) -> int | None:
        """The status of an answer that is an error."""
        return int(self.value) if self.value.isdigit() else None


@dataclass(frozen=True, slots=True)
class Case:
    """A call, and how it shall end; `number` tells it from others that are alike."""

    sample: Sample
    ending: Ending
    number: int = 0

    def __str__(self) -> str:
        return f"{self.sample}, {self.ending.value}"

    @property
    def name(self) -> str:
        """What its end user is called, and its play."""
        return UNNAMEABLE.sub("_", f"{self.sample}.{self.ending.value}.{self.number}")

    @property
    def counter(self) -> str:
        """The counter of its end user."""
        return f"end_user:{self.name}|lifetime"

    @property
    def promises(self) -> bool:
        """Whether its answer only promises another, so that it still holds something when it is over."""
        return self.sample.due is Due.LATER and self.ending is Ending.WHOLE

    def wire(self, request: Received) -> Wire:
        """Give the answer."""
        return self.sample.answer(request) if self.ending.error is None else self.sample.error(self.ending.error)

    def play(self, request: Received) -> Play:
        """Wait with the others, and answer; the chunks of the answer are cut anywhere."""
        if self.ending is Ending.LEFT_EARLY:
            return Play((Cue.HANG,))
        wire = self.wire(request)
        breaks = self.ending in (Ending.BROKEN, Ending.LEFT)
        body = b"".join(piece.data for piece in (wire.half if breaks else wire.pieces))
        head = Head(wire.status, wire.content_type, None if wire.streamed else len(wire.body))
        steps: list[Step] = [Cue.GATE, head, *cut(body, random.Random(self.name))]
        if breaks:
            steps.append(Cue.RESET if self.ending is Ending.BROKEN else Cue.HANG)
        return Play(tuple(steps))


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a call: what it held while the upstream had it, what the client saw, what was booked.

    `request` is what the upstream got, None when it got nothing. Amounts are nano-USD; `held_after` is what is held
    when every other call is over.
    """

    case: Case
    request: Received | None
    held: int
    status: int
    received: bytes
    spent: int
    held_after: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Talk:
    """What a conversation held while it lasted and cost in the end, in nano-USD."""

    held: int
    spent: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The house, with its books on Redis."""

    house: Stack
    upstream: ApisUpstream
    store: RedisServer

    async def play(self, cases: Iterable[Case]) -> dict[Case, Result]:
        """Play cases all at once, and look at the books when all of them are under way."""
        cases, upstream, leave = tuple(cases), self.upstream, asyncio.Event()
        upstream.gate.clear()
        tasks: dict[Case, asyncio.Task[Call]] = {}
        # Some at a time: it is not to be shown here how many Checks a busy machine can answer at once.
        for first in range(0, len(cases), IN_FLIGHT):
            batch = {case: asyncio.create_task(self._call(case, leave)) for case in cases[first : first + IN_FLIGHT]}
            await eventually(partial(self._under_way, batch), ARRIVE_SECONDS, "all have arrived")
            tasks |= batch
        held = (await self.books()).held
        leave.set()
        upstream.gate.set()
        calls = dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))
        return await self._results(calls, lambda case: held.get(case.counter, 0))

    async def storm(self, cases: Iterable[Case], held: Mapping[str, int]) -> Mapping[Case, Result]:
        """Play cases one after the other, IN_FLIGHT at a time. `held` is what each sample holds, by its name."""
        calls: dict[Case, Call] = {}
        queue, leave = iter(cases), asyncio.Event()
        leave.set()
        self.upstream.gate.set()

        async def work() -> None:
            for case in queue:
                calls[case] = await self._call(case, leave)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return await self._results(calls, lambda case: held[case.sample.name])

    async def talk(self, name: str, *, turns: int) -> Talk:
        """Hold a conversation of so many turns, and hang up."""
        counter, asked = f"end_user:{name}|lifetime", self.upstream.turns[name]
        headers = {**CREDENTIALS[Api.OPENAI], "x-end-user": name, PLAY_HEADER: name}
        url = f"{self.house.url}/v1/realtime?model=omni"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            for _ in range(turns):
                await socket.send_json({"type": "response.create"})
                async for message in socket:
                    if message.json()["type"] == "response.done":
                        break
            held = (await self.books()).held.get(counter, 0)
        assert turns == len(asked)

        async def read() -> Books | None:
            books = await self.books()
            return None if books.held.get(counter) else books

        books = await eventually(read, SETTLE_SECONDS, "the conversation holds nothing")
        assert books is not None
        return Talk(held, books.spent.get(counter, 0))

    async def books(self) -> Books:
        """Read the books."""
        return await read_books(self.store)

    async def spent(self, counter: str) -> int:
        """Tell what is spent on a counter, in nano-USD."""
        return (await self.books()).spent.get(counter, 0)

    async def held(self, counter: str) -> int:
        """Tell what is held on a counter, in nano-USD."""
        return (await self.books()).held.get(counter, 0)

    async def at_rest(self, cases: Iterable[Case]) -> Books:
        """Wait until none of these holds anything, and give the books then."""
        counters = {case.counter for case in cases}

        async def read() -> Books | None:
            books = await self.books()
            return None if any(books.held.get(counter) for counter in counters) else books

        with suppress(AssertionError):  # who looks at the books says more of what is held
            if (books := await eventually(read, SETTLE_SECONDS)) is not None:
                return books
        return await self.books()

    async def _results(self, calls: Mapping[Case, Call], held: Callable[[Case], int]) -> dict[Case, Result]:
        books = await self.at_rest(case for case in calls if not case.promises)
        entries = books.by_counter()
        return {
            case: Result(
                case,
                self.upstream.called.get(case.name),
                held(case),
                call.status,
                call.received,
                books.spent.get(case.counter, 0),
                books.held.get(case.counter, 0),
                tuple(entries.get(case.counter, ())),
            )
            for case, call in calls.items()
        }

    async def _call(self, case: Case, leave: asyncio.Event) -> Call:
        """Make a call, and hang up when its ending says so."""
        self.upstream.plays[case.name] = case.play
        asking, sample = case.sample.asking, case.sample
        sending = calling(
            self.house.envoy.options.listen.port,
            asking.body,
            {**CREDENTIALS[sample.api], "x-end-user": case.name, PLAY_HEADER: case.name},
            path=asking.path,
            method=asking.method,
            content_type=asking.content_type,
        )
        async with sending as call:
            match case.ending:
                case Ending.LEFT_AT_ONCE:
                    pass
                case Ending.LEFT_EARLY:
                    await first_of(call.end(), self._left(case, leave))  # a refusal comes, and no answer
                case Ending.LEFT:
                    await call.until(lambda call: len(call.received) >= self._half(case))
                case _:
                    await call.end()
            return call

    def _under_way(self, tasks: Mapping[Case, asyncio.Task[Call]]) -> bool:
        return all(task.done() or case.name in self.upstream.called for case, task in tasks.items())

    async def _left(self, case: Case, leave: asyncio.Event) -> None:
        """Wait for when to leave: the upstream has the request, and everybody may go."""
        await self.upstream.arrivals[case.name].wait()
        await leave.wait()

    def _half(self, case: Case) -> int:
        request = self.upstream.called.get(case.name)
        return 0 if request is None else sum(len(piece.data) for piece in case.wire(request).half)


@asynccontextmanager
async def rehearsing(version: EnvoyVersion, *, rules: str = "", durable: bool = False) -> AsyncIterator[Rehearsal]:
    """Run the house around the block. `rules` are lines of configuration; a `durable` store may be killed."""
    async with (
        RedisServer(appendonly=durable) as store,
        stack(configuration(store.url, rules), version=version, options=patient, scripted=ApisUpstream) as house,
    ):
        assert isinstance(house.upstream, ApisUpstream)
        yield Rehearsal(house, house.upstream, store)
