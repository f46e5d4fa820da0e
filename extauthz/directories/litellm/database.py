"""The connections to LiteLLM's database: two at most, that read only, and a deadline on all that is asked.

asyncpg's own pool would send a second statement after each use to clean up what nothing here makes dirty, and waits
for a server that does not answer when a connection is given back. Here a connection that failed in any way is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from extauthz.directories.litellm.schema import Schema, read_schema
from extauthz.directories.litellm.url import DatabaseUrl
from extauthz.errors import DirectoryUnavailableError

CONNECTIONS_MAX = 2
CONNECT_S = 1.5
# For everything that a caller waits for: a connection, if there is none, and the answers. A lookup waits a little
# longer, and so hears what was wrong.
READ_S = 1.8
CLOSE_S = 1.0
# Beyond it an error says nothing more.
REASON_CHARS_MAX = 300

_SETTINGS = {"application_name": "extauthz", "default_transaction_read_only": "on"}
# All queries of one reading see one state; a second message for it would take as long as a query.
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# The database was changed under us, by an update of LiteLLM's: what was known of its columns is not so any more.
_OTHER_SCHEMA = (asyncpg.UndefinedColumnError, asyncpg.UndefinedTableError, asyncpg.InvalidCachedStatementError)


class Reading:
    """A moment of the database in which it is read; `schema` is what it has."""

    def __init__(self, connection: asyncpg.Connection, schema: Schema) -> None:
        self._connection = connection
        self.schema = schema

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Give the rows of a query."""
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *args)
        return rows


class Database:
    """A database of LiteLLM's. It is connected when it is read, and again after it was away."""

    def __init__(self, url: DatabaseUrl) -> None:
        self._url = url
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: list[asyncpg.Connection] = []
        self._schema: Schema | None = None

    @property
    def known(self) -> bool:
        """Whether it was found to be LiteLLM's."""
        return self._schema is not None

    @asynccontextmanager
    async def reading(self, seconds: float = READ_S) -> AsyncIterator[Reading]:
        """Read one state of the database inside the block, which has so many seconds.

        Raises DirectoryUnavailableError, also of what fails inside the block.
        """
        try:
            async with asyncio.timeout(seconds), self._room:
                connection = await self._connected()
                try:
                    await connection.execute(f"{_BEGIN}; SET LOCAL statement_timeout = {int(seconds * 1000)}")
                    self._schema = self._schema or await read_schema(connection, self._url)
                    yield Reading(connection, self._schema)
                    await connection.execute("COMMIT")
                except BaseException:
                    connection.terminate()
                    raise
                self._idle.append(connection)
        except TimeoutError as error:
            raise DirectoryUnavailableError(
                f"LiteLLM's database at {self._url} did not answer within {seconds:g} s"
            ) from error
        except _OTHER_SCHEMA as error:
            self._schema = None
            raise DirectoryUnavailableError(
                f"the tables of LiteLLM's database at {self._url} have changed, and are looked at again"
            ) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DirectoryUnavailableError(
                f"LiteLLM's database at {self._url} cannot be read: {_reason(error)}"
            ) from error

    async def close(self) -> None:
        """End the connections that nobody uses now."""
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                await connection.close(timeout=CLOSE_S)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    async def _connected(self) -> asyncpg.Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        url = self._url
        return await asyncpg.connect(
            host=url.host,
            port=url.port,
            user=url.user,
            password=url.password,
            database=url.database,
            ssl=url.tls(),
            timeout=CONNECT_S,
            # A PgBouncer passes neither on.
            statement_cache_size=0 if url.pooled else 100,
            server_settings={} if url.pooled else _SETTINGS,
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:REASON_CHARS_MAX]
