"""Keys in a store that comes back without its last writes, or with none."""

from __future__ import annotations

import time

import pytest

from extauthz.directories.source import EVERYTHING_CHANGED, NOTHING_CHANGED
from extauthz.directories.store.records import Change, Edit, Outcome, Place, Table
from extauthz.directories.store.redis import RETOLD_S, RedisRecords
from extauthz.directories.store.source import StoreSource
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.inspection import BACK_SECONDS
from tests.support.ledger import redis_ledger
from tests.support.processes import eventually
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

HASTY = RedisOptions(timeout_s=0.5)
KEPT, GONE = Place(Table.TEAM, b"kept"), Place(Table.TEAM, b"gone")


def at(records: RedisRecords) -> StoreSource:
    """Look at records as a replica does."""
    return StoreSource(records, lambda _, __: None)


async def put_and_delete(records: RedisRecords) -> None:
    """Make a payer, and another that is deleted again."""
    for change_id, edit in (
        ("1", Edit(KEPT, b"{}", None)),
        ("2", Edit(GONE, b"{}", None)),
        ("3", Edit(GONE, None, b"{}")),
    ):
        assert Outcome.MADE is await records.change(Change(change_id, "ana", "put", ("team:kept",)), [edit])


async def lost(server: RedisServer, ledger: RedisLedger) -> None:
    """Have the server start anew with nothing."""
    await server.kill()

    async def missed() -> bool:
        try:
            await ledger.open_count()
        except StoreUnavailableError:
            return not ledger.link.up
        return False

    await eventually(missed, BACK_SECONDS, "the store is missed")
    await server.restart()
    await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is found")


@each_version
async def test_the_last_changes(version: RedisVersion) -> None:
    """A store that lost everything is told the changes of the last 30 s again, in their order."""
    async with RedisServer(version, appendonly=False) as server, redis_ledger(server.url, options=HASTY) as ledger:
        records = RedisRecords(ledger.link, ledger.keys.tag, time.monotonic)
        source = at(records)
        await source.changes()
        await put_and_delete(records)
        await source.changes()
        await lost(server, ledger)

        assert EVERYTHING_CHANGED == await source.changes()
        assert {KEPT: b"{}"} == await records.read([KEPT, GONE])
        assert ["1", "2", "3"] == [entry.change.id for entry in await records.entries("-", 10)]
        assert NOTHING_CHANGED == await source.changes()


@each_version
async def test_what_others_changed_since(version: RedisVersion) -> None:
    """What another has changed since stays as it is."""
    async with RedisServer(version, appendonly=False) as server, redis_ledger(server.url, options=HASTY) as ledger:
        records = RedisRecords(ledger.link, ledger.keys.tag, time.monotonic)
        await at(records).changes()
        await put_and_delete(records)
        await lost(server, ledger)
        other = RedisRecords(ledger.link, ledger.keys.tag, time.monotonic)
        await other.change(Change("4", "bo", "put"), [Edit(KEPT, b'{"max_budget":1}', None)])
        await at(records).changes()

        assert {KEPT: b'{"max_budget":1}'} == await records.read([KEPT, GONE])


async def test_older_changes() -> None:
    """What is older than that, before the last change, is not told again: another store may be meant to be empty."""
    now_s = 0.0
    async with RedisServer(appendonly=False) as server, redis_ledger(server.url, options=HASTY) as ledger:
        records = RedisRecords(ledger.link, ledger.keys.tag, lambda: now_s)
        await at(records).changes()
        await put_and_delete(records)
        now_s = RETOLD_S + 1
        await records.change(Change("4", "ana", "put"), [Edit(GONE, b"{}", None)])
        now_s = 1_000_000.0
        await lost(server, ledger)
        await at(records).changes()

        assert {GONE: b"{}"} == await records.read([KEPT, GONE])
