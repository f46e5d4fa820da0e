"""What a ledger on Redis keeps of budgets that roll over: for how long, in the journal, and in books that were lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis

from extauthz.domain.budgets import Budget, Counter, Scope, ScopeKind, Spent
from extauthz.domain.reservation import Claim
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.ledger.audit import Auditor
from extauthz.ledger.journal import CARRIED
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.books import exported
from tests.support.inspection import explained, spent
from tests.support.ledger import START_MS, a_hold, a_reserve, redis_ledger
from tests.support.redis import RedisServer
from tests.support.store_clock import tell_time, told_the_time

pytestmark = pytest.mark.redis

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
TEAM = Scope(ScopeKind.TEAM, ("t",))
LIMIT = 100
BUDGET = Budget(LIMIT, WindowRule(Duration(1, Unit.MONTH)), rollover=True)
FEBRUARY, MARCH, APRIL = (
    BUDGET.counter(TEAM, BUDGET.rule.at(now_ms)) for now_ms in (1_770_000_000_000, 1_773_000_000_000, 1_776_000_000_000)
)
OPTIONS = RedisOptions(timeout_s=5.0, journal_entries_max=1000)


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger with the time in the test's hand."""
    with told_the_time():
        async with redis_ledger(server.url, options=OPTIONS) as opened:
            yield opened


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    """Look into the server."""
    async with server.client() as client:
        yield client


async def at(ledger: RedisLedger, now_ms: int) -> None:
    """Let it be that time, and clean up."""
    await tell_time(ledger, now_ms)
    await ledger.expire(10)


async def ask(ledger: RedisLedger, counter: Counter, name: str = "r") -> None:
    """Reserve on a counter, and give up."""
    request = a_reserve(f"{name} on {counter.key}", Claim(counter, LIMIT, 10), reserved_at_ms=ledger.now_ms())
    await ledger.reserve(request)
    await ledger.release(request.hold.id)


async def spend(ledger: RedisLedger, counter: Counter, amount: int, name: str = "spent") -> None:
    """Book an amount."""
    hold = a_hold(f"{name} on {counter.key}", (counter,), reserved_at_ms=ledger.now_ms())
    await ledger.settle(hold, Spent(amount))


async def carries(redis: Redis, ledger: RedisLedger) -> dict[str, str]:
    """Read what the store remembers of carries."""
    meta: Any = await redis.hgetall(ledger.keys.meta)
    return {name: value for name, value in meta.items() if name.startswith("carried|")}


class TestKept:
    """A counter stays until the next window has ended, and not for longer than a day more, and an eighth."""

    async def overspend_in_february(self, ledger: RedisLedger) -> None:
        """Spend more than the limit, in a window of a budget that rolls over."""
        assert FEBRUARY.window.end_ms is not None
        await at(ledger, FEBRUARY.window.end_ms - HOUR_MS)
        await ask(ledger, FEBRUARY)
        await spend(ledger, FEBRUARY, 130)

    async def test_the_last_moment(self, ledger: RedisLedger, redis: Redis) -> None:
        """Who asks for the first time in the last hour of a longer month takes over from the one before."""
        await self.overspend_in_february(ledger)
        assert MARCH.window.end_ms is not None
        await at(ledger, MARCH.window.end_ms - HOUR_MS)
        await ask(ledger, MARCH)

        assert {FEBRUARY.key: 130, MARCH.key: 30} == await spent(redis, ledger.keys)

    async def test_what_is_forgotten(self, ledger: RedisLedger, redis: Redis) -> None:
        """The carry goes with the counter that it is from, and that when nobody can take over from it any more."""
        await self.overspend_in_february(ledger)
        assert MARCH.window.end_ms is not None
        await at(ledger, MARCH.window.start_ms)
        await ask(ledger, MARCH)
        before = await carries(redis, ledger)
        await at(ledger, MARCH.window.end_ms + 2 * DAY_MS)

        assert {f"carried|{FEBRUARY.key}": f"{LIMIT} {MARCH.key}"} == before
        assert {} == await carries(redis, ledger)
        assert {MARCH.key: 30} == await spent(redis, ledger.keys)

    async def test_one_that_does_not_roll_over(self, ledger: RedisLedger, redis: Redis) -> None:
        """It stays for a day."""
        plain = Counter.parse(FEBRUARY.key)
        await at(ledger, plain.window.start_ms)
        await ask(ledger, plain)
        await spend(ledger, plain, 130)
        await at(ledger, MARCH.window.start_ms + DAY_MS)

        assert {} == await spent(redis, ledger.keys)


class TestJournal:
    """Each carry is an entry of its own."""

    async def test_entries(self, ledger: RedisLedger) -> None:
        """It says what was booked, and cost nothing; one for the first, one for each change."""
        await at(ledger, MARCH.window.start_ms + HOUR_MS)
        await spend(ledger, FEBRUARY, 130)
        await ask(ledger, MARCH)
        await spend(ledger, FEBRUARY, 5, "late")
        rows = map(json.loads, await exported(ledger))
        carried = [row for row in rows if row["how"] == CARRIED]

        assert [(MARCH.key, 0, 30), ("", 0, 5)] == [
            (row.get("id", ""), row["cost_nanousd"], row["booked_nanousd"]) for row in carried
        ]
        assert [[MARCH.key]] * 2 == [row["counters"] for row in carried]


class TestLostBooks:
    """A store that lost its books gets them back from an export."""

    async def rebuilt(self, ledger: RedisLedger, redis: Redis, lines: Sequence[str]) -> None:
        """Lose everything but the time, and rebuild."""
        now_ms = ledger.now_ms()
        await redis.flushall()
        await tell_time(ledger, now_ms)
        await Auditor(ledger).rebuild(lines)

    async def test_nothing_is_carried_twice(self, ledger: RedisLedger, redis: Redis) -> None:
        """What was carried before is not carried again, and what comes late for the window before no further."""
        await at(ledger, MARCH.window.start_ms + HOUR_MS)
        await spend(ledger, FEBRUARY, 130)
        await ask(ledger, MARCH)
        await self.rebuilt(ledger, redis, await exported(ledger))
        await ask(ledger, MARCH, "again")
        await spend(ledger, FEBRUARY, 5, "late")

        assert {FEBRUARY.key: 135, MARCH.key: 30} == await spent(redis, ledger.keys)
        assert (await ledger.audit()).ok

    async def test_what_was_still_to_be_carried(self, ledger: RedisLedger, redis: Redis) -> None:
        """It is carried when somebody asks."""
        await at(ledger, MARCH.window.start_ms + HOUR_MS)
        await spend(ledger, FEBRUARY, 130)
        await self.rebuilt(ledger, redis, await exported(ledger))
        await ask(ledger, MARCH)

        assert {FEBRUARY.key: 130, MARCH.key: 30} == await spent(redis, ledger.keys)
        assert await explained(redis, ledger.keys) == await spent(redis, ledger.keys)

    async def test_a_successor_that_knows_less(self, ledger: RedisLedger, redis: Redis) -> None:
        """A carry that its primary lost is carried again by the successor, and counts once in an export of both."""
        await at(ledger, MARCH.window.start_ms + HOUR_MS)
        await spend(ledger, FEBRUARY, 130)
        before: Any = await redis.hgetall(ledger.keys.spent)
        await ask(ledger, MARCH)
        lines = await exported(ledger)
        await redis.delete(ledger.keys.spent)
        await redis.hset(ledger.keys.spent, mapping=before)
        await redis.hdel(ledger.keys.meta, f"carried|{FEBRUARY.key}")
        await ask(ledger, MARCH, "again")
        both = [*lines, *(await exported(ledger))[len(lines) :]]
        await self.rebuilt(ledger, redis, both)

        assert {FEBRUARY.key: 130, MARCH.key: 30} == await spent(redis, ledger.keys)


def test_the_months_follow_each_other() -> None:
    """Or the tests above would be of nothing."""
    months = (FEBRUARY, MARCH, APRIL)

    assert all(later.before and later.before.counter == earlier for earlier, later in pairwise(months))
    assert all(counter.window.start_ms < START_MS for counter in months)
