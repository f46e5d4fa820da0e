"""LiteLLM's own tables in a real PostgreSQL, made by LiteLLM's own migrations and filled by hand.

The migrations come out of the wheel that LiteLLM installs them from: of the LiteLLM that is installed beside the tests,
and of one a year older.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from tests.support.postgres import Postgres

CACHE = Path(__file__).parents[2] / ".cache/litellm-schema"
MIGRATIONS = "litellm_proxy_extras/migrations"
NEWEST = "0.4.110"
OLDEST = "0.2.29"
VERSIONS = (NEWEST, OLDEST)

# What LiteLLM writes into columns that may not be empty and say nothing here.
_AUTHOR = {"created_by": "tests", "updated_by": "tests"}
_FILLED: Mapping[str, Mapping[str, object]] = {
    "BudgetTable": _AUTHOR,
    "OrganizationTable": {**_AUTHOR, "organization_alias": "", "models": []},
    "ProjectTable": {**_AUTHOR, "models": []},
    "TeamTable": {"models": [], "admins": [], "members": []},
    "UserTable": {"models": []},
    "VerificationToken": {"models": []},
    "TagTable": {"models": []},
    "ModelTable": _AUTHOR,
    "ProxyModelTable": {**_AUTHOR, "litellm_params": {}},
}

# In an order in which none is referred to by those that are left.
_CLEARED = tuple(
    f"LiteLLM_{table}"
    for table in (
        *("VerificationToken", "DeprecatedVerificationToken", "TeamMembership", "EndUserTable", "TagTable"),
        *("ProjectTable", "TeamTable", "UserTable", "OrganizationTable", "ModelTable", "ProxyModelTable"),
        *("AccessGroupTable", "BudgetWindowSpend", "ModelAccessGroupBudgetTable", "BudgetTable"),
    )
)

_names = count()


def hashed(key: str) -> str:
    """Give the token of a key, as LiteLLM writes it."""
    return sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class LitellmDatabase:
    """A database of LiteLLM's: its name, and where it is."""

    postgres: Postgres
    name: str

    @property
    def url(self) -> str:
        """Where it is."""
        return self.postgres.url(self.name)

    async def run(self, statement: str, *values: object) -> None:
        """Change something as an operator with a SQL console would."""
        async with self.postgres.connection(self.name) as connection:
            await connection.execute(statement, *values)

    async def insert(self, table: str, *rows: Mapping[str, object]) -> None:
        """Put rows into a table, named without LiteLLM's prefix; objects and lists of them become JSON."""
        async with self.postgres.connection(self.name) as connection:
            for columns, alike in _by_columns({**_FILLED.get(table, {}), **row} for row in rows):
                names = ", ".join(f'"{name}"' for name in columns)
                places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
                await connection.executemany(f'INSERT INTO "LiteLLM_{table}" ({names}) VALUES ({places})', alike)

    async def clear(self) -> None:
        """Empty the tables that tests fill."""
        async with self.postgres.connection(self.name) as connection:
            found = await connection.fetch("SELECT relname FROM pg_stat_user_tables WHERE relname = ANY($1)", _CLEARED)
            for table in _CLEARED:
                if any(row["relname"] == table for row in found):
                    await connection.execute(f'DELETE FROM "{table}"')

    async def key(self, key: str, **columns: object) -> str:
        """Add a key, and give its token."""
        await self.insert("VerificationToken", {"token": hashed(key), **columns})
        return hashed(key)


async def migrated(postgres: Postgres, version: str) -> str:
    """Make a database with the tables of a version of LiteLLM's, and give its name, for copies of it."""
    folder = CACHE / version / MIGRATIONS
    if not folder.exists():
        pytest.fail(f"no {folder}: run `make setup`")
    name = f"litellm-{version}"
    await postgres.create(name)
    async with postgres.connection(name) as connection:
        for migration in sorted(folder.glob("*/migration.sql")):
            await connection.execute(migration.read_text(encoding="utf-8"))
    return name


async def copied(postgres: Postgres, template: str) -> LitellmDatabase:
    """Make a database of its own for a test."""
    name = f"{template}-{next(_names)}"
    await postgres.create(name, template)
    return LitellmDatabase(postgres, name)


def _by_columns(rows: Iterable[Mapping[str, object]]) -> Iterable[tuple[tuple[str, ...], list[tuple[object, ...]]]]:
    """Put rows with the same columns together."""
    groups: dict[tuple[str, ...], list[tuple[object, ...]]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(tuple(map(_encoded, row.values())))
    return groups.items()


def _encoded(value: object) -> object:
    lists = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    return json.dumps(value) if isinstance(value, dict) or lists else value


HOUSE_TEAMS = 100
HOUSE_KEYS = 10_000
HOUSE_USERS = 500


def house_key(number: int) -> str:
    """Give one of the keys of a house."""
    return f"sk-house-{number}"


async def fill_house(database: LitellmDatabase) -> None:
    """Put a large house in: an organization for each ten teams, members, budgets of every kind, and 10,000 keys."""
    orgs = range(HOUSE_TEAMS // 10)
    await database.insert(
        "BudgetTable",
        {"budget_id": "member", "max_budget": 5.0, "budget_duration": "7d"},
        {"budget_id": "shared", "max_budget": 2.5, "budget_duration": "1d", "soft_budget": 2.0},
        *({"budget_id": f"org{n}", "max_budget": 1000.0 + n, "budget_duration": "30d"} for n in orgs),
    )
    await database.insert(
        "OrganizationTable", *({"organization_id": f"org{n}", "budget_id": f"org{n}", "spend": 10.0} for n in orgs)
    )
    await database.insert(
        "UserTable",
        *(
            {"user_id": f"user{n}", "max_budget": 20.0 if n % 2 else None, "budget_duration": "30d", "spend": 0.25 * n}
            for n in range(HOUSE_USERS)
        ),
    )
    await database.insert("TagTable", {"tag_name": "batch", "budget_id": "shared"})
    await database.insert("EndUserTable", {"user_id": "customer", "budget_id": "shared", "blocked": False})
    await database.insert(
        "TeamTable",
        *(
            {
                "team_id": f"team{n}",
                "organization_id": f"org{n // 10}",
                "max_budget": 100.0 + n,
                "budget_duration": "1mo",
                "spend": 1.5 * n,
                "models": ["gpt-4o", "paid"] if n % 3 else [],
                "metadata": {"team_member_budget_id": "member"} if n % 4 == 0 else {},
                "blocked": n == HOUSE_TEAMS - 1,
            }
            for n in range(HOUSE_TEAMS)
        ),
    )
    await database.insert(
        "TeamMembership",
        *(
            {"team_id": f"team{n % HOUSE_TEAMS}", "user_id": f"user{n}", "budget_id": "member", "spend": 0.5}
            for n in range(HOUSE_USERS)
        ),
    )
    await database.insert("VerificationToken", *map(_house_row, range(HOUSE_KEYS)))


def _house_row(number: int) -> Mapping[str, object]:
    return {
        "token": hashed(house_key(number)),
        "key_alias": f"key {number}",
        "team_id": f"team{number % HOUSE_TEAMS}",
        "user_id": f"user{number % HOUSE_USERS}" if number % 5 else None,
        "models": ["all-team-models"] if number % 2 else ["paid"],
        "metadata": {"tags": ["batch"]} if number % 7 == 0 else {},
        "max_budget": 1.0 + number / 1000 if number % 3 else None,
        "budget_id": None if number % 3 else "shared",
        "budget_duration": "30d",
        "spend": number / 10_000,
        "blocked": number % 1000 == 999,
        "model_max_budget": {"paid": {"budget_limit": 0.5, "time_period": "1d"}} if number % 11 == 0 else {},
    }
