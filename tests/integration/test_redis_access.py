"""Who may use a Redis: passwords, users with the least rights, databases and TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from extauthz.domain.budgets import NOTHING_SPENT, Spent
from extauthz.domain.reservation import Claim
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Amendment, AmendmentKind, Balance, Ending, Promise, Reserved
from extauthz.ledger.journal import Journal
from extauthz.ledger.redis import RedisLedger, RedisOptions
from tests.support.inspection import BACK_SECONDS, LONG, SHORT, TEAM, ask, expired, insist
from tests.support.ledger import Listener, RealClock, a_counter, a_window, balance, redis_ledger
from tests.support.processes import LOOPBACK, eventually
from tests.support.redis import NEWEST_REDIS, REDIS_7, REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.redis_cluster import Cluster
from tests.support.redis_sentinel import Sentinels
from tests.support.tls import Certificates

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

HASTY = RedisOptions(timeout_s=0.5)
# With these, one call of expire uses every command that it ever uses.
SMALL = RedisOptions(timeout_s=0.5, tombstone_seconds=1, journal_entries_max=1)

# What a user of Redis must be allowed, so that extauthz can work: the README has it from here.
LEAST = (
    "~{extauthz}:* +evalsha +eval +script|load +multi +exec +info +time"
    " +set +hget +hset +hsetnx +hmget +hdel +hincrby +hexists +hlen +hscan +exists"
    " +zadd +zrem +zrangebyscore +zcard +sadd +sismember +xadd +xlen +xrange +xtrim +rename +unlink"
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[RedisServer]:
    """Run a server for the tests that try one right after the other."""
    async with RedisServer(NEWEST_REDIS, appendonly=False) as server:
        yield server


async def everything(ledger: RedisLedger) -> None:
    """Make every call that there is, and have each script do all that it ever does."""
    now_ms = RealClock().now_ms()
    over = Claim(a_counter("old", a_window(now_ms, left_ms=-60_000)), None, 0)
    assert Ending.UNKNOWN == await ledger.settle(ask("over", over).hold, Spent(70))
    for name in ("settled", "released", "attempt"):
        assert isinstance(await ledger.reserve(ask(name)), Reserved)
    assert isinstance(await ledger.reserve(ask("expired", lease=SHORT)), Reserved)
    assert await ledger.renew(ask("settled").hold, LONG)
    await ledger.settle(ask("settled").hold, Spent(70))
    await ledger.release("released")
    await ledger.release("attempt", attempt="first")
    await expired(ledger)
    await ledger.settle(ask("expired").hold, NOTHING_SPENT)
    for kind, amount in ((AmendmentKind.IMPORT, 5), (AmendmentKind.RESET, None), (AmendmentKind.GRANT, 5)):
        assert await ledger.amend(Amendment(f"an {kind}", kind, TEAM, amount, "tester"))
    await balance(ledger, TEAM)
    await ledger.balances(10)
    await ledger.open_count()
    await ledger.reservations(10)
    await ledger.announce("something", 60_000)
    assert await ledger.promise(Promise("something", "a signed hold"))
    assert await ledger.promised("something") is not None
    await ledger.forget("something")
    assert [item async for item in Journal(ledger).export()]


async def fails(ledger: RedisLedger) -> bool:
    """Tell whether a call fails now."""
    try:
        await ledger.reserve(ask("r"))
    except StoreUnavailableError:
        return True
    return False


class TestPasswords:
    """Who does not know the password is not served, and is as soon as he does."""

    @each_version
    async def test_wrong_password(self, version: RedisVersion) -> None:
        """The store is away for him, for a reason that names neither password, and there when his password is right."""
        listener = Listener()
        async with RedisServer(version, options=("requirepass first",)) as server, server.client() as redis:
            url = f"redis://:second@{LOOPBACK}:{server.port}"
            async with redis_ledger(url, listener, HASTY, found=False) as ledger:
                await eventually(lambda: listener.lost, what="the password is refused")
                failed = await fails(ledger)
                await redis.config_set("requirepass", "second")
                await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is found")

                assert Reserved(900) == await ledger.reserve(ask("r"))
        assert failed
        assert "WRONGPASS" in listener.lost[0] or "invalid" in listener.lost[0]
        assert "second" not in str(listener.lost)

    @each_version
    async def test_no_password(self, version: RedisVersion) -> None:
        """A server that asks for one serves nobody who has none."""
        listener = Listener()
        async with (
            RedisServer(version, options=("requirepass secret",)) as server,
            server.client() as redis,
            redis_ledger(server.url, listener, HASTY, found=False) as ledger,
        ):
            await eventually(lambda: listener.lost, what="the ledger is refused")
            await redis.config_set("requirepass", "")
            await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is found")

            assert not await fails(ledger)
        assert "Authentication required" in listener.lost[0]


class TestRights:
    """A user of Redis needs a few rights, and one that is taken away is missed at once."""

    @each_version
    async def test_the_least(self, version: RedisVersion) -> None:
        """With the least rights everything works, in a database of its own, without a look at anybody's other keys."""
        user = f"user extauthz on >pass%word {LEAST}"
        listener = Listener()
        async with RedisServer(version, options=(user, "user default off")) as server, server.client() as redis:
            url = f"redis://extauthz:pass%25word@{LOOPBACK}:{server.port}"
            async with redis_ledger(url, listener, SMALL, tag="extauthz") as ledger:
                await everything(ledger)
            with_database = f"user extauthz on >pass%word {LEAST} +select"
            await redis.execute_command("ACL SETUSER", *with_database.split()[1:])
            async with redis_ledger(f"{url}/3", listener, SMALL, tag="extauthz") as ledger:
                await everything(ledger)
            databases = await redis.info("keyspace")
            keys = {name: held["keys"] for name, held in databases.items()}
            denied = {entry["object"] for entry in await redis.acl_log()}
        assert {"db0", "db3"} == set(keys)
        assert keys["db0"] == keys["db3"]
        assert [] == listener.lost
        # With CONFIG GET the server tells whether it saves to disk. redis-py says its name, or goes on without.
        assert denied <= {"client|setinfo", "client", "config|get", "config"}

    @each_version
    async def test_a_right_that_no_verb_needs(self, version: RedisVersion) -> None:
        """Without the rights of an audit, or of an announcement, that one fails and verbs go on; with them it works."""
        listener = Listener()
        user = f"user extauthz on >secret {LEAST} -set"
        async with RedisServer(version, options=(user,)) as server, server.client() as redis:
            url = f"redis://extauthz:secret@{LOOPBACK}:{server.port}"
            async with redis_ledger(url, listener, HASTY, tag="extauthz") as ledger:
                await ledger.reserve(ask("r"))
                for right in ("xrevrange", "hgetall", "zrange"):
                    with pytest.raises(StoreUnavailableError, match=r"(?i)no permissions"):
                        await ledger.audit()
                    assert ledger.up()
                    await redis.execute_command("ACL SETUSER", "extauthz", f"+{right}")

                assert (await ledger.audit()).ok
                with pytest.raises(StoreUnavailableError, match=r"(?i)no permissions"):
                    await ledger.announce("something", 60_000)
                await redis.execute_command("ACL SETUSER", "extauthz", "+set")

                assert await ledger.announce("something", 60_000)
                assert Reserved(800) == await ledger.reserve(ask("s"))
        assert [] == listener.lost

    @pytest.mark.parametrize("right", LEAST.split())
    async def test_no_less(self, shared: RedisServer, right: str) -> None:
        """Without any one of these rights something does not work."""
        rights = [other for other in LEAST.split() if other != right]
        async with shared.client() as redis:
            await redis.flushall()
            await redis.script_flush()
            await redis.execute_command("ACL SETUSER", "poor", "reset", "on", ">secret", *rights)
            url = f"redis://poor:secret@{LOOPBACK}:{shared.port}"
            listener = Listener()
            async with redis_ledger(url, listener, SMALL, tag="extauthz", found=None) as ledger:
                await eventually(lambda: ledger.link.up or listener.lost, what="it is found, or not")
                await redis.script_flush()
                with pytest.raises(StoreUnavailableError):
                    await everything(ledger)

    @pytest.mark.parametrize("command", ["hincrby", "zadd", "zrem", "sadd", "xadd", "xtrim", "rename", "unlink"])
    @each_version
    async def test_a_script_is_not_stopped_halfway(self, version: RedisVersion, command: str) -> None:
        """A right that only scripts need is missed at the connecting, by its name, before any of them moves money."""
        listener = Listener()
        user = f"user extauthz on >secret {LEAST} -{command}"
        async with RedisServer(version, appendonly=False, options=(user,)) as server:
            url = f"redis://extauthz:secret@{LOOPBACK}:{server.port}"
            async with redis_ledger(url, listener, HASTY, tag="extauthz", found=None) as ledger:
                reason = await eventually(lambda: listener.lost, what="the store is not used")
                assert not ledger.up()
        assert command in reason[0].lower()

    @each_version
    async def test_one_is_taken_away(self, version: RedisVersion) -> None:
        """A user whose right to run scripts is taken away is refused until he has it again."""
        listener = Listener()
        user = f"user extauthz on >secret {LEAST}"
        async with RedisServer(version, options=(user,)) as server, server.client() as redis:
            url = f"redis://extauthz:secret@{LOOPBACK}:{server.port}"
            async with redis_ledger(url, listener, HASTY, tag="extauthz") as ledger:
                await redis.execute_command("ACL SETUSER", "extauthz", "-evalsha")
                failed = [await fails(ledger) for _ in range(10)]
                await redis.execute_command("ACL SETUSER", "extauthz", "+evalsha")
                await eventually(lambda: ledger.link.up, BACK_SECONDS, "the store is found")

                assert not await fails(ledger)
        assert all(failed)
        assert "no permissions" in listener.lost[0]


class TestTls:
    """Over TLS the store proves who it is."""

    @pytest.fixture
    def certificates(self, tmp_path: Path) -> Certificates:
        """Give the server's certificates."""
        return Certificates(tmp_path / "right")

    async def test_the_right_authority(self, certificates: Certificates) -> None:
        """With `ca` the server's certificate is believed, before and after it starts anew."""
        async with (
            RedisServer(REDIS_7, tls=certificates) as server,
            redis_ledger(f"{server.url}?ca={certificates.ca}", options=HASTY) as ledger,
        ):
            reserved = await ledger.reserve(ask("r"))
            await server.restart()

            assert Ending.FIRST == await insist(lambda: ledger.settle(ask("r").hold, Spent(70)))
            assert Balance(TEAM, 70, 0) == await insist(lambda: balance(ledger, TEAM))
        assert Reserved(900) == reserved

    async def test_another_authority(self, certificates: Certificates, tmp_path: Path) -> None:
        """A server that another authority vouches for is refused, and so it is when there is no `ca` at all."""
        wrong = Certificates(tmp_path / "wrong")
        async with RedisServer(REDIS_7, tls=certificates) as server:
            for options in (f"?ca={wrong.ca}", ""):
                listener = Listener()
                async with redis_ledger(f"{server.url}{options}", listener, HASTY, found=False) as ledger:
                    await eventually(lambda: listener.lost, what="the certificate is refused")  # noqa: B023
                    failed = await fails(ledger)
                assert failed
                assert "certificate" in listener.lost[0].lower()

    async def test_another_name(self, tmp_path: Path) -> None:
        """A certificate for another host is refused."""
        listener = Listener()
        certificates = Certificates(tmp_path, LOOPBACK)
        async with RedisServer(REDIS_7, tls=certificates) as server:
            by_name = server.url.replace(LOOPBACK, "localhost")
            async with redis_ledger(f"{by_name}?ca={certificates.ca}", listener, HASTY, found=False):
                await eventually(lambda: listener.lost, what="the certificate is refused")
        assert "certificate" in listener.lost[0].lower()

    async def test_a_certificate_of_our_own(self, certificates: Certificates) -> None:
        """With `cert` and `key` we prove who we are to a server that asks."""
        async with RedisServer(REDIS_7, tls=certificates, options=("tls-auth-clients yes",)) as server:
            ours = f"&cert={certificates.client_cert}&key={certificates.client_key}"
            async with redis_ledger(f"{server.url}?ca={certificates.ca}{ours}", options=HASTY) as ledger:
                assert not await fails(ledger)
            async with redis_ledger(f"{server.url}?ca={certificates.ca}", options=HASTY, found=False) as ledger:
                assert await fails(ledger)

    async def test_sentinels_and_cluster(self, certificates: Certificates) -> None:
        """Sentinels and the nodes of a cluster are asked over TLS, too."""
        ca = f"?ca={certificates.ca}"
        async with Sentinels(REDIS_7, tls=certificates) as servers, redis_ledger(servers.url + ca) as ledger:
            assert not await fails(ledger)
        async with Cluster(REDIS_7, tls=certificates) as nodes, redis_ledger(nodes.url + ca) as ledger:
            assert not await fails(ledger)
