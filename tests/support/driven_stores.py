"""Stores that a test without an event loop drives step by step, with the time in its hand, and looks inside."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

from extauthz.domain.budgets import Counter, Measure
from extauthz.ledger.base import Ledger
from extauthz.ledger.memory import MemoryLedger
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.ledger import SIGNING_KEY, START_MS, ManualClock, redis_ledger
from tests.support.store_clock import tell_time, told_the_time

# So short that entries are folded into the checkpoint all the time.
OPTIONS = RedisOptions(timeout_s=5.0, journal_entries_max=1, refusal_s=0)

Verb = Coroutine[object, None, Any]


class Store(Protocol):
    """An empty ledger, driven from outside of any event loop."""

    ledger: Ledger

    def ask(self, *verbs: Verb) -> list[object]:
        """Carry out verbs that arrive at the same time, in this order."""
        ...

    def tell_time(self, now_ms: int) -> None:
        """Let it be that time."""
        ...

    def audit(self, certain: Callable[[Counter], bool]) -> None:
        """See that what stands in the store agrees with itself, on counters that are certain to be remembered."""
        ...


class Memory(Store):
    """The ledger in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ledger = MemoryLedger(self.clock.now_ms, SIGNING_KEY)

    def ask(self, *verbs: Verb) -> list[object]:
        """Carry out each in a single step: that it never waits is what makes it atomic."""
        return [self._at_once(verb) for verb in verbs]

    def tell_time(self, now_ms: int) -> None:
        """Set the clock."""
        self.clock = ManualClock(now_ms)
        self.ledger._clock_ms = self.clock.now_ms

    def audit(self, certain: Callable[[Counter], bool]) -> None:
        """Keep nothing twice."""

    def _at_once(self, verb: Verb) -> object:
        try:
            verb.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("the verb waited for something")


class OnRedis(Store):
    """A ledger on Redis, under a tag of its own; verbs that arrive together go out together."""

    ledger: RedisLedger

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: RedisLedger) -> None:
        self.loop = loop
        self.ledger = ledger
        self.tell_time(START_MS)

    def ask(self, *verbs: Verb) -> list[object]:
        """Send them, and wait for their answers."""

        async def together() -> list[object]:
            return await asyncio.gather(*verbs)

        return self.loop.run_until_complete(together())

    def tell_time(self, now_ms: int) -> None:
        """Write the time down where the scripts read it."""
        self.loop.run_until_complete(tell_time(self.ledger, now_ms))

    def audit(self, certain: Callable[[Counter], bool]) -> None:
        """Compare held with the open records, and spent with the checkpoint and the journal."""
        keys = self.ledger.keys
        granted_key = next(key for key in keys.all if key.endswith(":granted"))
        hashes = [("HGETALL", key) for key in (keys.held, keys.spent, keys.checkpoint, keys.open, granted_key)]
        sets = [("ZRANGE", key, 0, -1) for key in (keys.leases, keys.windows)]
        asked = self.ledger.link.transact(*hashes, *sets, ("XRANGE", keys.journal, "-", "+"))
        *tables, leases, windows, journal = self.loop.run_until_complete(asked)
        held, spent, checkpoint, records, granted = map(texts, tables)

        open_amounts, booked = defaultdict[str, int](int), defaultdict[str, int](int)
        for record in records.values():
            counters_and_amounts = record.split(" ")[4:]
            for counter, amount in zip(counters_and_amounts[::2], counters_and_amounts[1::2], strict=True):
                open_amounts[counter] += int(amount)
        for entry in (texts(fields) for _, fields in journal):
            words = [*map(int, entry["booked"].split(",")), 0, 0]
            for counter in entry["counters"].split():
                booked[counter] += words[[*Measure].index(Counter.parse(counter).measure)]

        assert {key: amount for key, amount in open_amounts.items() if amount} == whole_numbers(held)
        assert set(records) == {name.decode() for name in leases}
        assert {key for key in {*spent, *granted} if ends(Counter.parse(key))} <= {name.decode() for name in windows}
        totals = whole_numbers(checkpoint)
        for key in {*spent, *totals, *booked}:
            assert int(spent.get(key, 0)) >= 0
            if certain(Counter.parse(key)):
                assert totals.get(key, 0) + booked[key] == int(spent.get(key, 0)), key


def ends(counter: Counter) -> bool:
    """Tell whether a counter can be dropped one day."""
    return counter.window.end_ms is not None


def texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Read a hash, or a journal entry's fields."""
    return {name.decode(): value.decode() for name, value in fields.items()}


def whole_numbers(fields: Mapping[str, str]) -> dict[str, int]:
    """Read a hash of amounts. Written in Lua's own way, 1e+15, one would be no whole number."""
    return {name: int(value) for name, value in fields.items()}


class Running(Protocol):
    """Servers that run."""

    @property
    def url(self) -> str:
        """Where a ledger finds them."""
        ...


@contextmanager
def in_memory() -> Iterator[Store]:
    """Open a store in memory."""
    yield Memory()


class Servers:
    """The servers of stores, on an event loop that runs while steps do, and not between them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, running: AsyncExitStack) -> None:
        self._loop = loop
        self._running = running

    def start(self, servers: AbstractAsyncContextManager[Running]) -> Callable[[], AbstractContextManager[Store]]:
        """Start the servers of a store, and tell how it is opened, empty each time."""
        running = self._loop.run_until_complete(self._running.enter_async_context(servers))
        return partial(self._opened, running.url)

    @contextmanager
    def _opened(self, url: str) -> Iterator[Store]:
        opening = redis_ledger(url, options=OPTIONS)
        ledger = self._loop.run_until_complete(opening.__aenter__())
        try:
            yield OnRedis(self._loop, ledger)
        finally:
            self._loop.run_until_complete(opening.__aexit__(None, None, None))


@contextmanager
def servers_on_a_loop() -> Iterator[Servers]:
    """Run servers that are started in the block until it ends; their ledgers go by the test's time."""
    with asyncio.Runner() as runner, told_the_time():
        running = AsyncExitStack()
        try:
            yield Servers(runner.get_loop(), running)
        finally:
            runner.get_loop().run_until_complete(running.aclose())
