"""What tests of ledgers share: a clock in the test's hand, and short words for the values that the verbs take."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from extauthz.domain.budgets import Before, Counter, Filter, FilterKind, Measure, Scope, ScopeKind, Spent
from extauthz.domain.prices import Estimate, Prices
from extauthz.domain.reservation import Claim, Hold, Lease
from extauthz.domain.windows import LIFETIME, Window
from extauthz.ledger.base import Balance, Ledger, Reserve
from extauthz.ledger.link import Server
from extauthz.ledger.redis import RedisLedger, RedisOptions
from extauthz.ledger.shards import ShardedLedger, new_ledgers
from extauthz.ledger.url import parse_store_url

START_MS = 1_795_000_000_000
LEASE = Lease(lease_ms=200, spent=Spent(30))
SIGNING_KEY = b"a key for tests, and only for them"


class Clock(Protocol):
    """The time that a store goes by. Stores with a clock of their own wait for real in `advance`."""

    def now_ms(self) -> int:
        """Tell the store's time in Unix milliseconds."""
        ...

    async def advance(self, duration_ms: int) -> None:
        """Come back when so much time has passed at the store."""
        ...


class ManualClock:
    """A Clock that stands still until it is told otherwise."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Tell the time."""
        return self._now_ms

    async def advance(self, duration_ms: int) -> None:
        """Move the time on."""
        self._now_ms += duration_ms


class RealClock:
    """The time that a store on this machine goes by."""

    def now_ms(self) -> int:
        """Tell the time."""
        return time.time_ns() // 1_000_000

    async def advance(self, duration_ms: int) -> None:
        """Wait until the time has passed."""
        await asyncio.sleep((duration_ms + 1) / 1000)


@dataclass(slots=True)
class Listener:
    """Keeps what a ledger on Redis tells of its store."""

    lost: list[str] = field(default_factory=list)
    seen: list[Server] = field(default_factory=list)
    replayed: list[tuple[int, int]] = field(default_factory=list)

    def store_lost(self, reason: str) -> None:
        """Hear that the store is away."""
        self.lost.append(reason)

    def store_seen(self, server: Server) -> None:
        """Hear how it is."""
        self.seen.append(server)

    def store_replayed(self, count: int, lost: int) -> None:
        """Hear what its successor was told."""
        self.replayed.append((count, lost))


OPEN_SECONDS = 20.0
# Every answer is the store's own.
PATIENT = RedisOptions(timeout_s=5.0, refusal_s=0)


@asynccontextmanager
async def redis_ledger(
    url: str,
    listener: Listener | None = None,
    options: RedisOptions = PATIENT,
    tag: str = "",
    *,
    found: bool | None = True,
    clock_s: Callable[[], float] = time.monotonic,
) -> AsyncIterator[RedisLedger]:
    """Open a ledger on Redis, under a tag of its own, and close it after the block.

    Unless `found` it has no store yet; with None it may have one.
    """
    tagged = f"{url}{'&' if '?' in url else '?'}tag={tag or uuid.uuid4().hex}"
    ledger = RedisLedger(
        parse_store_url(tagged),
        listener or Listener(),
        clock_s=clock_s,
        unix_ms=RealClock().now_ms,
        chance=random.random,
        options=options,
    )
    try:
        assert await ledger.open(OPEN_SECONDS if found else 0.0) is found or found is None, f"{url}: {ledger.link.up}"
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def sharded_ledger(
    url: str, shards: int, listener: Listener | None = None, tag: str = "", *, found: bool = True
) -> AsyncIterator[ShardedLedger]:
    """Open a ledger in shards, under tags of its own, and close it after the block. Unless `found` it has no store."""
    ledgers = new_ledgers(
        parse_store_url(f"{url}?tag={tag or uuid.uuid4().hex}"),
        listener or Listener(),
        shards=shards,
        clock_s=time.monotonic,
        unix_ms=RealClock().now_ms,
        chance=random.random,
        options=PATIENT,
    )
    ledger = ShardedLedger(ledgers)
    try:
        assert await ledger.open(OPEN_SECONDS if found else 2.0) is found, url
        yield ledger
    finally:
        await ledger.close()


def a_counter(
    team: str = "research",
    window: Window | None = None,
    measure: Measure = Measure.USD,
    only: Filter | None = None,
    before: Before | None = None,
) -> Counter:
    """Give a team's counter, for its lifetime unless a window is given."""
    return Counter(Scope(ScopeKind.TEAM, (team,)), window or Window(LIFETIME, 0, None), measure, only, before)


# Counters that do not count USD, or not all requests.
MEASURED = (
    a_counter(measure=Measure.TOKENS),
    a_counter(measure=Measure.REQUESTS, only=Filter(FilterKind.MODEL, "tokens")),
    a_counter(only=Filter(FilterKind.PROVIDER, "requests")),
)


def a_window(now_ms: int, *, left_ms: int) -> Window:
    """Give a window around the present that ends after `left_ms`."""
    return Window("1s", now_ms + left_ms - 1000, now_ms + left_ms)


def a_hold(name: str, counters: tuple[Counter, ...], *, reserved_at_ms: int = START_MS) -> Hold:
    """Give a hold; prices, estimate and model are nothing to a ledger."""
    zero = Decimal(0)
    return Hold(name, reserved_at_ms, counters, "gpt-4o", Prices(zero, zero), Estimate(0, 0, 0, 0), streamed=False)


def a_reserve(
    name: str,
    *claims: Claim,
    reserved_at_ms: int = START_MS,
    attempt: str = "first",
    lease: Lease = LEASE,
    not_after_ms: int | None = None,
) -> Reserve:
    """Ask for a reservation of that name on the claims' counters."""
    counters = tuple({claim.counter.key: claim.counter for claim in claims}.values())
    return Reserve(a_hold(name, counters, reserved_at_ms=reserved_at_ms), attempt, claims, lease, not_after_ms)


async def balance(ledger: Ledger, counter: Counter) -> Balance:
    """Tell what was spent and what is held on one counter, whether its window is over or not."""
    (standing,) = await ledger.standings([(counter, 0)])
    return Balance(counter, standing.spent, standing.held)
