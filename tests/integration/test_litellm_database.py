"""The directory of LiteLLM's database when the database is wrong, slow, away or changed: deadlines, and clear lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import pytest_asyncio

from extauthz.directories.litellm.database import CONNECTIONS_MAX, Database
from extauthz.directories.litellm.opening import litellm_source
from extauthz.directories.litellm.schema import SchemaRefusedError
from extauthz.directories.litellm.source import LitellmSource
from extauthz.directories.litellm.url import parse_database_url
from extauthz.directories.source import FETCH_MAX
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import DirectoryUnavailableError, UnclearError
from tests.support.litellm_database import (
    NEWEST,
    OLDEST,
    LitellmDatabase,
    copied,
    fill_house,
    hashed,
    house_key,
    migrated,
)
from tests.support.postgres import PASSWORD, Postgres
from tests.support.processes import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEAM = Scope(ScopeKind.TEAM, ("red",))
# Longer than any deadline of the directory, by far.
PATIENCE_S = 20.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def postgres() -> AsyncIterator[Postgres]:
    """Run a PostgreSQL."""
    async with Postgres() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def template(postgres: Postgres) -> str:
    """Make the newest tables, for copies."""
    return await migrated(postgres, NEWEST)


@pytest_asyncio.fixture(loop_scope="module")
async def database(postgres: Postgres, template: str) -> LitellmDatabase:
    """Make a database of its own, with one team."""
    made = await copied(postgres, template)
    await made.insert("TeamTable", {"team_id": "red", "max_budget": 1.0})
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def source(database: LitellmDatabase) -> AsyncIterator[LitellmSource]:
    """Open the database as a source in which all can be read."""
    opened = litellm_source(database.url, None, lambda who, why: pytest.fail(f"{who}: {why}"))
    try:
        yield opened
    finally:
        await opened.close()


async def refused(url: str) -> str:
    """Open a database that is refused, before anybody asks and at every question, and give the line."""
    source = litellm_source(url, None, lambda who, why: pytest.fail(f"{who}: {why}"))
    with pytest.raises(SchemaRefusedError) as at_start:
        await source.changes()
    with pytest.raises(DirectoryUnavailableError) as asked:
        await source.fetch([TEAM])
    assert str(at_start.value) == str(asked.value)
    assert PASSWORD not in str(asked.value)
    return str(asked.value)


async def test_a_house_is_read_in_batches(database: LitellmDatabase, source: LitellmSource) -> None:
    """Of 100 teams and 10,000 keys as many as a lookup asks for at once are found in one answer, and nobody else."""
    await fill_house(database)
    known = [Scope(ScopeKind.KEY, (hashed(house_key(number * 39)),)) for number in range(FETCH_MAX - 1)]
    nobody = Scope(ScopeKind.KEY, (hashed("sk-nobody"),))

    found = await source.fetch([*known, nobody])

    assert set(known) == found.keys()
    assert await source.changes() is None


async def test_a_name_that_no_text_can_have_fails_nobody_else(database: LitellmDatabase) -> None:
    """An end user or a tag with a NUL, as a body may name one, is nobody; who is asked for beside it is found."""
    await database.insert("BudgetTable", {"budget_id": "all", "max_budget": 0.5})
    end_user = Scope(ScopeKind.END_USER, ("a\0b",))
    odd = [Scope(ScopeKind.TAG, ("a\0b",)), Scope(ScopeKind.MEMBER, ("red", "a\0b")), end_user]
    source = litellm_source(database.url, "all", lambda who, why: pytest.fail(f"{who}: {why}"))
    try:
        found = await source.fetch([*odd, TEAM])
    finally:
        await source.close()

    assert {TEAM, end_user} == found.keys()
    assert Decimal("0.5") == found[end_user].max_budget


async def test_a_database_that_is_not_litellms_is_refused(postgres: Postgres) -> None:
    """A database without LiteLLM's tables is refused at the start, with a line that says where to look."""
    await postgres.create("somebodys")

    line = await refused(postgres.url("somebodys"))

    assert "somebodys has no LiteLLM_VerificationToken in its schema `public`: it is not LiteLLM's" in line
    assert "by directory_url, with ?schema=NAME" in line


async def test_tables_that_lack_what_is_needed_are_refused(database: LitellmDatabase) -> None:
    """Tables of a LiteLLM in which nobody can be told apart are refused, and the line names the first column."""
    await database.run('ALTER TABLE "LiteLLM_VerificationToken" DROP COLUMN "blocked", DROP COLUMN "expires"')

    line = await refused(database.url)

    assert "has no LiteLLM_VerificationToken.blocked (and 1 more): it is of a LiteLLM that is not known here" in line


async def test_a_table_that_may_not_be_read_is_refused(postgres: Postgres, database: LitellmDatabase) -> None:
    """A user who may not read a table is told so: taken for missing, its budgets would silently be none."""
    await database.run("CREATE ROLE reader LOGIN")
    await database.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    await database.run('REVOKE SELECT ON "LiteLLM_ProjectTable" FROM reader')
    url = database.url.replace("llmproxy", "reader")

    line = await refused(url)

    assert "may not read LiteLLM_ProjectTable." in line
    assert 'GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "reader"' in line
    await database.run('GRANT SELECT ON "LiteLLM_ProjectTable" TO reader')
    source = litellm_source(url, None, lambda who, why: pytest.fail(f"{who}: {why}"))
    assert TEAM in await source.fetch([TEAM])
    await source.close()


async def test_nothing_can_be_written(database: LitellmDatabase) -> None:
    """The connection reads: LiteLLM's rows are safe from us, whatever rights the user has."""
    opened = Database(parse_database_url(database.url))
    with pytest.raises(DirectoryUnavailableError, match="read-only transaction"):
        async with opened.reading() as reading:
            await reading.fetch('DELETE FROM "LiteLLM_TeamTable"')
    async with opened.reading() as reading:
        assert len(await reading.fetch('SELECT * FROM "LiteLLM_TeamTable"')) == 1
    await opened.close()


async def test_a_schema_of_another_name_is_read(postgres: Postgres, database: LitellmDatabase) -> None:
    """LiteLLM's URL may name a schema, and settings of Prisma's that mean nothing here."""
    await database.run("ALTER SCHEMA public RENAME TO gateway")
    url = f"{database.url}?schema=gateway&connection_limit=10&pool_timeout=60&sslmode=disable"

    source = litellm_source(url, None, lambda who, why: pytest.fail(f"{who}: {why}"))

    assert TEAM in await source.fetch([TEAM])
    await source.close()


async def test_columns_that_come_and_go_are_seen(database: LitellmDatabase, source: LitellmSource) -> None:
    """An update of LiteLLM's under a running server fails one question at most, and the next one is right."""
    assert TEAM in await source.fetch([TEAM])
    await database.run('ALTER TABLE "LiteLLM_TeamTable" DROP COLUMN "soft_budget"')

    with pytest.raises(DirectoryUnavailableError, match="have changed"):
        await source.fetch([TEAM])

    assert TEAM in await source.fetch([TEAM])


async def test_many_questions_share_two_connections(database: LitellmDatabase, source: LitellmSource) -> None:
    """However much is asked at once, the database has two connections of ours and no more."""
    await asyncio.gather(*(source.fetch([TEAM]) for _ in range(CONNECTIONS_MAX * 5)))

    async with database.postgres.connection() as connection:
        count = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'extauthz'", database.name
        )
    assert count == CONNECTIONS_MAX


async def test_a_database_that_was_away_is_found_again(
    postgres: Postgres, database: LitellmDatabase, source: LitellmSource
) -> None:
    """A killed server is no answer within the deadline; when it is back, so are the answers, of the same source."""
    assert TEAM in await source.fetch([TEAM])
    await postgres.kill()
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            with pytest.raises(DirectoryUnavailableError, match="cannot be read"):
                await source.fetch([TEAM])
    await postgres.start()
    assert TEAM in await source.fetch([TEAM])


async def test_a_database_that_stands_still_is_given_up(
    postgres: Postgres, database: LitellmDatabase, source: LitellmSource
) -> None:
    """One that takes connections and says nothing is given up at the deadline, time and again, and found again."""
    assert TEAM in await source.fetch([TEAM])
    holds = 'BEGIN; LOCK TABLE "LiteLLM_TeamTable" IN ACCESS EXCLUSIVE MODE'
    async with postgres.connection(database.name) as other:
        await other.execute(holds)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(DirectoryUnavailableError):
                await source.fetch([TEAM])
        await other.execute("ROLLBACK")
    assert TEAM in await source.fetch([TEAM])
    async with postgres.paused(), asyncio.timeout(PATIENCE_S):
        new = litellm_source(database.url, None, lambda who, why: pytest.fail(f"{who}: {why}"))
        with pytest.raises(DirectoryUnavailableError, match="did not answer within"):
            await new.fetch([TEAM])

    async def found() -> bool:
        return TEAM in await new.fetch([TEAM])

    await eventually(found)
    await new.close()


async def test_older_tables_are_taken(postgres: Postgres) -> None:
    """The tables of a year ago, in the newest PostgreSQL: nothing that is missing there is needed."""
    database = await copied(postgres, await migrated(postgres, OLDEST))
    await database.insert("TeamTable", {"team_id": "red"})
    source = litellm_source(database.url, "nothing", lambda who, why: pytest.fail(f"{who}: {why}"))
    assert await source.changes() is None
    assert TEAM in await source.fetch([TEAM, Scope(ScopeKind.PROJECT, ("p",))])
    await source.close()


async def test_a_url_that_is_none_is_told_without_its_password() -> None:
    """What is no URL of a PostgreSQL is a mistake, and its password stays where it is."""
    for url in (f"redis://:{PASSWORD}@localhost/0", f"postgresql://me:{PASSWORD}@host:port/db", PASSWORD):
        with pytest.raises(UnclearError, match="directory_url: this is not") as told:
            litellm_source(url, None, lambda who, why: pytest.fail(f"{who}: {why}"))
        assert PASSWORD not in str(told.value)
