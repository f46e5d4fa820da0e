"""Lists of what stands in Redis: complete whatever happens while they are read, in pieces, by other hands or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from extauthz.domain.reservation import Claim
from extauthz.ledger.base import Balance
from extauthz.ledger.pieces import PIECE
from extauthz.ledger.redis import STANDINGS_MAX, RedisLedger
from tests.support.inspection import TEAM, ask, calls
from tests.support.ledger import RealClock, a_counter, redis_ledger
from tests.support.processes import eventually
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

COUNTED = Claim(TEAM, None, 1)
MANY = 2 * PIECE + 1


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[RedisServer]:
    """Run a server."""
    async with RedisServer(appendonly=False) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    """Open a client that may do everything by hand."""
    async with server.client() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger of its own."""
    async with redis_ledger(server.url) as opened:
        yield opened


async def test_leases_that_end_in_the_same_millisecond(redis: Redis, ledger: RedisLedger) -> None:
    """All are listed, though more than a piece have the same end, before and behind others."""
    names = [f"r{number:04}" for number in range(MANY)]
    await asyncio.gather(*(ledger.reserve(ask(name, COUNTED)) for name in names))
    end_ms = RealClock().now_ms() + 60_000
    await redis.zadd(ledger.keys.leases, dict.fromkeys(names[5:-5], end_ms))

    assert names == sorted([reservation.id for reservation in await ledger.reservations(2 * MANY)])

    await redis.zadd(ledger.keys.leases, dict.fromkeys(names, end_ms))

    assert names == sorted([reservation.id for reservation in await ledger.reservations(2 * MANY)])


async def test_reservations_that_stay_are_always_listed(ledger: RedisLedger) -> None:
    """While others come and go, before and behind them, none of those that stay is missing, and none comes twice."""
    staying = [f"stays {number}" for number in range(MANY)]
    passing = [f"passes {number}" for number in range(MANY)]
    for names in (passing, staying):  # whose leases end first
        await asyncio.gather(*(ledger.reserve(ask(name, COUNTED)) for name in names))

    async def pass_on() -> None:
        for start in range(0, MANY, 50):
            await asyncio.gather(*map(ledger.release, passing[start : start + 50]))
            await asyncio.gather(
                *(ledger.renew(ask(name).hold, ask(name).lease) for name in staying[start : start + 9])
            )

    going_on = asyncio.create_task(pass_on())

    async def listed() -> bool:
        names = [reservation.id for reservation in await ledger.reservations(3 * MANY)]
        assert len({*names}) == len(names)
        assert {*staying} <= {*names}
        return going_on.done()

    await eventually(listed, what="the others have gone")
    await going_on

    assert sorted(staying) == sorted([reservation.id for reservation in await ledger.reservations(2 * MANY)])


async def test_what_is_no_counter_is_not_listed(redis: Redis, ledger: RedisLedger) -> None:
    """A field that somebody wrote by hand hides no balance; the audit tells of it."""
    await ledger.reserve(ask("r"))
    names = ["", "no counter", "team:a|1d|x|y", "team:a|1d|1|2|3", "nobody:a|lifetime"]
    for key in (ledger.keys.held, ledger.keys.spent):
        await redis.hset(key, mapping=dict.fromkeys(names, 10**9))

    assert (Balance(TEAM, 0, 100),) == await ledger.balances(10)
    assert {*names} == {drift.name for drift in (await ledger.audit()).drifts}


async def test_standings_are_asked_in_pieces(server: RedisServer, ledger: RedisLedger) -> None:
    """No script looks at more counters than STANDINGS_MAX, so that others are served in between."""
    limits = [(a_counter(f"{number}"), 1) for number in range(3 * STANDINGS_MAX)]
    before = await calls(server)
    await ledger.standings(limits)
    after = await calls(server)

    assert 3 == after - before
    assert () == await ledger.standings([])
    assert after == await calls(server)
