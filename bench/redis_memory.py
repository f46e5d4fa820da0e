"""What the books take of Redis' memory: an open reservation, a scope that spent, an ended reservation, a journal entry.

Each is measured at COUNT of them: used_memory after, less used_memory before, on every supported version. Then SOAK
requests go through the books, a few at a time: what is left of them afterwards shows that nothing grows but what must.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from redis.asyncio import Redis

from extauthz.config.payers import hashed
from extauthz.directories.store.records import Change, Edit
from extauthz.directories.store.redis import RedisRecords
from extauthz.directories.store.written import Record, place_of, to_bytes
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, ScopeKind, Spent
from extauthz.domain.prices import Usage
from extauthz.domain.reservation import Claim, Lease, Note, Signal
from extauthz.domain.windows import LIFETIME, Window
from extauthz.ledger.base import Reserve
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.ledger import a_hold, redis_ledger
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion

COUNT = 100_000
SOAK = 200_000
AT_ONCE = 500
JOURNAL_ENTRIES = 20_000
# Endings are forgotten many times during the soak.
SOAK_TOMBSTONE_SECONDS = 8

FOREVER = Window(LIFETIME, 0, None)
LEASE = Lease(lease_ms=3_600_000, spent=NOTHING_SPENT)
USAGE = Note(Signal.ACCESS_LOG, Usage(1200, 350))
MONTH = Window("1mo", 1_793_491_200_000, 1_796_083_200_000)

# What a request of an ordinary company is counted on.
SHARED = (
    Counter(Scope(ScopeKind.GLOBAL), FOREVER),
    Counter(Scope(ScopeKind.TEAM, ("research",)), MONTH),
    Counter(Scope(ScopeKind.KEY, ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",)), FOREVER),
)


async def each(count: int, job: Callable[[int], Awaitable[object]]) -> None:
    """Do a job so many times, AT_ONCE together."""
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(job(number) for number in range(start, min(start + AT_ONCE, count))))


async def size_of(redis: Redis, key: str) -> int:
    """Tell how much memory one key takes."""
    return await redis.memory_usage(key, samples=0) or 0


async def used(redis: Redis) -> int:
    """Tell how much memory the data takes, once what was freed is free."""
    return int((await redis.info("memory"))["used_memory"])


def a_request(ledger: RedisLedger, reservation_id: str, *counters: Counter) -> Reserve:
    """Ask for a reservation on counters."""
    claims = tuple(Claim(counter, None, 1_000) for counter in counters)
    hold = a_hold(reservation_id, counters, reserved_at_ms=ledger.now_ms())
    return Reserve(hold, uuid4().hex, claims, LEASE)


async def measure(version: RedisVersion) -> None:
    """Measure one version, and print a line for each thing."""
    async with RedisServer(version, appendonly=False) as server, server.client() as redis:
        options = RedisOptions(timeout_s=30.0, journal_entries_max=10 * COUNT)
        async with redis_ledger(server.url, options=options) as ledger:
            ids = [str(uuid4()) for _ in range(COUNT)]
            empty = await used(redis)
            await each(COUNT, lambda number: ledger.reserve(a_request(ledger, ids[number], *SHARED)))
            opened = await used(redis)
            report(version, "open reservation on 3 counters", (opened - empty) / COUNT)

            requests = [a_request(ledger, reservation_id, *SHARED) for reservation_id in ids]
            await each(COUNT, lambda number: ledger.settle(requests[number].hold, Spent(900), USAGE))
            journal = await size_of(redis, ledger.keys.journal)
            ended = [await size_of(redis, key) for key in ledger.keys.all if ":ended:" in key]
            report(version, "ended reservation, remembered", sum(ended) / COUNT)
            report(version, "the same as a key that expires", await as_keys(redis, ids) / COUNT)
            report(version, "ended reservation, in the journal", journal / COUNT)

            scopes = [Counter(Scope(ScopeKind.END_USER, (f"user-{n:06}@example.com",)), MONTH) for n in range(COUNT)]
            for key in (ledger.keys.journal, *(k for k in ledger.keys.all if ":ended:" in k)):
                await redis.delete(key)
            before = await size_of(redis, ledger.keys.spent)
            holds = [a_hold(str(uuid4()), (scope,), reserved_at_ms=ledger.now_ms()) for scope in scopes]
            await each(COUNT, lambda number: ledger.settle(holds[number], Spent(900), USAGE))
            spent = await size_of(redis, ledger.keys.spent) - before
            windows = await size_of(redis, ledger.keys.windows)
            report(version, "scope that spent, for its lifetime", spent / COUNT)
            report(version, "scope that spent, in a window", (spent + windows) / COUNT)
            report(version, "key in the store, of a team, with a budget", await as_records(redis, ledger) / COUNT)


async def as_records(redis: Redis, ledger: RedisLedger) -> int:
    """Tell what keys take that are kept beside the books, with the log of how they came there."""
    before = await used(redis)
    records = RedisRecords(ledger.link, ledger.keys.tag, time.monotonic)
    document = {"team": "team-00001", "max_budget": 50, "budget_duration": "1mo"}
    for start in range(0, COUNT, AT_ONCE):
        scopes = [Scope(ScopeKind.KEY, (hashed(f"sk-{number}"),)) for number in range(start, start + AT_ONCE)]
        edits = [Edit(place_of(scope), to_bytes(Record(scope, document, 1_795_000_000, "ana"))) for scope in scopes]
        await records.change(Change(str(start), "ana", "import"), edits)
    return await used(redis) - before


async def as_keys(redis: Redis, ids: list[str]) -> int:
    """Tell what endings would take if each were a key with an expiry, and take them away again."""
    before = await used(redis)
    for start in range(0, COUNT, AT_ONCE):
        pipeline = redis.pipeline(transaction=False)
        for reservation_id in ids[start : start + AT_ONCE]:
            pipeline.set(f"{{extauthz}}:ended:{reservation_id}", "settled", ex=86_400)
        await pipeline.execute()
    taken = await used(redis) - before
    for start in range(0, COUNT, AT_ONCE):
        await redis.delete(*(f"{{extauthz}}:ended:{one}" for one in ids[start : start + AT_ONCE]))
    return taken


async def soak(version: RedisVersion) -> None:
    """Send SOAK requests through the books, with leases that are cleaned up beside, and print what is left."""
    async with RedisServer(version, appendonly=False) as server, server.client() as redis:
        options = RedisOptions(30.0, tombstone_seconds=SOAK_TOMBSTONE_SECONDS, journal_entries_max=JOURNAL_ENTRIES)
        async with redis_ledger(server.url, options=options) as ledger:

            async def one(number: int) -> None:
                request = a_request(ledger, str(uuid4()), *SHARED)
                await ledger.reserve(request)
                if number % 20:
                    await ledger.settle(request.hold, Spent(900), USAGE)
                else:
                    await ledger.release(request.hold.id)
                if number % 100 == 0:
                    await ledger.expire(1000)

            marks = []
            for part in range(4):
                await each(SOAK // 4, one)
                while await redis.xlen(ledger.keys.journal) > JOURNAL_ENTRIES:
                    await ledger.expire(1000)
                marks.append(f"{await used(redis) / 1_000_000:.1f} MB after {(part + 1) * SOAK // 4:,}")
            print(f"{version.name:<14} soak: {', '.join(marks)} requests")
            print(
                f"{version.name:<14} left: {await redis.hlen(ledger.keys.open)} open, "
                f"{await redis.hlen(ledger.keys.held)} held, {await redis.zcard(ledger.keys.leases)} leases, "
                f"{await redis.hlen(ledger.keys.spent)} counters, {await redis.xlen(ledger.keys.journal):,} entries, "
                f"{await redis.dbsize()} keys"
            )


def report(version: RedisVersion, what: str, size: float) -> None:
    """Print one figure."""
    print(f"{version.name:<14} {what:<40} {size:7.0f} bytes")


def main() -> None:
    """Measure every version that is there."""
    for version in REDIS_VERSIONS:
        if version.program.exists():
            asyncio.run(measure(version))
    asyncio.run(soak(REDIS_VERSIONS[-1]))


if __name__ == "__main__":
    main()
