"""Keys in a Redis whose user has the least rights."""

from __future__ import annotations

import time
from itertools import count

import pytest

from extauthz.directories.source import EVERYTHING_CHANGED
from extauthz.directories.store.archive import Archive, Author
from extauthz.directories.store.listing import PayerQuery, page
from extauthz.directories.store.redis import RedisRecords
from extauthz.directories.store.registry import Registry
from extauthz.directories.store.source import StoreSource
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Reserved
from extauthz.ledger.redis import RedisLedger
from tests.integration.test_redis_access import HASTY, LEAST
from tests.support.inspection import ask
from tests.support.ledger import Listener, redis_ledger
from tests.support.processes import LOOPBACK
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

# What `directory: store` needs besides the books.
MORE = "+zscore +zremrangebyrank +xrevrange"
TEAM = Scope(ScopeKind.TEAM, ("research",))


def registry(ledger: RedisLedger) -> Registry:
    """Change keys beside the books."""
    numbers = count()
    return Registry(
        Archive(RedisRecords(ledger.link, ledger.keys.tag, time.monotonic), lambda _what, _whom, _who: None),
        listed=lambda _: False,
        new_key=lambda: f"sk-{next(numbers)}",
        unix_s=lambda: 0.0,
    )


async def everything(ledger: RedisLedger) -> None:
    """Make every call that there is."""
    changing, source = (
        registry(ledger),
        StoreSource(RedisRecords(ledger.link, ledger.keys.tag, time.monotonic), lambda _, __: None),
    )
    await changing.put(TEAM, {}, Author("ana", "1"))
    await changing.create({"key_alias": "a", "team": "research"}, Author("ana", "2"))
    assert not (await changing.create({}, Author("ana", "2"))).changed
    for number in range(2):
        # The keys that were replaced ended long ago, so the next change drops them.
        await changing.rotate("a", 60, Author("ana", f"3-{number}"))
    await changing.block("a", Author("ana", "4"), blocked=True)
    await changing.revoke("a", Author("ana", "5"))
    assert [TEAM] == [record.scope for record in (await page(changing.records, PayerQuery((ScopeKind.TEAM,)))).records]
    assert EVERYTHING_CHANGED == await source.changes()
    await changing.delete(TEAM, Author("ana", "6"))
    assert await source.changes()
    assert {} == await source.fetch([TEAM, Scope(ScopeKind.USER, ("ana",))])


@each_version
async def test_the_least(version: RedisVersion) -> None:
    """With a few rights more than the books need, everything works."""
    user = f"user extauthz on >secret {LEAST} {MORE}"
    listener = Listener()
    async with RedisServer(version, options=(user,)) as server, server.client() as redis:
        url = f"redis://extauthz:secret@{LOOPBACK}:{server.port}"
        async with redis_ledger(url, listener, HASTY, tag="extauthz") as ledger:
            await everything(ledger)
        denied = {entry["object"] for entry in await redis.acl_log()}

    assert [] == listener.lost
    assert denied <= {"client|setinfo", "client", "config|get", "config"}


@each_version
@pytest.mark.parametrize("right", ["zscore", "zremrangebyrank"])
async def test_a_right_that_is_missing(version: RedisVersion, right: str) -> None:
    """Without one of them a change fails, and says which; the books are served on."""
    user = f"user extauthz on >secret {LEAST} {MORE} -{right}"
    listener = Listener()
    async with RedisServer(version, options=(user,)) as server:
        url = f"redis://extauthz:secret@{LOOPBACK}:{server.port}"
        async with redis_ledger(url, listener, HASTY, tag="extauthz") as ledger:
            with pytest.raises(StoreUnavailableError, match=right):
                await registry(ledger).put(TEAM, {}, Author("ana", "1"))

            assert Reserved(900) == await ledger.reserve(ask("r"))
    assert [] == listener.lost
