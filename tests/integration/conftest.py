"""A Redis of their own for the tests that ask for one; a test file that needs another kind has its own `server`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.support.redis import RedisServer


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """Run an empty server."""
    async with RedisServer(appendonly=False) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    """Open a client that may do everything by hand."""
    async with server.client() as opened:
        yield opened
