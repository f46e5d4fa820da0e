"""The way to the store's primary: open, lost, found again.

While it is lost every call fails at once, without touching the network, so that a dead store costs microseconds; one
task tries to find it again, sooner at first and at random distances, so that many replicas do not come all at once.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError
from redis.exceptions import TimeoutError as SlowError

from extauthz.domain.address import Address
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.primary import find_primary, open_client
from extauthz.ledger.script import Script
from extauthz.ledger.url import StoreUrl, Topology

CONNECTIONS = 4

# Calls in a row that must fail before the store counts as lost, where a single one says nothing: a lost reply.
FAILURES_MAX = 3

MEND_DELAY_S_MIN = 0.05
MEND_DELAY_S_MAX = 0.2
# Finding, connecting, logging in, looking and loading scripts, each of which has the timeout of a call.
MEND_TIMEOUTS = 5

CANCEL_AGAIN_S = 0.05

# How often the store is looked at: for evictions and persistence, and for another primary where there can be one.
LOOK_S = 60.0
FOLLOW_S = 1.0

# Words in a server's errors. In scripts Redis 6.2 puts them behind `ERR Error running script`, so they are searched.
# These say that this server will not serve us now: another may, or this one later.
GONE_WORDS = (
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK ",
    "TRYAGAIN",
    "BUSY",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
)
# The classes of redis-py's whose messages come without the word.
GONE_CLASSES = (
    "ReadOnlyError",
    "BusyLoadingError",
    "MasterDownError",
    "ClusterDownError",
    "MovedError",
    "AskError",
    "TryAgainError",
    "AuthenticationError",
    "NoPermissionError",
)
# What calls raise. redis-py stumbles with an AttributeError over a connection that is closed while it sends, as those
# of a lost client are.
FAILURES = (RedisError, OSError, TimeoutError, AttributeError)
REFUSED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself. `evicted` counts keys that it threw away.

    `run_id` is new with each start, `replication_id` whenever it becomes the primary: as a replica it may have been
    told by another what to forget.
    """

    address: Address
    run_id: str
    replication_id: str
    version: str
    maxmemory_policy: str
    evicted: int
    persistent: bool

    @property
    def may_evict(self) -> bool:
        """Whether it throws keys away when its memory is full, instead of refusing writes."""
        return self.maxmemory_policy not in ("noeviction", "")

    def continues(self, before: Server) -> bool:
        """Tell whether it knows all that it acknowledged when it was seen before."""
        return (self.run_id, self.replication_id) == (before.run_id, before.replication_id)


class LinkListener(Protocol):
    """Hears of the store's comings and goings."""

    def store_lost(self, reason: str) -> None:
        """Hear that the store does not answer, or not us."""
        ...

    def store_seen(self, server: Server) -> None:
        """Hear how a server is that was found, or looked at again."""
        ...


class Link:
    """Carries scripts and commands to the primary. `prepare` is asked at each connecting, before anything else goes."""

    def __init__(
        self,
        url: StoreUrl,
        scripts: Sequence[Script],
        listener: LinkListener,
        *,
        timeout_s: float,
        prepare: Callable[[Redis], Awaitable[None]],
        found: Callable[[], None],
        chance: Callable[[], float],
    ) -> None:
        self._url = url
        self._scripts = scripts
        self._listener = listener
        self._timeout_s = timeout_s
        self._prepare = prepare
        self._found = found
        self._chance = chance
        self._client: Redis | None = None
        self._lost: Redis | None = None
        self._server: Server | None = None
        self._failures = 0
        self._told = ""
        self._mending: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self._up = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether calls go out."""
        return self._client is not None

    @property
    def server(self) -> Server | None:
        """The server as it was seen last, None before the first time."""
        return self._server

    async def open(self, seconds_max: float) -> bool:
        """Begin to look for the store, and tell whether it was found within that time; the search goes on."""
        self._mending = asyncio.get_running_loop().create_task(self._mend())
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._up.wait()
        return self.up

    async def wait(self) -> None:
        """Come back when the store is found."""
        await self._up.wait()

    async def close(self) -> None:
        """Let go of every connection."""
        lost, self._client = self._client, None  # first: what fails from now on makes nobody look for the store
        for task in (self._mending, self._watching):
            # Not once: redis-py sends by `asyncio.wait_for`, which in Python 3.11 forgets that it was cancelled when
            # it is ready at the same moment.
            while task is not None and not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=CANCEL_AGAIN_S)
        found, self._client = self._client, None
        for client in (lost, found, self._lost):
            if client is not None:
                await client.aclose()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:  # noqa: ANN401 - RESP
        """Run a script. Raises StoreUnavailableError, and then it may have run or not."""
        client = self._open_client()
        try:
            try:
                reply = await client.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                # The server forgot its scripts (a restart, SCRIPT FLUSH): it gets this one along, and did nothing yet.
                self._look_now.set()
                reply = await client.eval(script.source, len(keys), *keys, *args)
        except FAILURES as error:
            raise self._failed(error, client) from error
        self._failures = 0
        return reply

    async def ask(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - RESP
        """Run a command that scripts are not for. Raises StoreUnavailableError."""
        client = self._open_client()
        try:
            return await client.execute_command(*command)
        except NoPermissionError as error:
            # A right that only those need who look at the books: what verbs need was tried at the connecting.
            raise StoreUnavailableError(_reason(error)) from error
        except FAILURES as error:
            raise self._failed(error, client) from error

    async def transact(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        """Run commands as one step (MULTI). Raises StoreUnavailableError."""
        client = self._open_client()
        try:
            async with client.pipeline(transaction=True) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return await pipeline.execute()
        except NoPermissionError as error:
            raise StoreUnavailableError(_reason(error)) from error
        except FAILURES as error:
            raise self._failed(error, client) from error

    def _open_client(self) -> Redis:
        if self._client is None:
            raise StoreUnavailableError("the store is away")
        return self._client

    def _failed(self, error: BaseException, client: Redis) -> StoreUnavailableError:
        """Judge what a failure says about the store; that of a lost client says nothing about the one found since."""
        reason = _reason(error)
        if client is not self._client:
            pass
        elif _gone(error):
            self._lose(reason, client)
        elif isinstance(error, LostError | SlowError | OSError | TimeoutError):
            self._failures += 1
            self._look_now.set()  # a server that went down and is back already has another run id
            if self._failures >= FAILURES_MAX:
                self._lose(reason, client)
        return StoreUnavailableError(reason)

    def _lose(self, reason: str, client: Redis) -> None:
        if client is not self._client:
            return
        self._lost, self._client = client, None
        self._up.clear()
        self._told = reason
        self._listener.store_lost(reason)
        self._mending = asyncio.get_running_loop().create_task(self._mend())

    async def _mend(self) -> None:
        """Try until the store is found."""
        if self._lost is not None:
            with suppress(Exception):
                await self._lost.aclose()
            self._lost = None
        delay_s = 0.0
        while True:
            await asyncio.sleep(delay_s * (0.5 + self._chance()))
            try:
                async with asyncio.timeout(MEND_TIMEOUTS * self._timeout_s):
                    await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, the store has to be found
                if (reason := _reason(error)) != self._told:
                    self._told = reason
                    self._listener.store_lost(reason)
                delay_s = min(max(MEND_DELAY_S_MIN, 2 * delay_s), MEND_DELAY_S_MAX)
            else:
                return

    async def _connect(self) -> None:
        address = await find_primary(self._url, self._timeout_s)
        client = open_client(self._url, address, self._url.login, timeout_s=self._timeout_s, connections=CONNECTIONS)
        try:
            server = await _look(client, address)
            for script in self._scripts:
                await client.script_load(script.source)
            await self._prepare(client)
        except BaseException:
            await client.aclose()
            raise
        self._client, self._failures = client, 0
        self._see(server)
        self._up.set()

    def _see(self, server: Server) -> None:
        """Take note of a server; one that does not continue the one before may have lost what that was told last."""
        before, self._server = self._server, server
        self._listener.store_seen(server)
        if before is not None and not server.continues(before):
            self._found()

    async def _watch(self) -> None:
        """Look at the store from time to time, and follow its primary."""
        # Sentinels name another primary while the old one still takes writes; a Cluster's node says MOVED by itself.
        follows = self._url.topology is Topology.SENTINEL
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S if follows else LOOK_S):
                    await self._look_now.wait()
            asked = self._look_now.is_set()
            self._look_now.clear()
            client, server = self._client, self._server
            if client is None or server is None:
                await self._up.wait()
                continue
            address = server.address
            if follows:
                with suppress(StoreUnavailableError):  # nobody knows of any: ours is as good as it was
                    address = await find_primary(self._url, self._timeout_s)
            if address != server.address:
                self._lose(f"the primary moved to {address}", client)
            elif asked or loop.time() - looked_s >= LOOK_S:
                looked_s = loop.time()
                await self._look_again(client, server)

    async def _look_again(self, client: Redis, before: Server) -> None:
        try:
            server = await _look(client, before.address)
        except StoreUnavailableError as error:
            self._lose(str(error), client)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error, client)
        else:
            if server.continues(before):
                self._see(server)
            else:
                self._lose("it started anew", client)  # it is prepared before it is told what it may have lost


async def _look(client: Redis, address: Address) -> Server:
    """Ask a server how it is. Raises StoreUnavailableError when it is no primary, or too old."""
    info: Mapping[str, Any] = await client.info()
    if info.get("loading"):
        raise StoreUnavailableError(f"{address} is loading its data")
    if info.get("role") != "master":
        raise StoreUnavailableError(f"{address} is a replica: it takes no writes")
    saves = True
    if not info.get("aof_enabled"):
        with suppress(RedisError):  # managed servers often do not tell
            saves = bool((await client.config_get("save")).get("save"))
    return Server(
        address=address,
        run_id=str(info.get("run_id", "")),
        replication_id=str(info.get("master_replid", "")),
        version=str(info.get("redis_version", "")),
        maxmemory_policy=str(info.get("maxmemory_policy", "")),
        evicted=int(info.get("evicted_keys", 0)),
        persistent=saves,
    )


def _gone(error: BaseException) -> bool:
    """Tell whether a failure says that this server serves nobody now, or not us."""
    if type(error).__name__ in GONE_CLASSES:
        return True
    if isinstance(error, LostError):
        cause = error.__cause__ or error.__context__
        return isinstance(cause, OSError) and cause.errno in REFUSED
    return isinstance(error, RedisError) and any(word in str(error) for word in GONE_WORDS)


def _reason(error: BaseException) -> str:
    """Say what failed, in the server's words where it has some; no arguments of a script are in them."""
    if isinstance(error, SlowError | TimeoutError):
        return "it did not answer in time"
    if isinstance(error, StoreUnavailableError):
        return str(error)
    return f"{type(error).__name__}: {error}"
