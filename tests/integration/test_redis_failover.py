"""The ledger on a Redis that stands still, dies, loses replies or is no primary any more, and how it finds it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.crc import key_slot

from extauthz.domain.budgets import Spent
from extauthz.domain.reservation import Claim, State
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import AlreadyEnded, Balance, Ending, Reserved
from extauthz.ledger.link import FAILURES_MAX
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.inspection import (
    BACK_SECONDS,
    HUNDRED,
    LONG,
    SHORT,
    TEAM,
    ask,
    calls,
    explained,
    insist,
    live,
    spent,
)
from tests.support.ledger import Listener, a_reserve, balance, redis_ledger
from tests.support.processes import LOOPBACK, eventually
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.redis_cluster import Cluster
from tests.support.redis_proxy import DroppingProxy
from tests.support.redis_sentinel import Sentinels

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

# Long enough for a busy machine to answer, and short enough to wait for.
TIMEOUT_S = 0.5
HASTY = RedisOptions(timeout_s=TIMEOUT_S)
UNLIMITED = Claim(TEAM, limit=None, amount=100)


@pytest.fixture
def listener() -> Listener:
    """Give a listener that keeps what it hears."""
    return Listener()


async def fails(ledger: RedisLedger) -> bool:
    """Tell whether a call fails now."""
    try:
        await ledger.expire(1)
    except StoreUnavailableError:
        return True
    return False


async def lost(ledger: RedisLedger) -> bool:
    """Call, and tell whether the store counts as lost."""
    return await fails(ledger) and not ledger.link.up


class TestPrimary:
    """Writes go to whoever is the primary."""

    @each_version
    async def test_demoted(self, version: RedisVersion, listener: Listener) -> None:
        """A primary that becomes a replica is lost at once, and one again it is told what the other made it forget."""
        async with (
            RedisServer(version) as server,
            RedisServer(version) as other,
            server.client() as redis,
            redis_ledger(server.url, listener, HASTY) as ledger,
        ):
            await ledger.reserve(ask("open"))
            key = ledger.signing_key()
            await redis.replicaof(LOOPBACK, other.port)
            failed = await fails(ledger)
            up = ledger.link.up
            await eventually(lambda: following(server), what="it has taken over the other's data, which is none")
            with pytest.raises(StoreUnavailableError):
                await ledger.settle(ask("open").hold, Spent(70))
            await redis.replicaof("NO", "ONE")
            await eventually(lambda: ledger.link.up and listener.replayed, BACK_SECONDS, "the store is back, and knows")

            assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)
            assert key == bytes.fromhex(str(await redis.hget(ledger.keys.meta, "signing_key")))
        assert failed
        assert not up
        assert [(1, 1)] == listener.replayed
        assert any("READONLY" in reason or "read only" in reason for reason in listener.lost)

    @each_version
    async def test_sentinels_fail_over(self, version: RedisVersion, listener: Listener) -> None:
        """While verbs go on the sentinels choose another: what was acknowledged is booked there, once."""
        async with Sentinels(version) as sentinels, redis_ledger(sentinels.url, listener, HASTY) as ledger:
            await self.verbs_go_on(ledger, sentinels.fail_over)
            async with (await sentinels.primary()).client() as redis:
                assert {TEAM.key: ledger_spent(await balance(ledger, TEAM))} == await explained(redis, ledger.keys)
        assert listener.replayed

    async def test_the_primary_is_killed(self, listener: Listener) -> None:
        """The same when it dies: the replica that the sentinels promote is told what it may have missed."""
        async with Sentinels() as sentinels, redis_ledger(sentinels.url, listener, HASTY) as ledger:
            before = await sentinels.primary()

            async def kill() -> RedisServer:
                await before.kill()
                return await sentinels.moved_from(before)

            await self.verbs_go_on(ledger, kill)
            async with (await sentinels.primary()).client() as redis:
                assert {TEAM.key: ledger_spent(await balance(ledger, TEAM))} == await explained(redis, ledger.keys)
        assert listener.replayed

    async def verbs_go_on(self, ledger: RedisLedger, fail_over: Callable[[], Awaitable[RedisServer]]) -> None:
        """Reserve and settle in several places at once, from before a failover until after it."""
        over = asyncio.Event()
        lived = 0

        async def caller(name: str) -> None:
            nonlocal lived
            turn = 0
            while not over.is_set():
                await live(ledger, [ask(f"{name}.{turn}", UNLIMITED)], 7)
                lived += 1
                turn += 1

        callers = [asyncio.ensure_future(caller(f"caller {number}")) for number in range(5)]
        await eventually(lambda: lived > 20, what="verbs go on")
        after = await fail_over()
        await eventually(lambda: ledger.link.server is not None and ledger.link.server.address.port == after.port)
        now = lived
        await eventually(lambda: lived > now + 20, what="verbs go on at the new primary")
        over.set()
        await asyncio.gather(*callers)

        async def complete() -> bool:
            return Balance(TEAM, 7 * lived, 0) == await insist(lambda: balance(ledger, TEAM))

        await eventually(complete, what="all that was acknowledged is booked, and nothing is held")

    @each_version
    async def test_the_slot_moves(self, version: RedisVersion, listener: Listener) -> None:
        """A slot of a cluster that moves, with all that is in it, is followed to its new node."""
        async with Cluster(version) as cluster, redis_ledger(cluster.url, listener, HASTY, tag="books") as ledger:
            await ledger.reserve(ask("open"))
            await ledger.reserve(ask("settled"))
            await ledger.settle(ask("settled").hold, Spent(70))
            before = cluster.server_of("books")
            after = next(server for server in cluster.servers if server is not before)
            await move_slot(key_slot(b"books"), before, after, cluster)
            await eventually(lambda: insist(lambda: balance(ledger, TEAM)), what="it is asked")
            await eventually(lambda: at(ledger, after), what="the ledger has followed")

            assert Ending.FIRST == await insist(lambda: ledger.settle(ask("open").hold, Spent(20)))
            assert Balance(TEAM, 90, 0) == await insist(lambda: balance(ledger, TEAM))
            async with after.client() as redis:
                assert {TEAM.key: 90} == await spent(redis, ledger.keys) == await explained(redis, ledger.keys)
        assert [(2, 0)] == listener.replayed


def ledger_spent(stands: Balance) -> int:
    """Give what is spent."""
    return stands.spent


def at(ledger: RedisLedger, server: RedisServer) -> bool:
    """Tell whether the ledger is at a server."""
    return ledger.link.up and ledger.link.server is not None and ledger.link.server.address.port == server.port


async def following(server: RedisServer) -> bool:
    """Tell whether a replica is in sync."""
    async with server.client() as redis:
        return bool((await redis.info("replication")).get("master_link_status") == "up")


async def move_slot(slot: int, source: RedisServer, target: RedisServer, cluster: Cluster) -> None:
    """Move a slot with its keys, as redis-cli does."""
    async with source.client() as old, target.client() as new:
        source_id, target_id = (
            str(await old.execute_command("CLUSTER MYID")),
            str(await new.execute_command("CLUSTER MYID")),
        )
        await new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        await old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
        while keys := await old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            await old.execute_command(
                "MIGRATE", LOOPBACK, target.port, "", 0, 5000, "AUTH2", "tester", "", "KEYS", *keys
            )
        for server in (target, source, *cluster.servers):
            async with server.client() as redis:
                await redis.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)


class TestStandingStill:
    """A store that does not answer costs little time, and is back at once when it does."""

    @each_version
    async def test_times_out_and_comes_back(self, version: RedisVersion, listener: Listener) -> None:
        """Calls fail within their timeout; once it counts as lost, fifty take less than one; then it is found."""
        async with RedisServer(version) as server, redis_ledger(server.url, listener, HASTY) as ledger:
            await ledger.reserve(ask("open"))
            async with server.paused():
                started_s = time.monotonic()
                failures = [await fails(ledger) for _ in range(FAILURES_MAX)]
                failing_s = time.monotonic() - started_s
                up = ledger.link.up
                started_s = time.monotonic()
                further = [await fails(ledger) for _ in range(50)]
                further_s = time.monotonic() - started_s
            await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is back")

            assert Ending.FIRST == await ledger.settle(ask("open").hold, Spent(70))
            assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)
        assert all(failures)
        assert not up
        # The last call of those may meet a connection that has to be opened first.
        assert failing_s < (FAILURES_MAX + 2) * TIMEOUT_S
        assert all(further)
        assert further_s < TIMEOUT_S
        assert [] == listener.replayed

    @each_version
    async def test_a_reserve_that_ran_late(self, version: RedisVersion) -> None:
        """A reserve that nobody waits for any more is carried out after the pause, and holds nothing."""
        async with RedisServer(version) as server, redis_ledger(server.url, options=HASTY) as ledger:
            late = a_reserve(
                "late", HUNDRED, reserved_at_ms=ledger.now_ms(), lease=LONG, not_after_ms=ledger.now_ms() + 100
            )
            before = await calls(server)
            async with server.paused():
                with pytest.raises(StoreUnavailableError):
                    await ledger.reserve(late)

            async def ran() -> bool:
                return await calls(server) > before

            await eventually(ran, what="the late reserve has run")
            assert 0 == await ledger.open_count()
            assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)


class TestLostReplies:
    """Who gets no answer does not know whether the verb was carried out, and may ask again."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[RedisServer]:
        """Run a server."""
        async with RedisServer(appendonly=False) as running:
            yield running

    @pytest.mark.parametrize("lose", [DroppingProxy.swallow, DroppingProxy.cut_at_reply], ids=["swallowed", "cut"])
    async def test_once_each(
        self, server: RedisServer, listener: Listener, lose: Callable[[DroppingProxy], None]
    ) -> None:
        """Each verb has been carried out, is not sent again by itself, and does nothing when its caller repeats it."""
        async with (
            DroppingProxy(server.port) as proxy,
            redis_ledger(f"redis://{LOOPBACK}:{proxy.port}", listener, HASTY) as ledger,
        ):
            asked = ask("r")
            await ledger.reserve(ask("brief", lease=SHORT))
            verbs: dict[str, tuple[Callable[[], Awaitable[object]], object]] = {
                "reserve": (lambda: ledger.reserve(asked), Reserved(800)),
                "renew": (lambda: ledger.renew(asked.hold, LONG), True),
                "settle": (lambda: ledger.settle(asked.hold, Spent(70)), Ending.REPEATED),
                "release": (lambda: ledger.release("other"), Ending.REPEATED),
                "expire": (lambda: ledger.expire(10), ()),
            }
            for name, (verb, answer) in verbs.items():
                before = await calls(server)
                lose(proxy)
                with pytest.raises(StoreUnavailableError):
                    await verb()
                sent = await calls(server) - before
                again = await verb()

                assert (name, 1, answer) == (name, sent, again)
            assert Balance(TEAM, 100, 0) == await balance(ledger, TEAM)
            assert AlreadyEnded(State.SETTLED) == await ledger.reserve(asked)
        assert [] == listener.lost
        assert 5 == proxy.lost

    async def test_others_are_not_disturbed(self, server: RedisServer, listener: Listener) -> None:
        """While one waits for a reply that never comes, a hundred others are served."""
        async with (
            DroppingProxy(server.port) as proxy,
            redis_ledger(f"redis://{LOOPBACK}:{proxy.port}", listener, RedisOptions(timeout_s=5.0)) as ledger,
        ):
            proxy.swallow()
            unlucky = asyncio.ensure_future(ledger.reserve(ask("unlucky", UNLIMITED)))
            await eventually(lambda: proxy.lost, what="a reply is lost")
            lived = await live(ledger, [ask(f"r{number}", UNLIMITED) for number in range(100)], 7)
            waits = not unlucky.done()
            stands = await balance(ledger, TEAM)
            unlucky.cancel()
        assert waits
        assert 100 == lived
        assert Balance(TEAM, 700, 100) == stands
        assert [] == listener.lost
