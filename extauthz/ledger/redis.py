"""The ledger on Redis: one Lua script for each verb, one round trip for each call, shared by all who call together.

keys.py says what stands where, `scripts/` what happens there, link.py what happens while the store is away. Of money
nothing is kept here but, for a second, who has none (refusals.py). Whatever was not acknowledged raises
StoreUnavailableError, and may have been carried out.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis

from extauthz.domain.budgets import Counter, Scope, Spent, Standing
from extauthz.domain.reservation import Hold, Lease, Note
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.amounts import from_word
from extauthz.ledger.audit import Auditor
from extauthz.ledger.base import (
    PROMISE_BYTES_MAX,
    TOMBSTONE_SECONDS,
    UNNOTED,
    Amendment,
    Audit,
    Balance,
    Ending,
    Expired,
    Ledger,
    OpenReservation,
    Promise,
    Refused,
    Release,
    Reserve,
    Reserved,
    ReserveResult,
)
from extauthz.ledger.batches import Batches
from extauthz.ledger.items import (
    amend_item,
    promise_item,
    renew_item,
    repeated_item,
    reserve_item,
    reserve_result,
    settle_item,
    standings_item,
)
from extauthz.ledger.keys import ENDED_GENERATIONS, VERSION, Keys
from extauthz.ledger.link import Link, LinkListener
from extauthz.ledger.pieces import chunks
from extauthz.ledger.primary import text
from extauthz.ledger.reading import most_spent, read_counts, read_reservations
from extauthz.ledger.refusals import KEPT_S_MAX, Refusals
from extauthz.ledger.retelling import Granted, Memory, Renewed, Settled, Told
from extauthz.ledger.script import script
from extauthz.ledger.url import StoreUrl

RESERVE, SETTLE, RELEASE, RENEW, EXPIRE, STANDINGS, AMEND, PROBE = tuple(
    map(script, ("reserve", "settle", "release", "renew", "expire", "standings", "amend", "probe"))
)
PROMISE, PROMISED, FORGET = tuple(map(script, ("promise", "promised", "forget")))
SCRIPTS = (RESERVE, SETTLE, RELEASE, RENEW, EXPIRE, STANDINGS, AMEND, PROBE, PROMISE, PROMISED, FORGET)

SIGNING_KEY_BYTES = 32

# A release that comes before its reserve stops it for one to two of these; no reserve is on its way for so long.
WITHDRAWN_MS = 60_000

# Cleaning up in one call of expire, which every replica makes ten times a second.
FOLDED_MAX = 500
DROPPED_MAX = 100

# Counters that one call of standings looks at: some 2 ms of one core of the store, which serves others in between.
STANDINGS_MAX = 500

# Verbs told to a successor at once.
REPLAYED_AT_ONCE = 256
# Between tries to tell what it did not acknowledge, and the most of them, while it is there.
REPLAY_DELAY_S = 0.2
REPLAY_FAILURES_MAX = 150


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How the books are kept: how long endings are remembered, and how many entries the journal has before trimming.

    Who only looks at books (`keeps_books` False) begins none, and needs no rights to change them. For `refusal_s` an
    exhausted counter refuses without the store.
    """

    timeout_s: float = 0.25
    tombstone_seconds: int = TOMBSTONE_SECONDS
    journal_entries_max: int = 100_000
    keeps_books: bool = True
    refusal_s: float = KEPT_S_MAX


class StoreListener(LinkListener, Protocol):
    """Hears of what happens between this process and the store."""

    def store_replayed(self, count: int, lost: int) -> None:
        """Hear that a successor was told so many verbs, and how many of them it had not known."""
        ...


class RedisLedger(Ledger):
    """A Ledger on Redis 6.2 or newer, or Valkey. `open` it before use, and `close` it."""

    def __init__(
        self,
        url: StoreUrl,
        listener: StoreListener,
        *,
        clock_s: Callable[[], float],
        unix_ms: Callable[[], int],
        chance: Callable[[], float],
        options: RedisOptions = RedisOptions(),
        shards: int = 1,
    ) -> None:
        self.keys = Keys(url.tag)
        self.link = Link(
            url,
            SCRIPTS,
            listener,
            timeout_s=options.timeout_s,
            prepare=self._prepare,
            found=self._found_anew,
            chance=chance,
        )
        self._listener = listener
        self._clock_s = clock_s
        self._options = options
        self._layout = VERSION if shards == 1 else f"{VERSION} in {shards} shards"
        self.retention_ms = options.tombstone_seconds * 1000
        self._batches = Batches(self.link, self.keys.all, self.retention_ms, self._learn)
        # The store's time, by this process' steady clock: a wall clock that is put right moves no window.
        self._offset_ms = unix_ms() - self._steady_ms()
        self._signing_key: bytes | None = None
        self._memory = Memory(clock_s)
        self._refusals = Refusals(clock_s, options.refusal_s)
        self._heard_ms = 0
        self._untold: tuple[Told, ...] = ()
        self._replaying: asyncio.Task[None] | None = None

    async def open(self, seconds_max: float) -> bool:
        """Begin to look for the store, and tell whether it was found within that time; the search goes on."""
        return await self.link.open(seconds_max)

    async def close(self) -> None:
        """Let go of the store."""
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.gather(self._replaying, return_exceptions=True)
        await self._batches.close()
        await self.link.close()

    def now_ms(self) -> int:
        """Tell the store's time."""
        return self._steady_ms() + self._offset_ms

    def up(self) -> bool:
        """Tell whether the store answers."""
        return self.link.up

    def signing_key(self) -> bytes | None:
        """Give the key that holds are signed with, None while the store was never reached."""
        return self._signing_key

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Hold the claims' amounts, all or nothing."""
        if (refused := self._refusals.find(request.claims)) is not None:
            return refused
        item, asked_s = reserve_item(request), self._clock_s()
        answer = await self._batches.call(RESERVE, item)
        result = reserve_result(answer, request, self.now_ms())
        if isinstance(result, Reserved):
            self._memory.keep(Granted(item, tuple(answer[2:])))
        elif isinstance(result, Refused):
            self._refusals.keep(result, request.claims, asked_s)
        return result

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """End a reservation with what it used."""
        item = settle_item(hold, spent, note)
        answer = await self._batches.call(SETTLE, item)
        self._memory.keep(Settled(item))
        ending = Ending(text(answer))
        if ending is Ending.LATE:  # what its lease had booked may have been more
            self._refusals.clear()
        return ending

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation, or with `attempt` that Check's claim on it, with no cost."""
        answer = await self._batches.call(RELEASE, (reservation_id, attempt or "", note.signal))
        self._memory.keep(Release(reservation_id, attempt, note))
        return Ending(text(answer))

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Start the lease anew; False when the reservation is not held."""
        item = renew_item(hold, lease)
        renewed: bool = await self._batches.call(RENEW, item) == 1
        if renewed:
            self._memory.keep(Renewed(item))
        return renewed

    async def promise(self, promise: Promise) -> bool:
        """Remember a promise, and tell whether it is."""
        if len(promise.hold) > PROMISE_BYTES_MAX:
            return False
        remembered = bool(await self._batches.call(PROMISE, promise_item(promise)))
        if remembered:
            self._memory.keep(promise)
        return remembered

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name."""
        return text(await self._batches.call(PROMISED, (name,))) or None

    async def forget(self, name: str) -> None:
        """Forget a promise."""
        await self._batches.call(FORGET, (name,))

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End at most `count_max` reservations whose lease has run out, the oldest first, and clean up a little."""
        item = (
            count_max,
            self._options.journal_entries_max,
            FOLDED_MAX,
            DROPPED_MAX,
            self.retention_ms // (ENDED_GENERATIONS - 1),
            WITHDRAWN_MS,
            self.retention_ms,
        )
        answer = await self._batches.call(EXPIRE, tuple(map(str, item)))
        self._heard_ms, *expired = answer
        ended = zip(map(text, expired[::2]), map(text, expired[1::2]), strict=True)
        return tuple(Expired(id_, from_word(word)) for id_, word in ended)

    def heard_ms(self) -> int:
        """Tell when an access log last told any process on this store of a stream."""
        return self._heard_ms

    async def standings(
        self,
        limits: Sequence[tuple[Counter, int]],
        *,
        payers: Sequence[Scope] = (),  # noqa: ARG002 - all books are here
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against limits, in the order asked."""
        standings: list[Standing] = []
        for piece in chunks(limits, STANDINGS_MAX):
            answer = iter(await self._batches.call(STANDINGS, standings_item(piece)))
            standings += (
                Standing(counter, int(limit), int(spent), int(held))
                for (counter, _), limit, spent, held in zip(piece, answer, answer, answer, strict=True)
            )
        return tuple(standings)

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand; False when this was done already."""
        answer = await self._batches.call(AMEND, amend_item(amendment))
        self._memory.keep(amendment)
        self._refusals.clear()
        return bool(answer == 1)

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List at most `count_max` counters of current windows, or with money held, the most spent first."""
        return await most_spent(await read_counts(self), self.now_ms(), count_max)

    async def open_count(self) -> int:
        """Count the open reservations."""
        return int(await self.link.ask("ZCARD", self.keys.leases))

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List at most `count_max` open reservations, the oldest first."""
        return await read_reservations(self, count_max)

    async def audit(self) -> Audit:
        """Compare every counter with the journal and the open reservations."""
        return await Auditor(self).audit()

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Tell whether this is the first call with `name`, of all processes on the store, for `ttl_ms`."""
        return bool(await self.link.ask("SET", self.keys.announced(name), "", "NX", "PX", ttl_ms))

    async def _prepare(self, client: Redis) -> None:
        """Agree with the store on rights, key and layout, before anything else is said to it."""
        seconds, microseconds = await client.time()
        self._learn(int(seconds) * 1000 + int(microseconds) // 1000)
        signing_key, version = await client.hmget(self.keys.meta, "signing_key", "version")
        if self._options.keeps_books:
            probed = (*self.keys.all, *self.keys.probes)
            await client.evalsha(PROBE.sha, len(probed), *probed, str(self.retention_ms), "0")
            if signing_key is None or version is None:
                signing_key, version = await self._begin(client)
        if version is not None and text(version) != self._layout:
            raise StoreUnavailableError(
                f"the books under {{{self.keys.tag}}} are of version {text(version)}, "
                f"and this program is to keep them in version {self._layout}"
            )
        if signing_key is not None:
            self._signing_key = bytes.fromhex(text(signing_key))

    async def _begin(self, client: Redis) -> tuple[bytes, bytes]:
        """Begin the books, unless somebody else just did; a server that is full must be asked for no more than that."""
        # A store that lost everything gets our key back, so that what is on its way can still be booked.
        key = (self._signing_key or secrets.token_bytes(SIGNING_KEY_BYTES)).hex()
        pipeline = client.pipeline(transaction=True)
        pipeline.hsetnx(self.keys.meta, "signing_key", key)
        pipeline.hsetnx(self.keys.meta, "version", self._layout)
        pipeline.hsetnx(self.keys.meta, "began_at", str(self.now_ms()))
        pipeline.hmget(self.keys.meta, "signing_key", "version")
        *_, (signing_key, version) = await pipeline.execute()
        return signing_key, version

    def _found_anew(self) -> None:
        """Tell a successor what its predecessor may have taken with it: its last seconds, however long ago that was."""
        self._refusals.clear()
        self._untold = self._memory.recall(self._memory.latest_s)
        if self._replaying is None or self._replaying.done():
            self._replaying = asyncio.get_running_loop().create_task(self._replay())

    async def _replay(self) -> None:
        """Tell all of it; what the successor did not acknowledge is told again."""
        count = lost = failures = 0
        while self._untold and failures < REPLAY_FAILURES_MAX:
            told, self._untold = self._untold[:REPLAYED_AT_ONCE], self._untold[REPLAYED_AT_ONCE:]
            # Reservations first, for only then they can be renewed.
            reserves = [verb for verb in told if isinstance(verb, Granted)]
            others = [verb for verb in told if not isinstance(verb, Granted)]
            answers = [
                *await asyncio.gather(*map(self._repeat, reserves), return_exceptions=True),
                *await asyncio.gather(*map(self._repeat, others), return_exceptions=True),
            ]
            asked = zip((*reserves, *others), answers, strict=True)
            failed = tuple(verb for verb, answer in asked if isinstance(answer, BaseException))
            count += len(told) - len(failed)
            lost += sum(answer is True for answer in answers)
            if failed:
                failures += 1
                self._untold += failed
                await asyncio.sleep(REPLAY_DELAY_S)
                await self.link.wait()
        self._listener.store_replayed(count, lost)

    async def _repeat(self, told: Told) -> bool:
        """Carry out a verb again, and tell whether the store had forgotten it."""
        match told:
            case Granted(item, amounts):
                before = await self._batches.call(RESERVE, repeated_item(item, amounts))
                return text(before[0]) == "reserved"
            case Settled(item):
                return text(await self._batches.call(SETTLE, item)) != "repeated"
            case Release(id_, attempt, note):
                answer = await self._batches.call(RELEASE, (id_, attempt or "", note.signal))
                return text(answer) != "repeated"
            case Amendment():
                return await self.amend(told)
            case Promise():
                await self._batches.call(PROMISE, promise_item(told))
                return False
            case Renewed(item):
                await self._batches.call(RENEW, item)
                return False

    def _learn(self, store_ms: int) -> None:
        self._offset_ms = store_ms - self._steady_ms()

    def _steady_ms(self) -> int:
        return int(self._clock_s() * 1000)
