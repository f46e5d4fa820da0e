"""The ledger on a Redis that is well, full, busy, loading or locked: what it books there, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from extauthz.domain.budgets import Spent, Standing
from extauthz.domain.reservation import Claim, Lease
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Balance, Ending, Expired, Refused, Reserved
from extauthz.ledger.batches import BATCH_MAX
from extauthz.ledger.link import CONNECTIONS
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.inspection import BACK_SECONDS, LONG, SHORT, TEAM, ask, calls, expired, explained, journal
from tests.support.ledger import Listener, a_counter, balance, redis_ledger
from tests.support.processes import eventually
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.redis_proxy import DroppingProxy

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

# The first has more digits than Lua's `..` writes, the second nearly more bits than its numbers have.
AMOUNTS = [100_001 * 10**9 + 1, 8_999_999 * 10**9 + 1]


@pytest.fixture(params=REDIS_VERSIONS, ids=lambda version: version.name)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """Run an empty server of each version."""
    async with RedisServer(request.param, appendonly=False) as running:
        yield running


@pytest.fixture
async def one_server() -> AsyncIterator[RedisServer]:
    """Run an empty server, where the version does not matter."""
    async with RedisServer(appendonly=False) as running:
        yield running


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger on a server of each version."""
    async with redis_ledger(server.url) as opened:
        yield opened


class TestScripts:
    """Scripts are sent by name, many calls in one."""

    async def test_forgotten_scripts(self, server: RedisServer, ledger: RedisLedger) -> None:
        """A server that forgot its scripts gets the one that is called, and carries it out once."""
        async with server.client() as redis:
            await redis.script_flush()
            reserved = await ledger.reserve(ask("r"))
            await redis.script_flush()
            ending = await ledger.settle(ask("r").hold, Spent(70))
            sent_whole = await calls(server, "eval")

        assert Reserved(900) == reserved
        assert Ending.FIRST == ending
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)
        assert 2 == sent_whole

    async def test_calls_of_one_turn_are_one(self, server: RedisServer, ledger: RedisLedger) -> None:
        """Fifty reserves at once are one call; each is judged after those before it: nine pass with a hundred each."""
        before = await calls(server)
        spend = ask("spent", Claim(TEAM, 1000, 0))
        await ledger.reserve(spend)
        await ledger.settle(spend.hold, Spent(100))
        results = await asyncio.gather(*(ledger.reserve(ask(f"r{number}")) for number in range(50)))

        assert 3 == await calls(server) - before
        assert [Reserved(available) for available in range(800, -1, -100)] == results[:9]
        assert [Refused(Standing(TEAM, 1000, spent=100, held=900))] * 41 == results[9:]

    async def test_more_calls_than_a_batch(self, server: RedisServer, ledger: RedisLedger) -> None:
        """A thousand at once take as few calls as batches allow, and on no more connections than the ledger has."""
        before = await calls(server)
        await asyncio.gather(*(ledger.reserve(ask(f"r{number}", Claim(TEAM, None, 1))) for number in range(1000)))
        async with server.client() as redis:
            connections = len(await redis.client_list()) - 1

        assert -(-1000 // BATCH_MAX) == await calls(server) - before
        assert connections <= CONNECTIONS
        assert Balance(TEAM, 0, 1000) == await balance(ledger, TEAM)

    async def test_nobody_is_left_waiting(self, one_server: RedisServer) -> None:
        """Who calls when all connections have just been given back is not forgotten."""
        async with (
            DroppingProxy(one_server.port) as proxy,
            redis_ledger(f"redis://127.0.0.1:{proxy.port}") as ledger,
        ):
            assert ledger.link._client is not None
            pool = ledger.link._client.connection_pool
            for connection in [await pool.get_connection() for _ in range(CONNECTIONS)]:
                await pool.release(connection)
            proxy.hold_back()
            answered: list[str] = []

            async def call(name: str) -> None:
                await ledger.renew(ask(name).hold, LONG)
                answered.append(name)
                if len(answered) == 1:
                    await ledger.reserve(ask(f"{name} again"))

            callers = []
            for number in range(CONNECTIONS):
                before = await calls(one_server)
                callers.append(asyncio.ensure_future(call(str(number))))
                await eventually(partial(has_had_more, one_server, before), what="the call has reached the server")
            before = await calls(one_server)
            proxy.mend()
            async with asyncio.timeout(5):
                await asyncio.gather(*callers)

        assert 1 == await calls(one_server) - before


async def has_had_more(server: RedisServer, before: int) -> bool:
    """Tell whether a server has had more calls than before."""
    return await calls(server) > before


class TestAmounts:
    """Amounts are kept to the last nano-USD."""

    @pytest.mark.parametrize("amount", AMOUNTS)
    async def test_to_the_last_one(self, server: RedisServer, ledger: RedisLedger, amount: int) -> None:
        """Reserve, settle, expire, late settle and release count as whole numbers do, in every answer and record."""
        counters = {name: a_counter(name) for name in ("settled", "expired", "late", "released")}
        lease = Lease(lease_ms=1, spent=Spent(amount - 2))
        asked = {name: ask(name, Claim(counter, amount, amount - 1), lease=lease) for name, counter in counters.items()}

        assert {Reserved(1)} == set(await asyncio.gather(*map(ledger.reserve, asked.values())))
        assert {amount - 1} == {(await balance(ledger, counter)).held for counter in counters.values()}

        await ledger.settle(asked["settled"].hold, Spent(amount - 3))
        await ledger.release("released")
        assert {Expired("expired", Spent(amount - 2)), Expired("late", Spent(amount - 2))} == set(await expired(ledger))
        await ledger.settle(asked["late"].hold, Spent(amount - 1))

        booked = {"settled": amount - 3, "expired": amount - 2, "late": amount - 1}
        async with server.client() as redis:
            entries = [
                (entry["how"], entry["id"], entry["cost"], entry["booked"])
                for entry in await journal(redis, ledger.keys)
            ]
            sums = await explained(redis, ledger.keys)
            held = await redis.hgetall(ledger.keys.held)
        refused = await ledger.reserve(ask("r", Claim(counters["settled"], amount - 3, 1)))
        left = await ledger.reserve(ask("l", Claim(counters["late"], amount, 5)))

        assert {counters[name].key: cost for name, cost in booked.items()} == sums
        assert {} == held
        assert ("settled", "late", str(amount - 1), "1") == entries[-1]
        assert ("settled", "settled", str(amount - 3), str(amount - 3)) == entries[0]
        assert Refused(Standing(counters["settled"], amount - 3, amount - 3, 0)) == refused
        assert Reserved(0) == left
        assert {(counters[name], cost) for name, cost in booked.items()} == {
            (stands.counter, stands.spent) for stands in await ledger.balances(10)
        }

    async def test_a_correction_goes_down_to_nothing_and_no_further(
        self, server: RedisServer, ledger: RedisLedger
    ) -> None:
        """A late settle that is cheaper than the expiry, after the counter was reset, leaves it at 0, and says so."""
        request = ask("r", lease=SHORT)
        await ledger.reserve(request)
        await expired(ledger)
        async with server.client() as redis:
            await redis.hdel(ledger.keys.spent, TEAM.key)
            await redis.xtrim(ledger.keys.journal, maxlen=0)
            late = await ledger.settle(request.hold, Spent(10))
            sums = await explained(redis, ledger.keys)

        assert Ending.LATE == late
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)
        assert {} == sums


class TestFull:
    """On a server that has no memory left nothing new begins, and all that is open ends."""

    async def test_out_of_memory(self, server: RedisServer) -> None:
        """Reserve is refused; settle, release, renew and expire do what they always do, on new connections too."""
        async with server.client() as redis, redis_ledger(server.url, tag="books") as ledger:
            asked = {name: ask(name) for name in ("settled", "released", "attempt", "renewed")}
            asked["expired"], asked["late"] = ask("expired", lease=SHORT), ask("late", lease=SHORT)
            for request in asked.values():
                await ledger.reserve(request)
            late = await eventually(lambda: ledger.expire(1), what="the first has expired")
            await redis.config_set("maxmemory", 1)

            for name in ("new", "settled"):
                with pytest.raises(StoreUnavailableError, match=r"OOM|memory"):
                    await ledger.reserve(ask(name))
            await ledger.settle(asked["settled"].hold, Spent(1))
            async with redis_ledger(server.url, tag="books") as other:
                same_key = ledger.signing_key() == other.signing_key()
                endings = [
                    await other.settle(asked[late[0].id].hold, Spent(2)),
                    await other.settle(ask("unknown").hold, Spent(4)),
                    await other.release("released"),
                    await other.release("attempt", attempt="first"),
                    await other.release("not known"),
                ]
                renewed = await other.renew(asked["renewed"].hold, SHORT)
                await eventually(lambda: ledger.expire(10), what="the second has expired")
            up = ledger.link.up
            stands = await balance(ledger, TEAM)
            sums = await explained(redis, ledger.keys)
            await redis.config_set("maxmemory", 0)

            assert isinstance(await ledger.reserve(ask("after")), Reserved)

        assert [Ending.LATE, Ending.UNKNOWN, Ending.FIRST, Ending.FIRST, Ending.UNKNOWN] == endings
        assert renewed
        assert same_key
        assert up
        assert {TEAM.key: stands.spent} == sums

    async def test_no_disk(self, server: RedisServer, ledger: RedisLedger) -> None:
        """A server that cannot save refuses all writes until it can; it answers, so nobody looks for another."""
        async with server.client() as redis:
            in_the_way = Path(str((await redis.config_get("dir"))["dir"])) / "dump.rdb"
            in_the_way.mkdir()
            await redis.config_set("save", "3600 1000000")
            await redis.bgsave()

            async def saved(status: str) -> bool:
                return bool((await redis.info("persistence"))["rdb_last_bgsave_status"] == status)

            await eventually(lambda: saved("err"), what="saving has failed")
            for verb in (ledger.reserve(ask("r")), ledger.settle(ask("s").hold, Spent(1)), ledger.release("t")):
                with pytest.raises(StoreUnavailableError, match="MISCONF"):
                    await verb
            up = ledger.link.up
            stands = await balance(ledger, TEAM)
            in_the_way.rmdir()
            await redis.bgsave()
            await eventually(lambda: saved("ok"), what="saving works")

        assert up
        assert Balance(TEAM, 0, 0) == stands
        assert Reserved(900) == await ledger.reserve(ask("r"))


class TestBusy:
    """A server that is busy with something else serves nobody, and is found when it is done."""

    async def test_somebody_elses_script(self, server: RedisServer) -> None:
        """While a foreign script runs calls fail, soon without asking; when it is killed the store is back."""
        listener = Listener()
        options = RedisOptions(timeout_s=0.5)
        async with (
            server.client(seconds=60) as culprit,
            server.client() as redis,
            redis_ledger(server.url, listener, options) as ledger,
        ):
            await redis.config_set("lua-time-limit", 20)
            looping = asyncio.ensure_future(culprit.eval("while true do end", 0))

            async def refused() -> bool:
                try:
                    await ledger.reserve(ask("early", Claim(a_counter("early"), None, 1)))
                except StoreUnavailableError:
                    return not ledger.link.up
                return False

            await eventually(refused, what="the store counts as lost")
            await redis.script_kill()
            with pytest.raises(ResponseError, match="killed"):
                await looping
            await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is back")

            assert Reserved(900) == await ledger.reserve(ask("r"))
        assert [] == listener.replayed
        assert any("BUSY" in reason for reason in listener.lost)

    @each_version
    async def test_loading(self, version: RedisVersion) -> None:
        """A server that still reads its file is not taken for an empty one: calls fail until it has read all."""
        listener = Listener()
        async with (
            RedisServer(version, options=("key-load-delay 400",)) as server,
            redis_ledger(server.url, listener, RedisOptions(timeout_s=2.0)) as ledger,
        ):
            await ledger.reserve(ask("r"))
            async with server.client() as redis, redis.pipeline(transaction=False) as pipeline:
                for number in range(4000):
                    pipeline.set(f"ballast {number}", "")
                await pipeline.execute()
            await server.kill()
            with pytest.raises(StoreUnavailableError):
                await ledger.reserve(ask("new"))
            restarting = asyncio.ensure_future(server.restart())
            await eventually(lambda: any("oading" in reason for reason in listener.lost), what="it is loading")
            with pytest.raises(StoreUnavailableError):
                await ledger.settle(ask("r").hold, Spent(70))
            await restarting
            await eventually(lambda: ledger.link.up, what="the store is back")

            assert Ending.FIRST == await ledger.settle(ask("r").hold, Spent(70))
            assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)
