"""A Redis cluster of three primaries, formed as redis-cli forms one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import pairwise
from types import TracebackType
from typing import Self

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.support.processes import LOOPBACK, START_SECONDS, eventually
from tests.support.redis import NEWEST_REDIS, RedisServer, RedisVersion
from tests.support.tls import Certificates

PRIMARIES = 3
NODE_TIMEOUT_MS = 1_000


class Cluster:
    """Three servers without replicas that share all slots, each of which says so when the `async with` block begins.

    Each may be killed, paused and restarted. While one is dead for longer than NODE_TIMEOUT_MS the others refuse
    everything, unless `options` say `cluster-require-full-coverage no`.
    """

    def __init__(
        self,
        version: RedisVersion = NEWEST_REDIS,
        *,
        appendonly: bool = True,
        options: Iterable[str] = (),
        tls: Certificates | None = None,
    ) -> None:
        lines = (
            "cluster-enabled yes",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            f"cluster-announce-ip {LOOPBACK}",
            *(() if tls is None else ("tls-cluster yes",)),
            *options,
        )
        self.servers = tuple(
            RedisServer(version, appendonly=appendonly, options=lines, tls=tls) for _ in range(PRIMARIES)
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for server in self.servers:
                await stack.enter_async_context(server)
            await self._form()
            await self.ready()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Where clients begin."""
        scheme = "redis+cluster" if self.servers[0].tls is None else "rediss+cluster"
        return f"{scheme}://{','.join(f'{LOOPBACK}:{server.port}' for server in self.servers)}"

    def server_of(self, key: str) -> RedisServer:
        """Give the server that keeps a key."""
        slot = key_slot(key.encode())
        return next(server for server, slots in zip(self.servers, _shares(), strict=True) if slot in slots)

    async def ready(self) -> None:
        """Wait until every server says that all slots are served and that it knows the others."""
        await eventually(self._all_ok, START_SECONDS, "every server says that the cluster is ok")

    async def _form(self) -> None:
        first, *others = self.servers
        for epoch, (server, slots) in enumerate(zip(self.servers, _shares(), strict=True), start=1):
            async with server.client() as redis:
                await redis.execute_command("CLUSTER ADDSLOTS", *slots)  # ADDSLOTSRANGE is unknown to Redis 6.2
                await redis.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)  # else each fights for one of its own
        async with first.client() as redis:
            for other in others:
                await redis.execute_command("CLUSTER MEET", LOOPBACK, other.port)

    async def _all_ok(self) -> bool:
        return all(await asyncio.gather(*(_is_ok(server) for server in self.servers)))


def _shares() -> list[range]:
    """Give each server's slots."""
    bounds = [REDIS_CLUSTER_HASH_SLOTS * part // PRIMARIES for part in range(PRIMARIES + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]


async def _is_ok(server: RedisServer) -> bool:
    async with server.client() as redis:
        info: dict[str, str] = await redis.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == PRIMARIES
