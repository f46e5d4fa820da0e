"""What a test sees that looks into a ledger's Redis by itself, and callers that do not give up."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis

from extauthz.domain.budgets import Spent
from extauthz.domain.reservation import Claim, Lease
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import AlreadyEnded, Expired, Ledger, Reserve, Reserved
from extauthz.ledger.keys import Keys
from tests.support.ledger import RealClock, a_counter, a_reserve
from tests.support.processes import eventually
from tests.support.redis import RedisServer

SCRIPTS = ("evalsha", "eval")
RETRY_SECONDS = 0.01

TEAM = a_counter("research")
HUNDRED = Claim(TEAM, limit=1000, amount=100)
LONG = Lease(lease_ms=60_000, spent=Spent(30))
SHORT = Lease(lease_ms=1, spent=Spent(30))

T = TypeVar("T")

# A store that is well again is found within this.
BACK_SECONDS = 1.0


def ask(name: str, *claims: Claim, lease: Lease = LONG) -> Reserve:
    """Ask for a reservation made now, of a hundred unless claims are given."""
    return a_reserve(name, *(claims or (HUNDRED,)), reserved_at_ms=RealClock().now_ms(), lease=lease)


async def expired(ledger: Ledger, count_max: int = 10) -> tuple[Expired, ...]:
    """Wait until something expires, and give that."""
    return await eventually(lambda: ledger.expire(count_max), what="a lease has run out")


async def calls(server: RedisServer, *commands: str) -> int:
    """Count the calls that a server has had of some commands, by default of scripts."""
    async with server.client() as redis:
        told = await redis.info("commandstats")
    return sum(told.get(f"cmdstat_{command}", {}).get("calls", 0) for command in commands or SCRIPTS)


async def journal(redis: Redis, keys: Keys) -> list[dict[str, str]]:
    """Read the journal's entries."""
    entries: Any = await redis.xrange(keys.journal)
    return [fields for _, fields in entries]


async def explained(redis: Redis, keys: Keys) -> dict[str, int]:
    """Add up what the checkpoint and the journal say that is spent on each counter; nothing is left out."""
    sums: dict[str, int] = defaultdict(int)
    checkpoint: Any = await redis.hgetall(keys.checkpoint)
    for counter, amount in checkpoint.items():
        sums[counter] += int(amount)
    for entry in await journal(redis, keys):
        for counter in entry["counters"].split():
            sums[counter] += int(entry["booked"])
    return {counter: amount for counter, amount in sums.items() if amount}


async def spent(redis: Redis, keys: Keys) -> dict[str, int]:
    """Read what is spent on each counter; nothing is left out."""
    amounts: Any = await redis.hgetall(keys.spent)
    return {counter: int(amount) for counter, amount in amounts.items() if amount != "0"}


async def insist(verb: Callable[[], Awaitable[T]]) -> T:
    """Carry out a verb again and again until the store acknowledges it, as whoever has an ending to tell does."""
    while True:
        try:
            return await verb()
        except StoreUnavailableError:
            await asyncio.sleep(RETRY_SECONDS)


async def live(ledger: Ledger, requests: Iterable[Reserve], cost_nanousd: int) -> int:
    """Reserve and settle one request after the other, each until the store acknowledges it, and count them."""
    count = 0
    for request in requests:
        reserved = await insist(partial(ledger.reserve, request))
        assert isinstance(reserved, Reserved | AlreadyEnded), reserved
        await insist(partial(ledger.settle, request.hold, Spent(cost_nanousd)))
        count += 1
    return count
