"""Which tables and columns of LiteLLM's are read, and which of them this database has.

LiteLLM adds columns with most releases. Those without which nobody can be told from anybody are needed; any other is
read as NULL where it is not there yet, which says what an older LiteLLM says: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from extauthz.directories.litellm.url import DatabaseUrl
from extauthz.errors import DirectoryUnavailableError

# The releases whose schemas are tried by the tests.
TRIED = "1.78 to 1.108"

TEXT, TEXTS, JSON, AMOUNT, FLAG, TIME, NUMBER = "text", "text[]", "jsonb", "float8", "boolean", "timestamp", "integer"


class SchemaRefusedError(DirectoryUnavailableError):
    """The database is not one of a LiteLLM that is known here."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns with their types, the `needed` ones among them, and whether there may be none such."""

    name: str
    columns: Mapping[str, str]
    needed: tuple[str, ...]
    optional: bool = False


_LIMIT = {"max_budget": AMOUNT, "budget_duration": TEXT}
_SPEND = {"spend": AMOUNT, "budget_reset_at": TIME}

BUDGETS = Table(
    "LiteLLM_BudgetTable",
    {
        "budget_id": TEXT,
        **_LIMIT,
        "budget_reset_at": TIME,
        "soft_budget": AMOUNT,
        "model_max_budget": JSON,
        "allowed_models": TEXTS,
        "temp_budget_increase": AMOUNT,
        "temp_budget_expiry": TIME,
    },
    needed=("budget_id", "max_budget", "budget_duration"),
)
KEYS = Table(
    "LiteLLM_VerificationToken",
    {
        "token": TEXT,
        "key_alias": TEXT,
        "blocked": FLAG,
        "expires": TIME,
        "models": TEXTS,
        "user_id": TEXT,
        "team_id": TEXT,
        "organization_id": TEXT,
        "project_id": TEXT,
        "metadata": JSON,
        **_LIMIT,
        **_SPEND,
        "budget_id": TEXT,
        "budget_limits": JSON,
        "model_max_budget": JSON,
        "access_group_ids": TEXTS,
    },
    needed=("token", "blocked", "expires", "models", "user_id", "team_id", "metadata", "max_budget", "budget_duration"),
)
REPLACED_KEYS = Table(
    "LiteLLM_DeprecatedVerificationToken",
    {"token": TEXT, "active_token_id": TEXT, "revoke_at": TIME},
    needed=("token", "active_token_id", "revoke_at"),
    optional=True,
)
TEAMS = Table(
    "LiteLLM_TeamTable",
    {
        "team_id": TEXT,
        "blocked": FLAG,
        "models": TEXTS,
        "organization_id": TEXT,
        "metadata": JSON,
        **_LIMIT,
        **_SPEND,
        "soft_budget": AMOUNT,
        "budget_limits": JSON,
        "model_max_budget": JSON,
        "access_group_ids": TEXTS,
        "model_id": NUMBER,
    },
    needed=("team_id", "blocked", "models", "metadata", "max_budget", "budget_duration"),
)
MEMBERS = Table(
    "LiteLLM_TeamMembership",
    {"team_id": TEXT, "user_id": TEXT, "budget_id": TEXT, "spend": AMOUNT},
    needed=("team_id", "user_id", "budget_id"),
)
USERS = Table(
    "LiteLLM_UserTable",
    {
        "user_id": TEXT,
        "models": TEXTS,
        "metadata": JSON,
        **_LIMIT,
        **_SPEND,
        "model_max_budget": JSON,
    },
    needed=("user_id", "models", "max_budget", "budget_duration"),
)
ORGANIZATIONS = Table(
    "LiteLLM_OrganizationTable",
    {"organization_id": TEXT, "budget_id": TEXT, "models": TEXTS, "spend": AMOUNT},
    needed=("organization_id", "budget_id"),
)
END_USERS = Table(
    "LiteLLM_EndUserTable",
    {"user_id": TEXT, "blocked": FLAG, "budget_id": TEXT, "models": TEXTS, "spend": AMOUNT},
    needed=("user_id", "blocked", "budget_id"),
)
PROJECTS = Table(
    "LiteLLM_ProjectTable",
    {"project_id": TEXT, "blocked": FLAG, "budget_id": TEXT, "models": TEXTS, "team_id": TEXT, "spend": AMOUNT},
    needed=("project_id", "blocked", "budget_id", "models"),
    optional=True,
)
TAGS = Table(
    "LiteLLM_TagTable",
    {"tag_name": TEXT, "budget_id": TEXT, "spend": AMOUNT},
    needed=("tag_name", "budget_id"),
    optional=True,
)
ACCESS_GROUPS = Table(
    "LiteLLM_AccessGroupTable",
    {"access_group_id": TEXT, "access_model_names": TEXTS},
    needed=("access_group_id", "access_model_names"),
    optional=True,
)
MODEL_ALIASES = Table("LiteLLM_ModelTable", {"id": NUMBER, "aliases": JSON}, needed=("id", "aliases"), optional=True)
MODELS = Table(
    "LiteLLM_ProxyModelTable",
    {"model_name": TEXT, "model_info": JSON},
    needed=("model_name", "model_info"),
    optional=True,
)
WINDOW_SPEND = Table(
    "LiteLLM_BudgetWindowSpend",
    {"entity_type": TEXT, "entity_id": TEXT, "window_duration": TEXT, "window_start": TIME, "spend": AMOUNT},
    needed=("entity_type", "entity_id", "window_duration", "window_start", "spend"),
    optional=True,
)
GROUP_BUDGETS = Table(
    "LiteLLM_ModelAccessGroupBudgetTable",
    {"access_group_name": TEXT, "budget_id": TEXT},
    needed=("access_group_name", "budget_id"),
    optional=True,
)
TABLES = (
    *(BUDGETS, KEYS, REPLACED_KEYS, TEAMS, MEMBERS, USERS, ORGANIZATIONS, END_USERS, PROJECTS, TAGS),
    *(ACCESS_GROUPS, MODEL_ALIASES, MODELS, WINDOW_SPEND, GROUP_BUDGETS),
)

# pg_catalog, as information_schema hides what one may not read, and a table without rights is not one that is missing.
_COLUMNS = """
SELECT c.relname AS table_name, a.attname AS column_name, has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY($2::text[]) AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
AND a.attnum > 0 AND NOT a.attisdropped
"""


class Asking(Protocol):
    """A connection, as far as it is needed here."""

    async def fetch(self, query: str, *args: object) -> list[Mapping[str, object]]:
        """Give the rows of a query."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables that a database has, with the columns of each; `name` is the schema that they are in."""

    name: str
    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def has(self, table: Table) -> bool:
        """Tell whether a table is there."""
        return table.name in self.tables

    def source(self, table: Table) -> str:
        """Give a table as it stands after FROM; one that is not there has no rows."""
        if self.has(table):
            return f"{_quoted(self.name)}.{_quoted(table.name)}"
        nulls = ", ".join(f"NULL::{kind} AS {_quoted(name)}" for name, kind in table.columns.items())
        return f"(SELECT {nulls} WHERE false)"

    def column(self, table: Table, alias: str, name: str) -> str:
        """Give a column of a table that is called `alias`, NULL where it is not there."""
        if not self.has(table) or name in self.tables[table.name]:
            return f"{alias}.{_quoted(name)}"
        return f"NULL::{table.columns[name]}"

    def columns(self, table: Table, alias: str, prefix: str = "") -> str:
        """Give all columns of a table, as they stand after SELECT."""
        return ", ".join(f"{self.column(table, alias, name)} AS {_quoted(prefix + name)}" for name in table.columns)


async def read_schema(connection: Asking, url: DatabaseUrl) -> Schema:
    """Find out which of the tables there are. Raises SchemaRefusedError where too little is there, or readable."""
    rows = await connection.fetch(_COLUMNS, url.schema, [table.name for table in TABLES])
    found: dict[str, set[str]] = {}
    hidden: list[str] = []
    known = {table.name: table for table in TABLES}
    for row in rows:
        table, column = str(row["table_name"]), str(row["column_name"])
        found.setdefault(table, set()).add(column)
        if not row["readable"] and column in known[table].columns:
            hidden.append(f"{table}.{column}")
    _check(found, url)
    if hidden:
        raise SchemaRefusedError(
            f"the user of LiteLLM's database at {url} may not read {_some(sorted(hidden))}: GRANT SELECT ON ALL TABLES "
            f"IN SCHEMA {_quoted(url.schema)} TO {_quoted(url.user)}"
        )
    return Schema(url.schema, {name: frozenset(columns) for name, columns in found.items()})


def _check(found: Mapping[str, set[str]], url: DatabaseUrl) -> None:
    if KEYS.name not in found:
        raise SchemaRefusedError(
            f"the database at {url} has no {KEYS.name} in its schema `{url.schema}`: it is not LiteLLM's; name the one "
            "that is by directory_url, with ?schema=NAME where LiteLLM's own URL has it"
        )
    missing = [table.name for table in TABLES if not table.optional and table.name not in found]
    missing += [
        f"{table.name}.{column}"
        for table in TABLES
        if table.name in found
        for column in table.needed
        if column not in found[table.name]
    ]
    if missing:
        raise SchemaRefusedError(
            f"the database at {url} has no {_some(missing)}: it is of a LiteLLM that is not known here ({TRIED} are); "
            "update extauthz, or let `extauthz import litellm` of an older one write the keys into files"
        )


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} (and {len(rest)} more)" if rest else first


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
