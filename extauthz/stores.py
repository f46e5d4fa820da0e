"""The store that a configuration names: opened, and refused where it would lose money; and who is kept beside books."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.directories.store.archive import Archive
from extauthz.directories.store.memory import MemoryRecords
from extauthz.directories.store.records import Records
from extauthz.directories.store.redis import RedisRecords
from extauthz.directories.store.registry import KEY_PREFIX, Registry
from extauthz.domain.budgets import Scope
from extauthz.errors import StoreRefusedError
from extauthz.ledger.base import Ledger
from extauthz.ledger.link import Server
from extauthz.ledger.memory import MemoryLedger
from extauthz.ledger.reading import StoredBooks
from extauthz.ledger.redis import RedisLedger, RedisOptions, StoreListener
from extauthz.ledger.shards import ShardedLedger, new_ledgers
from extauthz.telemetry.events import Telemetry

# How long the start waits for the store.
START_S = 5.0

SIGNING_KEY_BYTES = 32
# The randomness of a key that is made here.
KEY_BYTES = 32


@asynccontextmanager
async def opened_store(settings: Settings, listener: StoreListener) -> AsyncIterator[Ledger]:
    """Open the store that the configuration names.

    One that does not answer is no reason not to start: free models and open discovery need none. Raises
    StoreRefusedError for one that loses money.
    """
    if settings.store is None:
        yield MemoryLedger(clock_ms=_unix_ms, signing_key=secrets.token_bytes(SIGNING_KEY_BYTES))
        return
    shards = new_ledgers(
        settings.store,
        listener,
        shards=settings.shard_count,
        clock_s=time.monotonic,
        unix_ms=_unix_ms,
        chance=random.random,
        options=RedisOptions(
            float(settings.store_timeout_seconds), settings.tombstone_seconds, settings.journal_entries_max
        ),
    )
    store = shards[0] if len(shards) == 1 else ShardedLedger(shards)
    try:
        await store.open(START_S)
        for shard in shards:
            _refuse_forgetful(shard.link.server, settings)
        yield store
    finally:
        await store.close()


def books_of(store: Ledger) -> tuple[StoredBooks, ...]:
    """Give the books of a store that keeps a journal, one for each shard."""
    match store:
        case RedisLedger():
            return (store,)
        case ShardedLedger(shards=shards):
            return shards
        case _:
            return ()


def records_of(store: Ledger) -> Records:
    """Give the place of keys and payers beside the books: with the first shard's, or in memory where these are."""
    books = books_of(store)
    if not books:
        return MemoryRecords(_unix_ms)
    return RedisRecords(books[0].link, books[0].keys.tag, time.monotonic)


def new_registry(records: Records, configuration: Callable[[], Snapshot], telemetry: Telemetry) -> Registry:
    """Make who changes keys and payers."""

    def told(what: str, subject: str, who: str) -> None:
        telemetry.changed_by_hand(f"directory_{what}", subject, who)

    def listed(scope: Scope) -> bool:
        return configuration().directory.is_listed(scope)

    return Registry(Archive(records, told), listed=listed, new_key=_new_key, unix_s=time.time)


def _new_key() -> str:
    return f"{KEY_PREFIX}{secrets.token_urlsafe(KEY_BYTES)}"


def _refuse_forgetful(server: Server | None, settings: Settings) -> None:
    """Raise StoreRefusedError for a store that throws keys away."""
    if server is not None and server.may_evict and not settings.allow_eviction:
        raise StoreRefusedError(
            f"the store at {server.address} throws keys away when its memory is full "
            f"(maxmemory-policy {server.maxmemory_policy}), and budgets with them: set it to noeviction, "
            "or write allow_eviction: true"
        )


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
