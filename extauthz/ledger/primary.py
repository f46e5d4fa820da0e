"""Finding the one server that takes writes, and opening connections to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError
from redis.typing import EncodableT

from extauthz.authorities import NOT_ASKED
from extauthz.domain.address import Address
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.url import Login, StoreUrl, Topology


class _Packing:
    """Packs commands in C, as redis-py's synchronous connections do.

    Its asyncio connections do it in Python: half a millisecond for a call that many share, with its 500 arguments.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - redis-py's
        super().__init__(**settings)
        self._pack: Callable[..., list[bytes]] = HiredisRespSerializer().pack

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """Write one command."""
        return self._pack(*args)


class _Connection(_Packing, Connection):
    pass


class _SSLConnection(_Packing, SSLConnection):
    pass


class _Pool(BlockingConnectionPool):
    """A pool from which nothing goes out any more once it is closed.

    redis-py's own leaves a connection open, for its caller to use, that is being made while the pool is closed.
    """

    _closed = False

    async def aclose(self) -> None:
        self._closed = True
        await super().aclose()

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        if not self._closed:
            await super().ensure_connection(connection)
        if self._closed:
            await connection.disconnect()
            raise LostError("the store was lost meanwhile")


def open_client(url: StoreUrl, address: Address, login: Login, *, timeout_s: float, connections: int = 1) -> Redis:
    """Open a client of one server, with at most so many connections.

    Nothing is tried again behind our back: redis-py's default is ten retries, and who retries here knows what for.
    """
    tls: dict[str, Any] = {}
    if url.tls is not None:
        files = url.tls
        tls = {
            name: str(path)
            for name, path in (("ssl_ca_certs", files.ca), ("ssl_certfile", files.cert), ("ssl_keyfile", files.key))
            if path is not None
        }
        tls["ssl_exclude_verify_flags"] = [NOT_ASKED]
    pool = _Pool(
        connection_class=_Connection if url.tls is None else _SSLConnection,
        max_connections=connections,
        timeout=timeout_s,
        host=address.host,
        port=address.port,
        db=url.database if login is url.login else 0,
        username=login.username,
        password=login.password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **tls,
    )
    return Redis.from_pool(pool)


async def find_primary(url: StoreUrl, timeout_s: float) -> Address:
    """Find where to write. Raises StoreUnavailableError when nobody who was asked knows."""
    if url.topology is Topology.STANDALONE:
        return url.addresses[0]
    # All are asked, and the most believed: one that was cut off from the others still names the primary of before.
    answers = await asyncio.gather(*(_ask(url, address, timeout_s) for address in url.addresses))
    named = Counter(address for address in answers if address is not None)
    if not named:
        who = f"sentinel knows a primary {url.service}" if url.service else "node knows who has the slot"
        raise StoreUnavailableError(f"no {who}: check the store's URL and {url}")
    return named.most_common(1)[0][0]


async def _ask(url: StoreUrl, address: Address, timeout_s: float) -> Address | None:
    """Ask a sentinel, or a node, where to write; None when it does not answer, or does not know."""
    try:
        async with _asking(url, address, timeout_s) as client:
            return await (_of_sentinel(url, client) if url.service else _of_cluster(url, client, address))
    except (RedisError, OSError, TimeoutError):
        return None


@asynccontextmanager
async def _asking(url: StoreUrl, address: Address, timeout_s: float) -> AsyncIterator[Redis]:
    login = url.sentinel_login if url.topology is Topology.SENTINEL else url.login
    client = open_client(url, address, login, timeout_s=timeout_s)
    try:
        yield client
    finally:
        await client.aclose()


async def _of_sentinel(url: StoreUrl, client: Redis) -> Address | None:
    asked: Awaitable[list[bytes] | None] = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
    match await asked:
        case [host, port]:
            return Address(text(host), int(port))
        case _:
            return None


async def _of_cluster(url: StoreUrl, client: Redis, asked: Address) -> Address | None:
    """Find the node that has our tag's slot; a node that does not know its own address means the one that was asked."""
    slot = key_slot(url.tag.encode())
    ranges: list[tuple[int, int, list[Any]]] = await client.execute_command("CLUSTER SLOTS")
    for first, last, (host, port, *_), *_ in ranges:
        if first <= slot <= last:
            return Address(text(host) or asked.host, int(port))
    return None


def text(value: bytes | str | None) -> str:
    """Read what a server said; nothing is an empty text."""
    return value.decode() if isinstance(value, bytes) else value or ""
