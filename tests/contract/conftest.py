"""The stores that the contract runs over: a new one is one more line in STORES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import pytest
import pytest_asyncio

from extauthz.ledger.base import Ledger
from extauthz.ledger.memory import MemoryLedger
from tests.support.ledger import SIGNING_KEY, Clock, ManualClock, RealClock, redis_ledger, sharded_ledger
from tests.support.redis import REDIS_VERSIONS, RedisServer
from tests.support.redis_cluster import Cluster
from tests.support.redis_sentinel import Sentinels

SHARDS = 4


@dataclass(frozen=True, slots=True)
class Store:
    """An empty ledger with the clock that it goes by."""

    ledger: Ledger
    clock: Clock


class Running(Protocol):
    """Servers that run."""

    @property
    def url(self) -> str:
        """Where a ledger finds them."""
        ...


Start = Callable[[], AbstractAsyncContextManager[Running]]


@dataclass(slots=True)
class Servers:
    """The servers of the stores, each started when the first test needs it, and stopped after the last."""

    running: AsyncExitStack
    urls: dict[str, str] = field(default_factory=dict)

    async def url(self, name: str, start: Start) -> str:
        """Give the URL of a store's servers."""
        if name not in self.urls:
            self.urls[name] = (await self.running.enter_async_context(start())).url
        return self.urls[name]


@asynccontextmanager
async def open_memory(servers: Servers) -> AsyncIterator[Store]:
    """Open the store in memory."""
    clock = ManualClock()
    yield Store(MemoryLedger(clock.now_ms, SIGNING_KEY), clock)


@asynccontextmanager
async def open_redis(name: str, start: Start, servers: Servers) -> AsyncIterator[Store]:
    """Open a store on Redis, under a tag of its own."""
    async with redis_ledger(await servers.url(name, start)) as ledger:
        yield Store(ledger, RealClock())


@asynccontextmanager
async def open_shards(servers: Servers) -> AsyncIterator[Store]:
    """Open a store in shards on the Cluster, under tags of its own."""
    async with sharded_ledger(await servers.url("Cluster", Cluster), SHARDS) as ledger:
        yield Store(ledger, RealClock())


STORES: dict[str, Callable[[Servers], AbstractAsyncContextManager[Store]]] = {
    "memory": open_memory,
    **{
        version.name: partial(open_redis, version.name, partial(RedisServer, version, appendonly=False))
        for version in REDIS_VERSIONS
    },
    "Sentinel": partial(open_redis, "Sentinel", Sentinels),
    "Cluster": partial(open_redis, "Cluster", Cluster),
    "Cluster in shards": open_shards,
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers() -> AsyncIterator[Servers]:
    """Run the servers of the stores."""
    async with AsyncExitStack() as running:
        yield Servers(running)


@pytest_asyncio.fixture(loop_scope="session", params=STORES)
async def store(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Store]:
    """Open each store in turn, empty, and close it afterwards."""
    async with STORES[request.param](servers) as opened:
        yield opened
        await opened.ledger.close()


@pytest.fixture
def ledger(store: Store) -> Ledger:
    """Give the store's ledger."""
    return store.ledger


@pytest.fixture
def clock(store: Store) -> Clock:
    """Give the store's clock."""
    return store.clock
