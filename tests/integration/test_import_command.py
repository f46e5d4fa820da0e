"""`extauthz import litellm` as operators run it: LiteLLM's own database, a file, and the books of a real store."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from extauthz.config.load import load
from extauthz.config.records import RecordMaker
from extauthz.config.source import FILE_BYTES_MAX
from extauthz.console.imports import summary
from extauthz.directories.litellm.database import Database
from extauthz.directories.litellm.inventory import Inventory
from extauthz.directories.litellm.source import LitellmSource
from extauthz.directories.litellm.url import parse_database_url
from extauthz.directories.lookup import KnownElsewhere, Lookup, Rules
from extauthz.directories.source import FETCH_MAX, FIELDS
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.directory import Directory
from extauthz.domain.payers import Accounts
from extauthz.domain.windows import WindowRule, parse_duration
from extauthz.ledger.pieces import chunks
from extauthz.telemetry.events import Telemetry
from tests.support.books import COMMAND_SECONDS_MAX, TAG, Run, configured, extauthz, tagged
from tests.support.ledger import redis_ledger
from tests.support.litellm_database import (
    HOUSE_KEYS,
    NEWEST,
    LitellmDatabase,
    copied,
    fill_house,
    hashed,
    house_key,
    migrated,
)
from tests.support.postgres import PASSWORD, Postgres
from tests.support.processes import WAIT_SECONDS, Process
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

KEY = hashed("sk-ana")
NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=400)).replace(tzinfo=None)
EARLIER = (NOW - timedelta(minutes=5)).replace(tzinfo=None)
# Of the keys of a house, some of each team and of every kind.
SAMPLE = range(0, HOUSE_KEYS, 53)
# The mappings of a file, by the kind of payer that they have.
MAPPINGS = {
    "organizations": ScopeKind.ORGANIZATION,
    "teams": ScopeKind.TEAM,
    "users": ScopeKind.USER,
    "tags": ScopeKind.TAG,
    "end_users": ScopeKind.END_USER,
}


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
    """Make a database of its own."""
    return await copied(postgres, template)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def store() -> AsyncIterator[RedisServer]:
    """Run an empty store."""
    async with RedisServer(appendonly=False) as running:
        yield running


async def imported(database: LitellmDatabase, *arguments: str | Path) -> Run:
    """Import, and have nothing to complain of."""
    run = await extauthz("import", "litellm", "--database-url", database.url, *arguments)
    assert run.code == 0, run.err
    return run


def payers(text: str) -> Mapping[Scope, object]:
    """Read a file's payers, by their scopes."""
    section = yaml.load(text, yaml.CBaseLoader)["extauthz"]  # all of it as texts, so that no amount is rounded
    found: dict[Scope, object] = {}
    for mapping, kind in MAPPINGS.items():
        for name, record in section.get(mapping, {}).items():
            members = record.pop("members", {})
            found |= {Scope(ScopeKind.MEMBER, (name, user)): member for user, member in members.items()}
            found[Scope(kind, (name,))] = record
    return found | {Scope(ScopeKind.KEY, (record["key_sha256"],)): record for record in section["keys"]}


async def spent(store: RedisServer, *counters: Counter) -> list[int]:
    """Tell what is spent on counters."""
    async with redis_ledger(store.url, tag=TAG) as ledger:
        return [standing.spent for standing in await ledger.standings([(counter, 0) for counter in counters])]


def counter(scope: str, window: str | None) -> Counter:
    """Give the counter of now of a scope and a window."""
    rule = WindowRule(None if window is None else parse_duration(window))
    return Counter(Scope.parse(scope), rule.at(time.time_ns() // 1_000_000))


async def test_a_house_becomes_a_file_that_says_what_the_database_says(
    database: LitellmDatabase, tmp_path: Path
) -> None:
    """100 teams and 10,000 keys become a file that is accepted, with fields and principals as in the live directory."""
    await fill_house(database)
    file = tmp_path / "house.yaml"

    run = await imported(database, "--out", file)

    assert (
        "10 organizations, 100 teams, 500 members, 500 users, 0 projects, 1 tags, 1 end users, 10,000 keys" in run.err
    )
    checked = await extauthz("check-config", file)
    assert checked.code == 0, checked.err
    written = payers(file.read_text(encoding="utf-8"))
    assert sum(scope.kind is ScopeKind.KEY for scope in written) == HOUSE_KEYS
    source = LitellmSource(
        Database(parse_database_url(database.url)), None, lambda who, why: pytest.fail(f"{who}: {why}")
    )
    lookup = Lookup(source, Rules(), Telemetry(), time.monotonic, entries_max=10_000)
    try:
        for piece in chunks([*written], FETCH_MAX):
            fetched = await source.fetch(piece)
            assert {scope: FIELDS[scope.kind].model_validate(written[scope]) for scope in piece} == fetched
        config = load(file, {})
        live = Directory(Accounts()).beside(KnownElsewhere(lookup, RecordMaker(config.settings)))
        for number in SAMPLE:
            token = hashed(house_key(number))
            while await lookup.load(live.asked_of_key(token), lookup.until(WAIT_SECONDS)):
                pass
            assert config.directory.find(token) == live.find(token)
    finally:
        await lookup.close()
    assert house_key(0) not in file.read_text(encoding="utf-8")


async def test_what_litellm_has_booked_is_spent_once(
    database: LitellmDatabase, store: RedisServer, tmp_path: Path
) -> None:
    """Current spend goes to the counters of every kind of budget; done again nothing is added, but what is new is."""
    budgets = {"max_budget": 50.0, "budget_duration": "30d", "budget_reset_at": LATER}
    await database.insert("BudgetTable", {"budget_id": "b", **budgets})
    await database.insert("OrganizationTable", {"organization_id": "acme", "budget_id": "b", "spend": 40.5})
    await database.insert("UserTable", {"user_id": "ana", "spend": 3.25, **budgets})
    await database.insert("TeamTable", {"team_id": "red", "spend": 12.125, **budgets})
    await database.insert("TeamMembership", {"team_id": "red", "user_id": "ana", "budget_id": "b", "spend": 2.0})
    await database.insert("ProjectTable", {"project_id": "p", "budget_id": "b", "spend": 6.0})
    await database.insert("TagTable", {"tag_name": "batch", "budget_id": "b", "spend": 7.0})
    await database.insert("EndUserTable", {"user_id": "kim", "budget_id": "b", "spend": 8.0, "blocked": False})
    await database.key("sk-ana", spend=0.000_000_001, max_budget=1.0, team_id="red", user_id="ana")
    counters = {
        counter("org:acme", "30d"): 40_500_000_000,
        counter("user:ana", "30d"): 3_250_000_000,
        counter("team:red", "30d"): 12_125_000_000,
        counter("member:red/ana", "30d"): 2_000_000_000,
        counter("project:p", "30d"): 6_000_000_000,
        counter("tag:batch", "30d"): 7_000_000_000,
        counter("end_user:kim", "30d"): 8_000_000_000,
        counter(f"key:{KEY}", None): 1,
    }
    config = configured(tmp_path, tagged(store.url))

    first = await imported(database, "--out", tmp_path / "1.yaml", "--config", config)
    assert "LiteLLM has booked something on 8 budgets; 78.875000001 USD were put on 8 of them" in first.err
    assert await spent(store, *counters) == [*counters.values()]

    again = await imported(database, "--out", tmp_path / "2.yaml", "--config", config)
    assert "8 budgets; 0.0 USD were put on 0 of them" in again.err
    assert await spent(store, *counters) == [*counters.values()]

    await database.run('UPDATE "LiteLLM_TeamTable" SET spend = 13.0')
    grown = await imported(database, "--out", tmp_path / "3.yaml", "--config", config)
    assert "8 budgets; 0.875 USD were put on 1 of them" in grown.err
    assert await spent(store, counter("team:red", "30d")) == [13_000_000_000]
    audited = await extauthz("audit", "--config", config)
    assert audited.code == 0, audited.out


async def test_what_is_over_is_not_spent(database: LitellmDatabase, store: RedisServer, tmp_path: Path) -> None:
    """Spend of a window whose reset is due counts nothing, neither of a budget nor of one of several windows."""
    windows = [
        {"max_budget": 5.0, "budget_duration": "1h", "reset_at": (NOW + timedelta(minutes=30)).isoformat()},
        {"max_budget": 9.0, "budget_duration": "7d", "reset_at": EARLIER.isoformat()},
        {"max_budget": 9.0, "budget_duration": "2h"},
    ]
    await database.insert(
        "TeamTable",
        {"team_id": "blue", "max_budget": 50.0, "budget_duration": "1d", "budget_reset_at": EARLIER, "spend": 4.0},
        {"team_id": "green", "budget_limits": windows, "spend": 4.0},
    )
    await database.insert(
        "BudgetWindowSpend",
        *(
            {
                "entity_type": "Team",
                "entity_id": "green",
                "window_duration": duration,
                "spend": amount,
                "window_start": start.replace(tzinfo=None),
                "updated_at": NOW.replace(tzinfo=None),
            }
            for duration, amount, start in (
                ("1h", 1.5, NOW - timedelta(minutes=30)),
                ("7d", 2.5, NOW - timedelta(days=6)),
                ("2h", 3.5, NOW - timedelta(hours=3)),
            )
        ),
    )
    counters = [counter("team:blue", "1d"), *(counter("team:green", window) for window in ("1h", "7d", "2h"))]

    run = await imported(database, "--out", tmp_path / "1.yaml", "--config", configured(tmp_path, tagged(store.url)))

    assert "on 1 budgets; 1.5 USD" in run.err
    assert await spent(store, *counters) == [0, 1_500_000_000, 0, 0]


async def test_what_is_left_out_is_told_with_its_reason(database: LitellmDatabase, tmp_path: Path) -> None:
    """What a file cannot say, or nobody can read, is told with a line each, and without any key.

    A key is left out, and of anybody else nothing is spent; who is named and not there is written without limits. What
    is written twice is written alike.
    """
    await database.insert("TeamTable", {"team_id": "os.environ/HOME"})
    await database.insert("BudgetTable", {"budget_id": "odd", "max_budget": 1.0, "budget_duration": "soon"})
    await database.insert("TeamTable", {"team_id": "odd", "max_budget": 1.0, "budget_duration": "soon"})
    await database.insert("TeamTable", {"team_id": "fine"})
    await database.insert("TeamMembership", {"team_id": "fine", "user_id": "ana", "budget_id": "odd"})
    await database.key("sk-odd", team_id="odd")
    await database.insert("UserTable", {"user_id": "u" * 300})
    await database.insert("UserTable", {"user_id": "odd\nname: ünï #", "max_budget": 1.0})
    await database.insert("VerificationToken", {"token": "sk-never-hashed"})
    await database.key("sk-broken", max_budget=1.0, budget_duration="soon")
    await database.key("sk-ana", user_id="gone", team_id="gone too")
    await database.insert("BudgetTable", {"budget_id": "b", "max_budget": 1.0})
    await database.insert("ModelAccessGroupBudgetTable", {"access_group_name": "dear", "budget_id": "b"})
    file = tmp_path / "out.yaml"

    run = await imported(database, "--out", file)

    assert "refused there: team:os.environ%2FHOME: a text in it begins with os.environ/" in run.err
    assert "refused there: team:odd: budget_duration: 'soon' is not a duration" in run.err
    assert "refused there: member:fine/ana: budget_duration: 'soon' is not a duration" in run.err
    assert f"left out: user:{'u' * 32}…: its id has over 256 bytes" in run.err
    assert "left out: a key that is not hashed: key_sha256: this is not a SHA-256" in run.err
    assert f"left out: key:{hashed('sk-broken')[:8]}: budget_duration: 'soon' is not a duration" in run.err
    assert "left out: 1 model access groups: budgets of access groups of models have no counterpart here" in run.err
    assert "2 of the users are named by others and not in the database: written without limits" in run.err
    assert "sk-never-hashed" not in run.err + file.read_text(encoding="utf-8")
    section = yaml.safe_load(file.read_text(encoding="utf-8"))["extauthz"]
    assert {"ana": {}, "gone": {}, "odd\nname: ünï #": {"max_budget": 1}} == section["users"]
    assert {
        "fine": {"members": {"ana": {"max_budget": 0}}},
        "gone too": {},
        "odd": {"blocked": True},
        "os.environ/HOME": {"blocked": True},
    } == section["teams"]
    assert (await extauthz("check-config", file)).code == 0
    assert (await imported(database)).out == file.read_text(encoding="utf-8")


async def test_a_database_that_cannot_be_read_is_told_in_one_line(postgres: Postgres, store: RedisServer) -> None:
    """No database, a wrong one, or no URL: exit status 1, one line, and never the password."""
    await postgres.create("empty")
    for url, line in (
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
        (postgres.url("empty"), "has no LiteLLM_VerificationToken in its schema `public`: it is not LiteLLM's"),
        (f"mysql://llmproxy:{PASSWORD}@localhost/litellm", "this is not the URL of a PostgreSQL"),
        (f"postgresql://llmproxy:{PASSWORD}@127.0.0.1:1/litellm", "cannot be read"),
    ):
        run = await extauthz("import", "litellm", "--database-url", url)
        assert run.code == 1
        assert line in run.err
        assert run.err.count("\n") == 1
        assert PASSWORD not in run.err + run.out
        assert run.out == ""


async def test_a_file_that_is_too_long_to_be_read_is_told() -> None:
    """More than one file may have is written all the same, with a line about where it can go."""
    lines = [*summary(Inventory(), "#" * (FILE_BYTES_MAX + 1))]
    assert "the file has 4,194,305 bytes, and a configuration at most 4,194,304" in lines[1]
    assert len([*summary(Inventory(), "#" * FILE_BYTES_MAX)]) == len(lines) - 1


WITHOUT_ASYNCPG = "import sys; sys.modules['asyncpg'] = None; from extauthz.cli import main; main()"


@pytest.mark.parametrize("command", ["import", "serve"])
async def test_without_the_extra_it_says_what_to_install(command: str, tmp_path: Path) -> None:
    """Where asyncpg is not installed, both that need it say how it is, in one line; nothing else misses it."""
    config = tmp_path / "gate.yaml"
    config.write_text(
        "extauthz: {directory: litellm, directory_url: postgresql://me@db/litellm, "
        "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', admin: '127.0.0.1:0'}}\n",
        encoding="utf-8",
    )
    arguments = {
        "import": ("import", "litellm", "--database-url", "postgresql://me@db/litellm"),
        "serve": ("serve", "--config", str(config)),
    }[command]
    process = Process(sys.executable, "-c", WITHOUT_ASYNCPG, *arguments)
    async with process:
        assert await process.wait(COMMAND_SECONDS_MAX) == 1
    assert "asyncpg is missing: pip install 'extauthz[litellm]'" in process.output
    assert "Traceback" not in process.output
