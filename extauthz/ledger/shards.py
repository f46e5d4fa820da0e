"""Books in shards: each organization's in one of several sets of keys, on a Cluster on several nodes.

Opt-in, for who needs more than one core of a store. Each shard is a ledger of its own, so a scope that several
organizations share (a user, an end user) has a budget in each; the global scope cannot have one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

from extauthz.domain.budgets import Counter, Scope, ScopeKind, Spent, Standing
from extauthz.domain.reservation import Hold, Lease, Note
from extauthz.ledger.base import (
    UNNOTED,
    Amendment,
    AmendmentKind,
    Audit,
    Balance,
    Ending,
    Expired,
    Ledger,
    OpenReservation,
    Promise,
    Reserve,
    ReserveResult,
    together,
)
from extauthz.ledger.pieces import first
from extauthz.ledger.reading import added_up, most_spent, read_counts
from extauthz.ledger.redis import RedisLedger, RedisOptions, StoreListener
from extauthz.ledger.url import StoreUrl


def new_ledgers(
    url: StoreUrl,
    listener: StoreListener,
    *,
    shards: int,
    clock_s: Callable[[], float],
    unix_ms: Callable[[], int],
    chance: Callable[[], float],
    options: RedisOptions,
) -> tuple[RedisLedger, ...]:
    """Make the ledgers of a store's books: one, or one for each shard, at the same place under tags of their own."""
    urls = [url] if shards == 1 else [replace(url, tag=f"{url.tag}.{number}") for number in range(shards)]
    return tuple(
        RedisLedger(one, listener, clock_s=clock_s, unix_ms=unix_ms, chance=chance, options=options, shards=shards)
        for one in urls
    )


class ShardedLedger(Ledger):
    """A Ledger over several; who has no organization shares one shard."""

    def __init__(self, shards: Sequence[RedisLedger]) -> None:
        self.shards = tuple(shards)

    def now_ms(self) -> int:
        """Tell the first shard's time; another's clock is at most a stale window away."""
        return self.shards[0].now_ms()

    def up(self) -> bool:
        """Tell whether all shards answer."""
        return all(shard.up() for shard in self.shards)

    def signing_key(self) -> bytes | None:
        """Give the first shard's key."""
        return self.shards[0].signing_key()

    def heard_ms(self) -> int:
        """Tell when an access log last told any shard of a stream."""
        return max(shard.heard_ms() for shard in self.shards)

    async def open(self, seconds_max: float) -> bool:
        """Begin to look for the store, and tell whether all shards were found within that time."""
        return all(await asyncio.gather(*(shard.open(seconds_max) for shard in self.shards)))

    async def close(self) -> None:
        """Let go of every shard."""
        for shard in self.shards:
            await shard.close()

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Hold the claims' amounts."""
        return await self._of_hold(request.hold).reserve(request)

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """End a reservation with what it used."""
        return await self._of_hold(hold).settle(hold, spent, note)

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation with no cost, in whichever shard it is."""
        endings = await asyncio.gather(
            *(shard.release(reservation_id, attempt=attempt, note=note) for shard in self.shards)
        )
        return next((ending for ending in (Ending.FIRST, Ending.REPEATED) if ending in endings), Ending.UNKNOWN)

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Start the lease anew."""
        return await self._of_hold(hold).renew(hold, lease)

    async def promise(self, promise: Promise) -> bool:
        """Remember a promise in the shard of its name: whoever asks for it knows nothing else."""
        return await self._of_name(promise.name).promise(promise)

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name."""
        return await self._of_name(name).promised(name)

    async def forget(self, name: str) -> None:
        """Forget a promise."""
        await self._of_name(name).forget(name)

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End at most `count_max` reservations of each shard whose lease has run out."""
        answers = await asyncio.gather(*(shard.expire(count_max) for shard in self.shards), return_exceptions=True)
        expired = tuple(one for answer in answers if not isinstance(answer, BaseException) for one in answer)
        failure = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        # What ended in one shard is told although another is away: it is told once.
        if failure is not None and not expired:
            raise failure
        return expired

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand, in every shard where the counter may be.

        An amount is imported once: to the organization's shard, or to that of those who have none.
        """
        scope = amendment.counter.scope
        if scope.kind is ScopeKind.ORGANIZATION or amendment.kind is AmendmentKind.IMPORT:
            return await self._of((scope,)).amend(amendment)
        return any(await asyncio.gather(*(shard.amend(amendment) for shard in self.shards)))

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell how counters stand for `payers`, or all together when nobody is named."""
        if payers:
            return await self._of(payers).standings(limits)
        by_shard = await asyncio.gather(*(shard.standings(limits) for shard in self.shards))
        return tuple(
            replace(
                alike[self._number(alike[0].counter.scope)],  # an organization's limit is changed in its shard alone
                spent=sum(standing.spent for standing in alike),
                held=sum(standing.held for standing in alike),
            )
            for alike in zip(*by_shard, strict=True)
        )

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List the most spent counters of all shards; one that is in several is added up."""
        # All of each: what is little in every shard may be much together.
        every = await asyncio.gather(*map(read_counts, self.shards))
        return await most_spent(await added_up(every), self.now_ms(), count_max)

    async def open_count(self) -> int:
        """Count the open reservations of all shards."""
        return sum(await asyncio.gather(*(shard.open_count() for shard in self.shards)))

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List the oldest reservations of all shards."""
        every = await asyncio.gather(*(shard.reservations(count_max) for shard in self.shards))
        found = [reservation for of_shard in every for reservation in of_shard]
        return tuple(await first(found, count_max, key=lambda one: (one.reserved_at_ms, one.id)))

    async def audit(self) -> Audit:
        """Compare the counters of every shard with its own journal and reservations."""
        return together(await asyncio.gather(*(shard.audit() for shard in self.shards)))

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Announce for all shards in the first."""
        return await self.shards[0].announce(name, ttl_ms)

    def _of_hold(self, hold: Hold) -> RedisLedger:
        return self._of([counter.scope for counter in hold.counters])

    def _of_name(self, name: str) -> RedisLedger:
        return self.shards[crc32(name.encode()) % len(self.shards)]

    def _of(self, payers: Sequence[Scope]) -> RedisLedger:
        return self.shards[self._number(*payers)]

    def _number(self, *payers: Scope) -> int:
        organization = next((str(scope) for scope in payers if scope.kind is ScopeKind.ORGANIZATION), "")
        return crc32(organization.encode()) % len(self.shards)
