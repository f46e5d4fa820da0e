"""The stores that the contract runs over: a new one is one more line in OPENERS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from extauthz.ledger.base import Ledger
from extauthz.ledger.memory import MemoryLedger
from tests.support.ledger import SIGNING_KEY, Clock, ManualClock


@dataclass(frozen=True, slots=True)
class Store:
    """An empty ledger with the clock that it goes by."""

    ledger: Ledger
    clock: Clock


async def open_memory() -> Store:
    """Open the store in memory."""
    clock = ManualClock()
    return Store(MemoryLedger(clock.now_ms, SIGNING_KEY), clock)


OPENERS: dict[str, Callable[[], Awaitable[Store]]] = {"memory": open_memory}


@pytest.fixture(params=OPENERS)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Open each store in turn, empty, and close it afterwards."""
    opened = await OPENERS[request.param]()
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
