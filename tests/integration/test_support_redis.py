"""The Redis servers that other tests trust: they start, keep their data through a kill, fail over, and lose replies."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis, RedisCluster
from redis.asyncio import Sentinel as SentinelClient
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.support.processes import LOOPBACK, eventually, listening
from tests.support.redis import BUS_PORT_OFFSET, NEWEST_REDIS, REDIS_7, REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.redis_cluster import Cluster
from tests.support.redis_proxy import DroppingProxy
from tests.support.redis_sentinel import NAME, Sentinels
from tests.support.tls import Certificates

pytestmark = pytest.mark.redis

each_version = pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)

COUNT = "return redis.call('INCR', KEYS[1])"
# What a script can answer: a null, an array in an array, bytes that look like the end of something, nothing at all.
ANSWERS = {
    "return false": None,
    "return {1, {2, 'three', {}}, 'four'}": [1, [2, "three", []], "four"],
    r"return '*1\r\n$4\r\n'": "*1\r\n$4\r\n",
    "return ''": "",
    "return string.rep('x', 300000)": "x" * 300_000,
    "return redis.status_reply('FINE')": "FINE",
}


def through(proxy: DroppingProxy, *, seconds: float = 5.0, protocol: int = 3) -> Redis:
    """Give a client that comes through the proxy and tries once."""
    return Redis(
        host=LOOPBACK,
        port=proxy.port,
        protocol=protocol,
        decode_responses=True,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[RedisServer]:
    """Run one server for the tests that do it no harm."""
    async with RedisServer(appendonly=False) as server:
        yield server


@pytest.fixture
async def proxy(shared: RedisServer) -> AsyncIterator[DroppingProxy]:
    """Run a proxy before an empty server."""
    async with shared.client() as redis:
        await redis.flushall()
    async with DroppingProxy(shared.port) as running:
        yield running


class TestServer:
    """One server."""

    @each_version
    async def test_keeps_what_it_acknowledged_through_a_kill(self, version: RedisVersion) -> None:
        """What a server with an append-only file acknowledged is there again after SIGKILL, on the same port."""
        async with RedisServer(version) as server:
            port = server.port
            async with server.client() as redis:
                info = await redis.info("server")
                await redis.set("kept", "yes")
                await server.kill()
                with pytest.raises(RedisConnectionError):
                    await redis.ping()
            await server.restart()
            async with server.client() as redis:
                kept = await redis.get("kept")

        assert version.name.split()[1] in (info.get("valkey_version") or info["redis_version"])
        assert "yes" == kept
        assert port == server.port

    async def test_forgets_without_append_only_file(self) -> None:
        """A server without an append-only file starts again with nothing, even when it could end in its own way."""
        async with RedisServer(appendonly=False) as server:
            async with server.client() as redis:
                await redis.set("kept", "yes")
            await server.restart()
            async with server.client() as redis:
                kept = await redis.get("kept")

        assert None is kept

    async def test_stands_still(self) -> None:
        """A paused server accepts connections and answers nothing until the pause is over."""
        async with RedisServer() as server, server.client(seconds=0.2) as redis:
            async with server.paused():
                with pytest.raises(RedisTimeoutError):
                    await redis.ping()
            answered = await redis.ping()

        assert answered

    @each_version
    async def test_takes_options(self, version: RedisVersion) -> None:
        """Options are lines of redis.conf; whatever they forbid to clients, the test may still look inside."""
        options = ("user default off", "user alice on >secret ~own:* +get")
        async with (
            RedisServer(version, options=options) as server,
            server.client() as tester,
            Redis.from_url(f"redis://alice:secret@{LOOPBACK}:{server.port}") as alice,
        ):
            await tester.set("other", "1")
            with pytest.raises(NoPermissionError):
                await alice.get("other")
            own = await alice.get("own:a")

        assert None is own

    async def test_speaks_tls(self, tmp_path: Path) -> None:
        """With certificates a server speaks TLS and nothing else, before and after a restart."""
        certificates = Certificates(tmp_path)
        async with RedisServer(REDIS_7, tls=certificates) as server:
            await server.kill()
            await server.restart()
            async with (
                Redis.from_url(server.url, ssl_ca_certs=str(certificates.ca)) as encrypted,
                Redis(host=LOOPBACK, port=server.port, retry=Retry(NoBackoff(), 0)) as plain,
            ):
                answered = await encrypted.ping()
                with pytest.raises(RedisConnectionError):
                    await plain.ping()

        assert answered
        assert server.url.startswith("rediss://")

    async def test_dies_with_a_test_that_fails(self) -> None:
        """No process is left behind by a block that an exception ends, nor by a server that does not come up."""
        pids = []

        async def failing() -> None:
            async with RedisServer() as server:
                pids.append(server.pid)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await failing()
        with pytest.raises(AssertionError, match="no-such-option"):
            await RedisServer(options=["no-such-option 1"]).__aenter__()

        assert 1 == len(pids)
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)

    async def test_keeps_its_port_while_dead(self) -> None:
        """Nobody else gets the port of a server or its bus port, from its making on, and clients are refused there."""
        server = RedisServer()
        for port in (server.port, server.port + BUS_PORT_OFFSET):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((LOOPBACK, port))
            assert not await listening(port)

    def test_skips_only_what_may_be_missing(self) -> None:
        """A program that may be missing skips the test; one that `make setup` always brings fails it."""
        with pytest.raises(pytest.skip.Exception, match="needs it: this machine has none"):
            RedisServer(RedisVersion("it", Path("/no/redis"), optional=True))
        with pytest.raises(pytest.fail.Exception, match="no /no/redis: run `make setup`"):
            RedisServer(RedisVersion("it", Path("/no/redis")))


class TestSentinels:
    """Two servers under three sentinels."""

    @each_version
    async def test_fail_over(self, version: RedisVersion) -> None:
        """On order the replica becomes the primary, with the data, and that is what any client is told."""
        async with Sentinels(version) as sentinels:
            before, replica = await sentinels.primary(), await sentinels.replica()
            async with before.client() as redis:
                await redis.set("kept", "yes")
                await redis.wait(1, 5_000)
            after = await sentinels.fail_over()
            async with after.client() as redis:
                kept = await redis.get("kept")
                await redis.set("new", "yes")
            addresses = sentinels.url.removeprefix("redis+sentinel://").removesuffix(f"/{NAME}").split(",")
            told = await master_told_by([int(address.rpartition(":")[2]) for address in addresses])

        assert [before, replica] == list(sentinels.servers)
        assert after is replica
        assert "yes" == kept
        assert [after.port] * 3 == told

    async def test_kill_the_primary(self) -> None:
        """When the primary is killed the replica takes over, and the old one is its replica when it comes back."""
        async with Sentinels() as sentinels:
            first, second = sentinels.servers
            await first.kill()
            after = await sentinels.moved_from(first)
            async with second.client() as redis:
                await redis.set("late", "yes")
            await first.restart()

            again = await sentinels.fail_over()
            async with first.client() as redis:
                late = await redis.get("late")

        assert "yes" == late
        assert after is second
        assert again is first


class TestCluster:
    """Three servers that share the slots."""

    @each_version
    async def test_routes(self, version: RedisVersion) -> None:
        """A client that knows one server reaches every key, and each key is where `server_of` says, and only there."""
        keys = [f"key-{number}" for number in range(20)]
        async with Cluster(version) as cluster:
            host, port = cluster.url.removeprefix("redis+cluster://").split(",")[0].split(":")
            async with RedisCluster(host=host, port=int(port), decode_responses=True) as redis:
                for key in keys:
                    await redis.set(key, key)
            found = []
            for key in keys:
                async with cluster.server_of(key).client() as redis_of_key:
                    found.append(await redis_of_key.get(key))
            other = next(server for server in cluster.servers if server is not cluster.server_of(keys[0]))
            async with other.client() as redis_of_other:
                with pytest.raises(ResponseError, match=cluster.server_of(keys[0]).url.removeprefix("redis://")):
                    await redis_of_other.get(keys[0])

        assert keys == found
        assert set(cluster.servers) == {cluster.server_of(key) for key in keys}

    async def test_kill_a_server(self) -> None:
        """A server that was killed comes back with its slots and its data, and the cluster is whole again."""
        async with Cluster() as cluster:
            server = cluster.server_of("kept")
            async with server.client() as redis:
                await redis.set("kept", "yes")
            await server.kill()
            await server.restart()
            await cluster.ready()
            async with server.client() as redis:
                kept = await redis.get("kept")

        assert "yes" == kept


class TestProxy:
    """The relay that loses replies."""

    async def test_swallows_one_reply(self, proxy: DroppingProxy, shared: RedisServer) -> None:
        """The script runs, its client waits, and nobody else loses anything."""
        async with through(proxy, seconds=0.2) as unlucky, through(proxy) as lucky:
            await unlucky.ping()
            proxy.swallow()
            plain = await lucky.incr("plain")
            with pytest.raises(RedisTimeoutError):
                await unlucky.eval(COUNT, 1, "count")
            second = await lucky.eval(COUNT, 1, "count")
            third = await unlucky.eval(COUNT, 1, "count")
        async with shared.client() as redis:
            counted = await redis.get("count")

        assert 1 == plain
        assert [2, 3] == [second, third]
        assert "3" == counted
        assert 1 == proxy.lost

    async def test_swallows_what_follows_on_the_connection(self, proxy: DroppingProxy) -> None:
        """A reply that comes after a swallowed one on its connection is not passed, and no order is spent on it."""
        async with through(proxy, seconds=0.2) as unlucky:
            await unlucky.ping()
            proxy.swallow(2)
            async with unlucky.pipeline(transaction=False) as pipeline:
                pipeline.eval(COUNT, 1, "count")
                pipeline.eval(COUNT, 1, "count")
                with pytest.raises(RedisTimeoutError):
                    await pipeline.execute()

        assert 1 == proxy.lost

    async def test_cuts_instead_of_one_reply(self, proxy: DroppingProxy) -> None:
        """The script runs, its client's connection breaks, and other connections stay."""
        async with through(proxy) as unlucky, through(proxy) as lucky:
            script = await lucky.script_load(COUNT)
            await unlucky.ping()
            others = await lucky.client_id()
            proxy.cut_at_reply()
            with pytest.raises(RedisConnectionError):
                await unlucky.evalsha(script, 1, "count")
            second = await lucky.evalsha(script, 1, "count")
            same = await lucky.client_id()

        assert 2 == second
        assert others == same
        assert 1 == proxy.lost

    async def test_loses_as_many_as_told(self, proxy: DroppingProxy) -> None:
        """Orders are carried out one after the other, and those that are left are forgotten by `mend`."""
        async with through(proxy, seconds=0.2) as redis:
            await redis.ping()
            proxy.cut_at_reply(2)
            proxy.swallow(2)
            for error in (RedisConnectionError, RedisConnectionError, RedisTimeoutError):
                with pytest.raises(error):
                    await redis.eval(COUNT, 1, "count")
            proxy.mend()
            fourth = await redis.eval(COUNT, 1, "count")

        assert 4 == fourth
        assert 3 == proxy.lost

    async def test_holds_back(self, proxy: DroppingProxy, shared: RedisServer) -> None:
        """While replies are held back the server does what it is asked; the replies come when the proxy is mended."""
        async with through(proxy) as redis, shared.client() as inside:
            await redis.ping()
            proxy.hold_back()
            asking = asyncio.ensure_future(redis.incr("count"))

            async def counted() -> bool:
                return await inside.get("count") == "1"

            await eventually(counted, what="the server has counted")
            held = not asking.done()
            proxy.mend()
            answer = await asking

        assert held
        assert 1 == answer

    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_passes_whatever_a_server_says(self, proxy: DroppingProxy, protocol: int) -> None:
        """Replies of every kind come through whole and in order, errors and large ones too, alone and pipelined."""
        async with through(proxy, protocol=protocol) as redis:
            single = [await redis.eval(script, 0) for script in ANSWERS]
            with pytest.raises(ResponseError, match="wrong"):
                await redis.eval("return redis.error_reply('ERR wrong')", 0)
            await redis.hset("hash", mapping={"a": "1", "b": "2"})
            await redis.zadd("sorted", {"x": 1.5})
            async with redis.pipeline(transaction=False) as pipeline:
                for script in ANSWERS:
                    pipeline.eval(script, 0)
                pipeline.hgetall("hash")
                pipeline.zscore("sorted", "x")
                pipeline.info("server")
                *piped, hash_, score, info = await pipeline.execute()

        assert list(ANSWERS.values()) == single
        assert list(ANSWERS.values()) == piped
        assert {"a": "1", "b": "2"} == hash_
        assert 1.5 == score
        assert "redis_version" in info
        assert 0 == proxy.lost

    async def test_changes_its_target(self, proxy: DroppingProxy, shared: RedisServer) -> None:
        """New connections go where the proxy points now, those that stand stay."""
        async with RedisServer(NEWEST_REDIS, appendonly=False) as other, through(proxy) as old, through(proxy) as new:
            await old.set("where", "shared")
            proxy.target = other.port
            await new.set("where", "other")
            async with shared.client() as first, other.client() as second:
                where = [await first.get("where"), await second.get("where"), await old.get("where")]

        assert ["shared", "other", "shared"] == where


async def master_told_by(ports: list[int]) -> list[int]:
    """Ask sentinels, one by one, for the port of the primary, as a client does."""
    told = []
    for port in ports:
        client = SentinelClient([(LOOPBACK, port)], socket_timeout=5.0)
        try:
            told.append((await client.discover_master(NAME))[1])
        finally:
            for sentinel in client.sentinels:
                await sentinel.aclose()
    return told
