"""The ledger on a Redis that dies and comes back, with its data or without, and a ledger that is closed meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from extauthz.domain.budgets import Spent
from extauthz.domain.reservation import Claim, Lease
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import AlreadyEnded, Balance, Ending, Promise, Reserved
from extauthz.ledger.redis import RedisLedger, RedisOptions
from extauthz.ledger.retelling import REMEMBERED_S
from tests.support.inspection import BACK_SECONDS, HUNDRED, LONG, TEAM, ask, explained, live
from tests.support.ledger import MEASURED, Listener, balance, redis_ledger
from tests.support.processes import LOOPBACK, eventually, free_port
from tests.support.redis import NEWEST_REDIS, REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.redis_proxy import DroppingProxy

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

HASTY = RedisOptions(timeout_s=0.5)
UNLIMITED = Claim(TEAM, limit=None, amount=100)


@pytest.fixture
def listener() -> Listener:
    """Give a listener that keeps what it hears."""
    return Listener()


def back(ledger: RedisLedger, listener: Listener, replays: int = 1) -> Callable[[], bool]:
    """Tell, when asked, whether the store is back and was told what it may have forgotten."""
    return lambda: ledger.link.up and len(listener.replayed) == replays


class TestWithItsData:
    """What a Redis that writes everything to disk acknowledged is there again."""

    @each_version
    async def test_killed(self, version: RedisVersion, listener: Listener) -> None:
        """Killed while verbs go on, and found within a second of its restart: all is booked, nothing forgotten."""
        async with RedisServer(version) as server, redis_ledger(server.url, listener, HASTY) as ledger:
            requests = [[ask(f"{caller}.{turn}", UNLIMITED) for turn in range(300)] for caller in range(5)]
            callers = [asyncio.ensure_future(live(ledger, asked, 7)) for asked in requests]
            await ledger.reserve(ask("open", UNLIMITED))
            await eventually(lambda: spent_more_than(ledger, 700), what="verbs go on")
            await server.kill()
            await eventually(lambda: not ledger.link.up, what="the store counts as lost")
            await server.restart()
            await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is back")
            await asyncio.gather(*callers)
            await eventually(back(ledger, listener), what="the store was told")
            async with server.client() as redis:
                sums = await explained(redis, ledger.keys)

            assert Balance(TEAM, 7 * 1500, 100) == await balance(ledger, TEAM)
            assert {TEAM.key: 7 * 1500} == sums
        ((count, forgotten),) = listener.replayed
        assert count > 0
        assert 0 == forgotten


async def spent_more_than(ledger: RedisLedger, nanousd: int) -> bool:
    """Tell whether a team has spent more than an amount."""
    return (await balance(ledger, TEAM)).spent > nanousd


class TestEmpty:
    """A Redis that comes back with nothing is told the last seconds."""

    @each_version
    async def test_is_told(self, version: RedisVersion, listener: Listener) -> None:
        """Held and spent are as they were, what was open is open, what had ended has ended, the key is the old one."""
        async with RedisServer(version, appendonly=False) as server:  # noqa: SIM117 - the listener is asked in between
            async with redis_ledger(server.url, listener, HASTY) as ledger:
                lost = await a_little_of_everything(ledger)
                before, key = await balance(ledger, TEAM), ledger.signing_key()
                await server.kill()
                with pytest.raises(StoreUnavailableError):
                    await ledger.settle(ask("open").hold, Spent(1))
                await server.restart()
                await eventually(back(ledger, listener), BACK_SECONDS, "the store is back, and knows")

                assert before == await balance(ledger, TEAM)
                assert 3 == await ledger.open_count()
                assert Ending.REPEATED == await ledger.settle(ask("settled").hold, Spent(70))
                assert Ending.REPEATED == await ledger.settle(ask("unknown").hold, Spent(4))
                assert isinstance(await ledger.reserve(ask("released")), AlreadyEnded)
                assert isinstance(await ledger.reserve(ask("attempt")), AlreadyEnded)
                assert Ending.FIRST == await ledger.settle(ask("open").hold, Spent(1))
                assert Balance(TEAM, 75, 200) == await balance(ledger, TEAM)
                assert key == ledger.signing_key()
                assert "the hold of renewed" == await ledger.promised("renewed")
                # The renewal was told too: else the lease would be a minute long.
                async with server.client() as redis:
                    due_ms = await redis.zscore(ledger.keys.leases, "renewed")
                    assert due_ms is not None
                    assert due_ms > ledger.now_ms() + 10 * LONG.lease_ms
                    assert {TEAM.key: 75} == await explained(redis, ledger.keys)
                async with redis_ledger(server.url, tag=ledger.keys.tag) as other:
                    assert key == other.signing_key()
        assert [(lost, lost - 2)] == listener.replayed  # renewal and promise are not counted: they show nothing

    async def test_is_told_what_was_granted(self, listener: Listener) -> None:
        """A reservation that got a part of what it asked for gets that part again, whatever the limits are now."""
        async with (
            RedisServer(appendonly=False) as server,
            redis_ledger(server.url, listener, HASTY) as ledger,
        ):
            await ledger.reserve(ask("earlier", Claim(TEAM, 1000, 950)))
            await ledger.reserve(ask("partial", Claim(TEAM, 1000, 100)))
            await server.kill()
            await server.restart()
            await ledger.expire(10)
            await eventually(back(ledger, listener), BACK_SECONDS, "the store is back, and knows")

            assert Balance(TEAM, 0, 1000) == await balance(ledger, TEAM)

    async def test_is_told_in_every_measure(self, listener: Listener) -> None:
        """Tokens and requests that were held, and that were spent, are back as well."""
        expected, used = Spent(100, 60, 1), Spent(70, 50, 1)
        claims = [Claim(counter, 1000, expected.of(counter.measure)) for counter in MEASURED]
        limits = [(counter, 0) for counter in MEASURED]
        async with (
            RedisServer(appendonly=False) as server,
            redis_ledger(server.url, listener, HASTY) as ledger,
        ):
            for name in ("open", "settled"):
                await ledger.reserve(ask(name, *claims))
            await ledger.settle(ask("settled", *claims).hold, used)
            await ledger.settle(ask("unknown", *claims).hold, used)
            before = await ledger.standings(limits)
            await server.kill()
            await server.restart()
            await ledger.expire(10)
            await eventually(back(ledger, listener), BACK_SECONDS, "the store is back, and knows")

            assert before == await ledger.standings(limits)
            assert [(2 * used.of(it.measure), expected.of(it.measure)) for it in MEASURED] == [
                (standing.spent, standing.held) for standing in before
            ]
            assert (await ledger.audit()).ok

    async def test_while_nobody_called(self, listener: Listener) -> None:
        """A restart that no call has met is found out by the first one after it."""
        async with (
            RedisServer(appendonly=False) as server,
            redis_ledger(server.url, listener, HASTY) as ledger,
        ):
            await ledger.reserve(ask("open"))
            key = ledger.signing_key()
            await server.kill()
            await server.restart()
            await ledger.reserve(ask("new"))
            await eventually(back(ledger, listener), BACK_SECONDS, "the store is back, and knows")

            assert Balance(TEAM, 0, 200) == await balance(ledger, TEAM)
            async with redis_ledger(server.url, tag=ledger.keys.tag) as other:
                assert key == other.signing_key()
        assert [(2, 1)] == listener.replayed

    async def test_after_long(self, listener: Listener) -> None:
        """However long it was away, it is told what it acknowledged last."""
        late_s = 0.0
        async with (
            RedisServer(appendonly=False) as server,
            redis_ledger(server.url, listener, HASTY, clock_s=lambda: time.monotonic() + late_s) as ledger,
        ):
            await ledger.reserve(ask("open"))
            await server.kill()
            with pytest.raises(StoreUnavailableError):
                await ledger.settle(ask("open").hold, Spent(1))
            late_s = 2 * REMEMBERED_S
            await server.restart()
            await eventually(back(ledger, listener), BACK_SECONDS, "the store is back, and knows")

            assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)
        assert [(1, 1)] == listener.replayed

    async def test_that_will_not_listen(self, listener: Listener) -> None:
        """What it refuses while it is told is told again, until it has it."""
        async with (
            RedisServer(appendonly=False) as server,
            DroppingProxy(server.port) as proxy,
            redis_ledger(f"redis://{LOOPBACK}:{proxy.port}", listener, HASTY) as ledger,
            server.client() as redis,
        ):
            await a_little_of_everything(ledger)
            before = await balance(ledger, TEAM)
            proxy.cut()
            await eventually(lambda: lost(ledger), what="the store counts as lost")
            await server.kill()
            await server.restart()
            await redis.execute_command("ACL SETUSER", "default", "-evalsha")
            proxy.mend()
            await eventually(lambda: any("permission" in reason for reason in listener.lost), what="it is refused")
            await redis.execute_command("ACL SETUSER", "default", "+evalsha")
            await eventually(back(ledger, listener), what="the store is back, and knows")

            assert before == await balance(ledger, TEAM)
            assert 3 == await ledger.open_count()


async def lost(ledger: RedisLedger) -> bool:
    """Call, and tell whether the store counts as lost."""
    try:
        await ledger.expire(1)
    except StoreUnavailableError:
        return not ledger.link.up
    return False


async def a_little_of_everything(ledger: RedisLedger) -> int:
    """Leave 74 spent and three reservations open, and tell how many verbs a successor has to be told."""
    for name in ("open", "settled", "released", "attempt", "renewed", "taken over"):
        assert isinstance(await ledger.reserve(ask(name)), Reserved)
    await ledger.settle(ask("settled").hold, Spent(70))
    await ledger.settle(ask("unknown").hold, Spent(4))
    await ledger.release("released")
    await ledger.release("attempt", attempt="first")
    await ledger.renew(ask("renewed").hold, Lease(20 * LONG.lease_ms, Spent(30)))
    await ledger.promise(Promise("renewed", "the hold of renewed"))
    return 4 + 2 + 2 + 1 + 1


class TestClose:
    """A ledger that is closed leaves nothing behind."""

    @pytest.fixture(autouse=True)
    async def nothing_is_left(self) -> AsyncIterator[None]:
        """Fail when a task is left after a test, or (pytest does that) a connection that nobody closed."""
        before = asyncio.all_tasks()
        yield
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        gc.collect()
        assert not left

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[RedisServer, RedisLedger]]:
        """Open a ledger on a server."""
        async with (
            RedisServer(NEWEST_REDIS, appendonly=False) as server,
            redis_ledger(server.url, options=RedisOptions(timeout_s=60.0)) as ledger,
        ):
            yield server, ledger

    async def test_while_calls_wait(self) -> None:
        """Calls that wait for a store that stands still fail at once, whatever they asked, and so do later ones."""
        async with self.opened() as (server, ledger):
            await ledger.reserve(ask("r"))
            async with server.paused():
                waiting = [asyncio.ensure_future(ledger.reserve(ask(f"r{number}"))) for number in range(1000)]
                questions = [asyncio.ensure_future(ledger.open_count()), asyncio.ensure_future(ledger.balances(10))]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                async with asyncio.timeout(10):
                    await ledger.close()
                    answers = await asyncio.gather(*waiting, *questions, return_exceptions=True)
                    with pytest.raises(StoreUnavailableError):
                        await ledger.reserve(ask("late"))
        assert {StoreUnavailableError} == set(map(type, answers))

    async def test_while_it_is_looked_for(self) -> None:
        """A ledger that never found its store is closed like any other."""
        async with asyncio.timeout(10), redis_ledger(f"redis://{LOOPBACK}:{free_port()}", found=False) as ledger:
            with pytest.raises(StoreUnavailableError):
                await ledger.reserve(ask("r"))
            assert ledger.signing_key() is None

    async def test_right_after_the_store_was_lost(self) -> None:
        """Connections of a store that counts as lost since a moment are closed, too."""
        async with self.opened() as (server, ledger):
            async with server.client() as redis:
                await redis.replicaof(LOOPBACK, free_port())
            assert await lost(ledger)

    async def test_while_it_is_looked_at(self) -> None:
        """A ledger can be closed at any step of looking at its store, and of telling it what it may have forgotten."""
        async with RedisServer(NEWEST_REDIS, appendonly=False) as server, server.client() as redis:
            for steps in range(0, 60, 3):
                async with asyncio.timeout(10), redis_ledger(server.url) as ledger:
                    await ledger.reserve(ask("r", HUNDRED))
                    await redis.script_flush()
                    await ledger.settle(ask("r").hold, Spent(1))
                    ledger._found_anew()
                    for _ in range(steps):
                        await asyncio.sleep(0)
