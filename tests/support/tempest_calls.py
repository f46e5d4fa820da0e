"""Steady traffic through a house, each call with an end user of its own: what it cost stands on a counter of its own.

The mix is made from a seed, which is printed; the variable SEED_VARIABLE plays it again.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from extauthz.demo.upstream import Outcome
from extauthz.domain.budgets import NOTHING_SPENT, Spent
from extauthz.domain.prices import Usage
from extauthz.envoy.names import RESERVATION_HEADER
from tests.support import storm
from tests.support.abort import Call, calling
from tests.support.storm import Job, Leave, Seen, Way, number_of
from tests.support.tempest import House
from tests.support.tempest_books import Books, Entry, added_up
from tests.support.upstream import Cue, Pause, Play, Received

SEED_VARIABLE = "CHAOS_SEED"

CALLS_PER_SECOND = 50
IN_FLIGHT_MAX = 150
# More than any fault takes: a bound, and never reached.
CALLS_MAX = 3_000
# How many calls come before the fault, and after it.
BEFORE, AFTER = 50, 50
AUDIT_SECONDS = 0.5
# Which of a hundred calls are answered in longer than a lease, some of them before the fault; how often a model rests.
LONG, LONG_SECONDS = range(20, 25), 2.3
RESTS = 6

# Who leaves before its Check is answered, or perhaps a moment later; and who leaves when it has read the finish.
LEFT_AT_ONCE = Way("client leaves at once", "answers", Leave.CHECK_PENDING)
LEFT_AT_THE_FINISH = Way("client leaves at the finish", "answers", Leave.RUNNING)
FINISH = b'"finish_reason":"stop"'
# A stream that is open until the test sets the upstream's gate.
OPEN = Way("open", "opens")

# Who has budgets in tokens and requests beside those in USD.
MEASURED_PAYER = "sk-ana"

# Way, whether it is streamed, how many of all these are so.
Mix = tuple[tuple[Way, bool, int], ...]
MIX: Mix = (
    *((storm.ANSWERED, True, 40), (storm.ANSWERED, False, 22), (storm.UPSTREAM_500, True, 4)),
    *((storm.UPSTREAM_500, False, 4), (storm.RESET, True, 4), (storm.BROKEN, True, 5), (storm.BROKEN_PLAIN, False, 3)),
    *((storm.ABORTED_EARLY, True, 3), (storm.ABORTED, True, 5), (storm.ABORTED_RUNNING, True, 3)),
    *((storm.TIMEOUT, True, 1), (storm.TIMEOUT_LATE, True, 2), (LEFT_AT_ONCE, True, 2), (LEFT_AT_THE_FINISH, True, 2)),
)
MIX_OF_LEAVERS: Mix = (
    *((storm.ANSWERED, True, 25), (storm.ANSWERED, False, 10), (storm.ABORTED_EARLY, True, 10)),
    *((storm.ABORTED_EARLY, False, 5), (storm.ABORTED, True, 15), (storm.ABORTED, False, 5)),
    *((storm.ABORTED_RUNNING, True, 10), (LEFT_AT_ONCE, True, 5), (LEFT_AT_ONCE, False, 5)),
    (LEFT_AT_THE_FINISH, True, 10),
)


def seed() -> int:
    """Give the seed of this run."""
    return int(os.environ.get(SEED_VARIABLE) or random.randrange(1_000_000))


def jobs(mix: Mix, chance: random.Random) -> Iterator[Job]:
    """Give calls of the mix, at most CALLS_MAX."""
    ways = [(way, streamed) for way, streamed, _ in mix]
    weights = [weight for *_, weight in mix]
    for number in range(CALLS_MAX):
        ((way, streamed),) = chance.choices(ways, weights)
        yield Job(number, way, streamed, chance.choice(("sk-ana", "sk-bob")))


def strolling(request: Received) -> Play:
    """Answer all, as slowly as the number of the call says: at once, in a moment, or in longer than a short lease."""
    number, play = number_of(request), storm.plays()(request)
    seconds = LONG_SECONDS if number % 100 in LONG else number % 6 * 0.08
    rests = range(1, len(play.steps), max(1, len(play.steps) // RESTS))
    steps = list(play.steps)
    for place in reversed(rests):
        steps.insert(place, Pause(seconds / len(rests)))
    return Play(tuple(steps), play.usage)


def opening(request: Received) -> Play:
    """Answer the first half, wait for the upstream's gate, and answer the rest."""
    play = storm.plays()(request)
    half = len(play.steps) // 2
    return Play((*play.steps[:half], Cue.GATE, *play.steps[half:]), play.usage)


def counter_of(number: int) -> str:
    """Name the counter of a call's own end user."""
    return f"end_user:c{number}|lifetime"


def miscounted(seen: Seen, entries: list[Entry], finished: Mapping[int, Usage]) -> list[str]:
    """Tell what is wrong with the tokens and requests of a call whose cost is as it must be.

    An answer has the tokens that the upstream says, and is one request; what cost nothing has none, and is none.
    """
    usage, booked = finished.get(seen.job.number), added_up(entry.booked for entry in entries)
    if not booked.cost_nanousd:
        due = NOTHING_SPENT
    elif usage is not None and storm.cost(usage) == booked.cost_nanousd and seen.job.way in (storm.ANSWERED, OPEN):
        due = Spent(booked.cost_nanousd, usage.input_tokens + usage.output_tokens, 1)
    else:
        return []
    return [] if booked == due else [f"{seen.job}: {booked} instead of {due}; {entries}"]


def most_of(number: int) -> int:
    """Tell the most that can be booked for a call, however it ended."""
    whole = b"".join(storm.pieces_of(Received("POST", "/", (("x-call", str(number)),), b'{"stream":true}')))
    return max(storm.RESERVED, storm.delivered(whole), storm.cost(storm.usage_of(number)))


@dataclass(slots=True)
class Tally:
    """What came of a tempest.

    Calls `refused` never reached the upstream; those `lost` did, and no signal of their end was booked; of those
    `lost_perhaps` it may have come too late to leave a trace. `exact` are those of whom it is known to the nano-USD
    what must be booked. `wrong` says what the books say wrongly.
    """

    calls: int = 0
    refused: int = 0
    reached: int = 0
    exact: int = 0
    lost: list[str] = field(default_factory=list)
    lost_perhaps: list[str] = field(default_factory=list)
    audits: int = 0
    wrong: list[str] = field(default_factory=list)


class Tempest:
    """Sends calls, CALLS_PER_SECOND while the door is open, and keeps what the clients saw."""

    def __init__(self, home: House, mix: Mix, chance: random.Random) -> None:
        self.home = home
        self.chance = chance
        # While it is not set, nobody leaves at once.
        self.leave = asyncio.Event()
        self.leave.set()
        self.seen: dict[int, Seen] = {}
        self.live: set[int] = set()
        self.wrong: list[str] = []
        self.audits = 0
        self._jobs = jobs(mix, chance)
        self._calls = asyncio.Event()
        self._begun = 0
        self._over = False
        self._last = CALLS_MAX
        self._names: dict[int, str] = {}
        self._arrived: dict[int, asyncio.Event] = {}
        for name, play in {**home.upstream.plays, "answers": strolling, "opens": opening}.items():
            home.upstream.plays[name] = self._noting(play)

    def reached(self, number: int) -> bool:
        """Tell whether the upstream got a call."""
        return self._event(number).is_set()

    async def blow(self, strike: Callable[[Tempest], Awaitable[None]]) -> None:
        """Send calls before, during and after a fault, and come back when all are over."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._audit())
            sender = tasks.create_task(self._send_all(tasks))
            try:
                await self._until_begun(BEFORE)
                await strike(self)
                self._last = self._begun + AFTER
                await sender
            finally:
                self._over = True

    async def more(self, count: int) -> None:
        """Wait until so many calls more have begun."""
        await self._until_begun(self._begun + count)

    def next(self, way: Way | None = None) -> Job:
        """Give the next call of the mix, or one that goes another way."""
        job = next(self._jobs)
        return job if way is None else Job(job.number, way, streamed=True, payer=job.payer)

    async def send(self, job: Job) -> None:
        """Send a call, hang up when its way says so, and note what was seen."""
        self.live.add(job.number)
        call: Call | None = None
        headers = {**job.headers, "x-end-user": f"c{job.number}"}
        try:
            async with calling(self.home.port, job.body, headers) as call:
                await self._see(job, call)
        except OSError:
            pass  # nobody listens, or the connection broke
        finally:
            self.live.discard(job.number)
        received, status, whole = (b"", 0, False) if call is None else (call.received, call.status, call.whole)
        self.seen[job.number] = Seen(job, status, received, whole)
        if call is not None:
            self._names[job.number] = call.headers.get(RESERVATION_HEADER, "")

    def tally(self, books: Books) -> Tally:
        """Compare what the books say with what clients and upstream saw, call by call."""
        tally = Tally(calls=len(self.seen), audits=self.audits, wrong=[*self.wrong, *books.mistakes()])
        finished = {
            number_of(played.request): played.usage
            for played in self.home.upstream.played
            if played.outcome is Outcome.FINISHED and played.usage is not None
        }
        entries = books.by_counter()
        for number, seen in sorted(self.seen.items()):
            counter, reached = counter_of(number), self.reached(number)
            mine, spent = entries.get(counter, []), books.spent.get(counter, 0)
            withdrawn = self._names.get(number) in books.withdrawn
            told = withdrawn or any(entry.signal == "access_log" for entry in mine)
            tally.reached += reached
            tally.refused += not reached
            if reached and not told:
                # A release that comes after the lease changes nothing, and cannot be told from one that never came.
                released = seen.job.way in (storm.UPSTREAM_500, storm.RESET)
                (tally.lost_perhaps if released else tally.lost).append(
                    f"{seen.job}: {seen.status} {seen.whole} {mine}"
                )
            least, most = self._due(seen, mine, finished)
            tally.exact += told and reached and least == most
            unknown = reached and not mine and not withdrawn
            if len({entry.id for entry in mine}) > 1 or not least <= spent <= most or unknown:
                tally.wrong.append(f"{seen.job}: {spent} is not in {least}…{most}; {seen.status} {seen.whole} {mine}")
            if told and least == most == spent and seen.job.payer == MEASURED_PAYER:
                tally.wrong += miscounted(seen, mine, finished)
        return tally

    def _due(self, seen: Seen, entries: list[Entry], finished: Mapping[int, Usage]) -> tuple[int, int]:
        """Tell what must be booked for a call, the least and the most."""
        number, most = seen.job.number, most_of(seen.job.number)
        if not self.reached(number) and seen.job.way is not LEFT_AT_ONCE:
            return 0, 0
        if any(entry.how in ("settled", "released") and entry.signal == "access_log" for entry in entries):
            if not as_planned(seen) or seen.job.way is LEFT_AT_ONCE:
                return 0, most
            if seen.job.way is OPEN:
                return (truth := storm.cost(finished[number])), truth
            return storm.booked(seen, dict(finished))
        # Nothing of its end was heard. A sign of life has told of what there was by then, on_expiry of nothing.
        expired = [entry.cost.cost_nanousd for entry in entries if entry.how == "expired"]
        if any(expired) and storm.INPUT_ONLY <= expired[0] <= most:
            return expired[0], expired[0]
        return 0, 0

    async def _see(self, job: Job, call: Call) -> None:
        match job.way.leave:
            case Leave.AT_THE_END:
                await call.end()
            case Leave.UPSTREAM_AT_WORK:
                await storm.first_of(self._event(job.number).wait(), call.head())
            case Leave.MID_ANSWER:
                half = len(b"".join(storm.half_of(job.number, streamed=job.streamed)))
                await call.until(lambda call: len(call.received) >= half)
            case Leave.RUNNING if job.way is LEFT_AT_THE_FINISH:
                await call.until(lambda call: FINISH in call.received)
            case Leave.RUNNING:
                await call.until(lambda call: call.events >= 2)
            case Leave.CHECK_PENDING:
                await self.leave.wait()

    async def _send_all(self, tasks: asyncio.TaskGroup) -> None:
        """Begin a call, whether the last ones are answered or not, until the last that there shall be has begun."""
        due = time.monotonic()
        while self._begun < self._last:
            await self.home.door.wait()
            if len(self.live) < IN_FLIGHT_MAX:
                self._begun += 1
                tasks.create_task(self.send(self.next()))
                self._calls.set()
            due = max(due + 1 / CALLS_PER_SECOND, time.monotonic() - 0.1)
            await asyncio.sleep(due - time.monotonic())

    async def _until_begun(self, count: int) -> None:
        while self._begun < count:
            self._calls.clear()
            await self._calls.wait()

    async def _audit(self) -> None:
        """Look at the books again and again: they are right at every moment, whatever is under way."""
        while not self._over:  # which redis-py cannot forget, as it may a cancellation with Python 3.11's `wait_for`
            await asyncio.sleep(AUDIT_SECONDS)
            with suppress(RedisError, OSError, AssertionError):  # the store is away, or the sentinels disagree
                books = await self.home.store.books(seconds=1)
                self.audits += 1
                self.wrong += [f"in between: {mistake}" for mistake in books.mistakes()]

    def _event(self, number: int) -> asyncio.Event:
        return self._arrived.setdefault(number, asyncio.Event())

    def _noting(self, play: Callable[[Received], Play]) -> Callable[[Received], Play]:
        def noting(request: Received) -> Play:
            self._event(number_of(request)).set()
            return play(request)

        return noting


def as_planned(seen: Seen) -> bool:
    """Tell whether a call that reached the upstream went the way that it was to go, so that its cost is known."""
    way, status, whole = seen.job.way, seen.status, seen.whole
    if way in (storm.ANSWERED, OPEN):
        return (status, whole) == (200, True)
    if way in (storm.UPSTREAM_500, storm.RESET, storm.TIMEOUT):
        return status == {storm.UPSTREAM_500: 500, storm.RESET: 503, storm.TIMEOUT: 504}[way]
    if way is storm.ABORTED_EARLY:
        return status == 0
    if way in (storm.ABORTED, storm.ABORTED_RUNNING, LEFT_AT_THE_FINISH):
        return status == 200
    return (way is storm.TIMEOUT_LATE and status == 504) or (status == 200 and not whole)
