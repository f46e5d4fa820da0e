"""What a ledger on Redis forgets, when, and in how large pieces: its memory has a bound, its books have none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from extauthz.domain.budgets import Counter, Spent
from extauthz.domain.reservation import Claim, Lease
from extauthz.ledger import redis as ledger_redis
from extauthz.ledger.base import AlreadyEnded, Balance, Ending, Expired, Promise, Reserved
from extauthz.ledger.keys import NAMES
from extauthz.ledger.redis import DROPPED_MAX, RedisLedger, RedisOptions
from tests.support.inspection import LONG, SHORT, TEAM, ask, calls, explained, journal, spent
from tests.support.ledger import RealClock, a_counter, a_window, balance, redis_ledger
from tests.support.processes import eventually
from tests.support.redis import REDIS_VERSIONS, RedisServer

pytestmark = pytest.mark.redis

RETENTION_S = 1
JOURNAL_MAX = 20
# Small, so that what takes a day is seen to happen; the journal is trimmed by each call that finds it too long.
SMALL = RedisOptions(timeout_s=5.0, tombstone_seconds=RETENTION_S, journal_entries_max=JOURNAL_MAX)
UNLIMITED = Claim(TEAM, limit=None, amount=100)


@pytest.fixture(params=REDIS_VERSIONS, ids=lambda version: version.name)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """Run an empty server of each version."""
    async with RedisServer(request.param, appendonly=False) as running:
        yield running


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger that forgets early."""
    async with redis_ledger(server.url, options=SMALL) as opened:
        yield opened


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    """Look into the server."""
    async with server.client() as client:
        yield client


def over(team: str, ago_ms: int = 60_000) -> Counter:
    """Give a counter of a window that ended a while ago."""
    return a_counter(team, a_window(RealClock().now_ms(), left_ms=-ago_ms))


class TestCounters:
    """Counters of windows that are long over are dropped."""

    async def test_what_is_dropped(self, ledger: RedisLedger, redis: Redis) -> None:
        """Those whose window is over for longer than the retention, not those of the present or of a lifetime."""
        now_ms = RealClock().now_ms()
        kept = [
            a_counter("present", a_window(now_ms, left_ms=60_000)),
            a_counter("just over", a_window(now_ms, left_ms=-1)),
            TEAM,
        ]
        for counter in (over("a"), over("b"), *kept):
            await ledger.settle(ask(f"on {counter.key}", Claim(counter, None, 0)).hold, Spent(70))
        await ledger.expire(1)
        left = await spent(redis, ledger.keys)

        assert {counter.key: 70 for counter in kept} == left

        async def dropped() -> bool:
            await ledger.expire(1)
            return kept[1].key not in await spent(redis, ledger.keys)

        await eventually(dropped, what="the one that was just over is dropped, too")
        assert {kept[0].key: 70, kept[2].key: 70} == await spent(redis, ledger.keys)
        assert {kept[0].key} == set(await redis.zrange(ledger.keys.windows, 0, -1))

    async def test_what_has_money_held_is_kept(self, ledger: RedisLedger, redis: Redis) -> None:
        """A counter with an open reservation outlives its window, with what is spent on it."""
        over_ms = RealClock().now_ms() + 500
        counter = a_counter("slow", a_window(over_ms, left_ms=0))
        await ledger.settle(ask("first", Claim(counter, None, 0)).hold, Spent(70))
        assert isinstance(await ledger.reserve(ask("open", Claim(counter, None, 100))), Reserved)

        async def looked_at() -> bool:
            await ledger.expire(1)
            due_ms = await redis.zscore(ledger.keys.windows, counter.key)
            return due_ms is not None and due_ms > over_ms + RETENTION_S * 1000

        await eventually(looked_at, what="it was due, and is looked at again later")
        assert Balance(counter, 70, 100) == await balance(ledger, counter)

        await ledger.settle(ask("open").hold, Spent(30))
        assert Balance(counter, 100, 0) == await balance(ledger, counter)

        async def dropped() -> bool:
            await ledger.expire(1)
            return await redis.hlen(ledger.keys.spent) == 0

        await eventually(dropped, what="nothing is held on it any more, and it is dropped")

    async def test_many_are_dropped_in_pieces(self, ledger: RedisLedger, redis: Redis) -> None:
        """One call drops so many and no more."""
        count = 2 * DROPPED_MAX + 1
        counters = [over(f"team {number}") for number in range(count)]
        await asyncio.gather(*(ledger.settle(ask(c.key, Claim(c, None, 0)).hold, Spent(70)) for c in counters))
        left = []
        for _ in range(3):
            await ledger.expire(1)
            left.append(await redis.hlen(ledger.keys.spent))

        assert [DROPPED_MAX + 1, 1, 0] == left


class TestJournal:
    """The journal keeps its latest entries; older ones are added up."""

    async def test_is_folded(self, ledger: RedisLedger, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """Above its bound it is trimmed piece by piece, and adds up to what is spent at each step."""
        monkeypatch.setattr(ledger_redis, "FOLDED_MAX", 30)
        windowed = a_counter("present", a_window(RealClock().now_ms(), left_ms=60_000))
        asked = [ask(f"r{number}", UNLIMITED, Claim(windowed, None, 1)) for number in range(100)]
        await asyncio.gather(*map(ledger.reserve, asked))
        await asyncio.gather(*(ledger.settle(request.hold, Spent(cost)) for cost, request in enumerate(asked)))
        lengths = []
        for _ in range(4):
            await ledger.expire(1)
            lengths.append(await redis.xlen(ledger.keys.journal))
            booked = await spent(redis, ledger.keys)

            assert {TEAM.key: 4950, windowed.key: 4950} == booked == await explained(redis, ledger.keys)
        assert [70, 40, JOURNAL_MAX, JOURNAL_MAX] == lengths
        assert [f"r{number}" for number in range(80, 100)] == [
            entry["id"] for entry in await journal(redis, ledger.keys)
        ]
        assert str(sum(range(80))) == await redis.hget(ledger.keys.checkpoint, TEAM.key)

    async def test_corrections_are_folded(self, ledger: RedisLedger, redis: Redis) -> None:
        """An expiry, its late settle, a release and what belongs to counters that were dropped add up as well."""
        asked = [ask(f"r{number}", UNLIMITED, lease=SHORT) for number in range(JOURNAL_MAX)]
        await asyncio.gather(*map(ledger.reserve, asked))
        await ledger.settle(ask("over", Claim(over("old"), None, 0)).hold, Spent(70))

        async def all_expired() -> bool:
            await ledger.expire(100)
            return await ledger.open_count() == 0

        await eventually(all_expired, what="all have expired")
        for request in asked:
            await ledger.settle(request.hold, Spent(7))
        await ledger.expire(1)

        assert JOURNAL_MAX == await redis.xlen(ledger.keys.journal)
        assert {TEAM.key: 7 * JOURNAL_MAX} == await spent(redis, ledger.keys) == await explained(redis, ledger.keys)
        assert {TEAM.key: str(30 * JOURNAL_MAX)} == await redis.hgetall(ledger.keys.checkpoint)

    async def test_is_whole_while_somebody_reads_it(self, ledger: RedisLedger, redis: Redis) -> None:
        """Nothing is trimmed while a reader that began at the beginning says so."""
        for number in range(JOURNAL_MAX + 5):
            await ledger.release(f"unknown {number}")
            await ledger.settle(ask(f"r{number}", UNLIMITED).hold, Spent(1))
        await redis.hset(ledger.keys.meta, "audited_until", ledger.now_ms() + 60_000)
        await ledger.expire(1)
        whole = await redis.xlen(ledger.keys.journal)
        await redis.hdel(ledger.keys.meta, "audited_until")
        await ledger.expire(1)

        assert JOURNAL_MAX + 5 == whole
        assert JOURNAL_MAX == await redis.xlen(ledger.keys.journal)


class TestEndings:
    """Endings are remembered for the retention, and not for ever."""

    async def test_are_forgotten_after_the_retention(self, ledger: RedisLedger, redis: Redis) -> None:
        """An ending is there for that long, and a settle that comes after that long is not booked again."""
        late = ask("r", UNLIMITED)
        before_ms = RealClock().now_ms()
        await ledger.settle(late.hold, Spent(70))

        async def forgotten() -> bool:
            await ledger.expire(1)
            return not any([await redis.hexists(key, "r") for key in ledger.keys.all if ":ended:" in key])

        await eventually(forgotten, what="the ending is forgotten")
        assert RealClock().now_ms() - before_ms >= RETENTION_S * 1000
        assert Ending.FORGOTTEN == await ledger.settle(late.hold, Spent(70))
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_promises_are_forgotten_after_twice_the_retention(self, ledger: RedisLedger) -> None:
        """What was promised is found for as long as its lease may be put right, and not for ever."""
        made_ms = RealClock().now_ms()
        await ledger.promise(Promise("one", "a hold"))

        async def forgotten() -> bool:
            await ledger.expire(1)
            return await ledger.promised("one") is None

        await eventually(forgotten, what="the promise is forgotten")
        assert RealClock().now_ms() - made_ms >= 2 * RETENTION_S * 1000

    async def test_withdrawals_are_forgotten(
        self, ledger: RedisLedger, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A release that came before its reserve stops that for a while."""
        monkeypatch.setattr(ledger_redis, "WITHDRAWN_MS", 300)
        await ledger.expire(1)
        before_ms = RealClock().now_ms()
        await ledger.release("r")
        stopped = await ledger.reserve(ask("r", UNLIMITED))

        async def forgotten() -> bool:
            await ledger.expire(1)
            return not any([await redis.scard(key) for key in ledger.keys.all if ":withdrawn:" in key])

        await eventually(forgotten, what="the withdrawal is forgotten")
        assert isinstance(stopped, AlreadyEnded)
        assert RealClock().now_ms() - before_ms >= 300
        assert isinstance(await ledger.reserve(ask("r", UNLIMITED)), Reserved)

    async def test_the_keys_are_these(self, ledger: RedisLedger, redis: Redis) -> None:
        """However much happens there are no other keys than those that scripts declare, and none has an expiry."""
        for number in range(200):
            claim = Claim(a_counter(f"team {number}"), None, 100)
            await ledger.reserve(ask(f"open {number}", claim))
            await ledger.settle(ask(f"settled {number}", claim).hold, Spent(7))
            await ledger.release(f"released {number}")
            await ledger.release(f"open {number - 3}")
            await ledger.expire(10)
        keys = await redis.keys("*")

        assert set(keys) <= set(ledger.keys.all)
        assert len(NAMES) == len(ledger.keys.all)
        assert {-1} == {await redis.ttl(key) for key in keys}


class TestExpiries:
    """Many leases that run out at once end in pieces, each once."""

    async def test_several_replicas(self, server: RedisServer, redis: Redis) -> None:
        """A thousand end once each, though three replicas end them at the same time, at most a hundred in each call."""
        async with AsyncExitStack() as stack:
            ledgers = [await stack.enter_async_context(redis_ledger(server.url, tag="books")) for _ in range(3)]
            asked = [ask(f"r{number}", UNLIMITED, lease=Lease(500, Spent(30))) for number in range(1000)]
            await asyncio.gather(*map(ledgers[0].reserve, asked))
            await ledgers[0].reserve(ask("not due", UNLIMITED, lease=LONG))
            before = await calls(server)
            ended: list[tuple[Expired, ...]] = []

            async def end(ledger: RedisLedger) -> None:
                while sum(map(len, ended)) < 1000:
                    ended.append(await ledger.expire(100))

            async with asyncio.timeout(20):
                await asyncio.gather(*map(end, ledgers))
            made = await calls(server) - before
            stands = await balance(ledgers[0], TEAM)
            sums = await explained(redis, ledgers[0].keys)

        expiries = [expired for piece in ended for expired in piece]
        assert {Expired(request.hold.id, Spent(30)) for request in asked} == set(expiries)
        assert 1000 == len(expiries)
        assert max(map(len, ended)) <= 100
        assert made >= 10
        assert Balance(TEAM, 30_000, 100) == stands
        assert {TEAM.key: 30_000} == sums
