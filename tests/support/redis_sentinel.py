"""A primary, its replica, and three sentinels that say which of the two is the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.support.processes import LOOPBACK, eventually
from tests.support.redis import NEWEST_REDIS, REDIS_6, TESTER, RedisServer, RedisVersion, Server
from tests.support.tls import Certificates

NAME = "budgets"
SENTINELS = 3
QUORUM = 2
# What an election that nobody won waits for, twice, before the next.
FAILOVER_TIMEOUT_MS = 2_000
# The sentinels of Redis 6.2 ask a demoted primary every ten seconds only.
FAIL_OVER_SECONDS = 40.0
# From Redis 7 on, sentinels can be told to look more often than every one, two and ten seconds, but it does not do to
# overdo it: a failover looks every second for its success, and who finds two primaries for four publish periods demotes
# one, be it the one just promoted; and none is fit to be promoted that was silent for three info or five ping periods.
HASTE = ("ping-period", 300, "ask-period", 100, "info-period", 1_000, "publish-period", 750)
# A promotion cuts the sentinels' own connections; until the next is made and a ping answered, two periods may pass.
DOWN_AFTER_MS = 1_000
DOWN_AFTER_WITHOUT_HASTE_MS = 3_000


class Sentinel(Server):
    """One sentinel that watches a server under NAME."""

    def __init__(self, watched: RedisServer) -> None:
        self._hasty = watched.version is not REDIS_6
        down_after_ms = DOWN_AFTER_MS if self._hasty else DOWN_AFTER_WITHOUT_HASTE_MS
        lines = (
            f"sentinel monitor {NAME} {LOOPBACK} {watched.port} {QUORUM}",
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}",
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}",
            f"sentinel auth-user {NAME} {TESTER}",
            f"sentinel auth-pass {NAME} any",
        )
        super().__init__(watched.version, lines, arguments=["--sentinel"], tls=watched.tls)

    async def restart(self) -> None:
        """Start it, and make it look often if it can be made to."""
        await super().restart()
        if self._hasty:
            async with self.client() as redis:
                await redis.execute_command("SENTINEL DEBUG", *HASTE)

    async def primary_port(self, others: int = 0) -> int | None:
        """Give the port of the server that it calls the primary, when it sees the replica and so many other sentinels.

        None when it does not, or does not answer.
        """
        async with self.client(seconds=1) as redis:
            try:
                states: dict[str, dict[str, Any]] = await redis.execute_command("SENTINEL MASTERS")
            except (RedisConnectionError, RedisTimeoutError):
                return None
        state = states[NAME]
        seen = state["num-slaves"] >= 1 and state["num-other-sentinels"] >= others
        return int(state["port"]) if seen else None


class Sentinels:
    """Two servers and the sentinels that rule them, all in agreement when the `async with` block begins.

    The first server is the primary then. Each server and each sentinel may be killed, paused and restarted. After a
    failover the old primary, if it lives or comes back, takes writes until the sentinels demote it and they are lost:
    for about four seconds, with Redis 6.2 for about ten. Whom they demote loses all its connections.
    """

    def __init__(
        self,
        version: RedisVersion = NEWEST_REDIS,
        *,
        appendonly: bool = True,
        options: Iterable[str] = (),
        tls: Certificates | None = None,
    ) -> None:
        # Each may become the other's replica; `tester` may do that under any password that `options` ask of clients.
        both = (*options, f"masteruser {TESTER}", "masterauth any")
        first = RedisServer(version, appendonly=appendonly, options=both, tls=tls)
        follows = f"replicaof {LOOPBACK} {first.port}"
        self.servers = (first, RedisServer(version, appendonly=appendonly, options=(*both, follows), tls=tls))
        self.sentinels = tuple(Sentinel(first) for _ in range(SENTINELS))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for server in self.servers:
                await stack.enter_async_context(server)
            await eventually(partial(_follows, *self.servers), what="the replica is in sync")
            for sentinel in self.sentinels:
                await stack.enter_async_context(sentinel)
            await eventually(self._all_agree, what="the sentinels know each other and the replica")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Where clients ask for the primary."""
        scheme = "redis+sentinel" if self.servers[0].tls is None else "rediss+sentinel"
        return f"{scheme}://{','.join(f'{LOOPBACK}:{sentinel.port}' for sentinel in self.sentinels)}/{NAME}"

    async def primary(self) -> RedisServer:
        """Give the server that every sentinel that runs calls the primary, as soon as they agree."""
        server = await eventually(self._agreed, FAIL_OVER_SECONDS, "the sentinels agree about the primary")
        assert server is not None
        return server

    async def replica(self) -> RedisServer:
        """Give the other one."""
        return self._other(await self.primary())

    async def fail_over(self) -> RedisServer:
        """Make the replica the primary, although the primary is well, and give it when it takes writes.

        Waits for the replica to be one and in sync: sentinels do not, and would promote a primary not yet demoted.
        """
        before = await eventually(self._replicated, FAIL_OVER_SECONDS, "the replica is in sync")
        assert before is not None
        after = self._other(before)

        async def moved() -> bool:
            """Order again whenever the sentinels are back where they began: they may undo a failover that was slow."""
            await self._order(before)
            return await self._leads(after)

        await eventually(moved, FAIL_OVER_SECONDS, "the replica has become the primary as ordered")
        return after

    async def moved_from(self, before: RedisServer) -> RedisServer:
        """Wait until the sentinels agree that the other server than `before` is the primary, and it takes writes."""
        after = self._other(before)
        await eventually(partial(self._leads, after), FAIL_OVER_SECONDS, "the replica has become the primary")
        return after

    def _other(self, server: RedisServer) -> RedisServer:
        first, second = self.servers
        return second if server is first else first

    async def _all_agree(self) -> bool:
        ports = await asyncio.gather(*(sentinel.primary_port(SENTINELS - 1) for sentinel in self.sentinels))
        return set(ports) == {self.servers[0].port}

    async def _agreed(self) -> RedisServer | None:
        asked = [sentinel for sentinel in self.sentinels if sentinel.running]
        ports = set(await asyncio.gather(*(sentinel.primary_port() for sentinel in asked)))
        return next((server for server in self.servers if {server.port} == ports), None)

    async def _replicated(self) -> RedisServer | None:
        """Give the primary that they agree about, when its replica has all that it has."""
        primary = await self._agreed()
        return primary if primary is not None and await _follows(primary, self._other(primary)) else None

    async def _leads(self, server: RedisServer) -> bool:
        """Tell whether the sentinels agree that this server is the primary, and it says so too."""
        return await self._agreed() is server and await _role(server) == "master"

    async def _order(self, before: RedisServer) -> None:
        """Order a sentinel to fail over, if it still calls `before` the primary."""
        sentinel = next(sentinel for sentinel in self.sentinels if sentinel.running)
        if await sentinel.primary_port() != before.port:
            return
        async with sentinel.client() as redis:
            with suppress(ResponseError):  # it is at it, or knows of no replica that is fit
                await redis.sentinel_failover(NAME)


async def _follows(primary: RedisServer, replica: RedisServer) -> bool:
    """Tell whether the replica has all that the primary has; not, if a demotion cuts the connection that asks."""
    async with primary.client() as ours, replica.client() as theirs:
        try:
            state = await theirs.info("replication")
            linked = state["role"] == "slave" and state["master_link_status"] == "up"
            return linked and await ours.wait(1, 100) == 1
        except RedisConnectionError:
            return False


async def _role(server: RedisServer) -> str:
    async with server.client() as redis:
        return str((await redis.info("replication"))["role"])
