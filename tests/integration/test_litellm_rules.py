"""Rows of LiteLLM's own tables, in a real PostgreSQL, against what they say of payers: rule for rule.

Each case is rows, whom is asked for, and what would stand in our configuration file for the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pytest
import pytest_asyncio

from extauthz.config.payers import BudgetFields
from extauthz.directories.litellm.database import Database
from extauthz.directories.litellm.source import LitellmSource
from extauthz.directories.litellm.url import parse_database_url
from extauthz.directories.litellm.values import LIMIT_MAX
from extauthz.directories.source import FIELDS
from extauthz.domain.budgets import Scope
from tests.support.litellm_database import NEWEST, OLDEST, LitellmDatabase, copied, hashed, migrated
from tests.support.postgres import POSTGRES_16, POSTGRES_18, Postgres

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = hashed("sk-ana")
OLD_KEY = hashed("sk-old")
BUDGETS = "BudgetTable"
KEYS = "VerificationToken"

Row = Mapping[str, object]
# The rows of a case, by their tables and in the order that they refer to each other.
Tables = Sequence[tuple[str, Row]]


@dataclass(frozen=True, slots=True)
class Case:
    """Rows, and what they say of a payer; `expected` is None for somebody unknown."""

    name: str
    tables: Tables
    scope: str
    expected: Mapping[str, object] | None
    end_user_budget: str | None = None
    unreadable: Sequence[tuple[str, str]] = field(default=())


def budget(budget_id: str, **columns: object) -> tuple[str, Row]:
    """Give a row of LiteLLM_BudgetTable."""
    return BUDGETS, {"budget_id": budget_id, **columns}


def key(**columns: object) -> tuple[str, Row]:
    """Give a row of LiteLLM_VerificationToken."""
    return KEYS, {"token": KEY, **columns}


def team(**columns: object) -> tuple[str, Row]:
    """Give a row of LiteLLM_TeamTable."""
    return "TeamTable", {"team_id": "red", **columns}


def user(**columns: object) -> tuple[str, Row]:
    """Give a row of LiteLLM_UserTable."""
    return "UserTable", {"user_id": "ana", **columns}


ME = {"key_sha256": KEY}
REPLACED = {"id": "1", "token": OLD_KEY, "active_token_id": KEY, "revoke_at": datetime(2090, 1, 1)}  # noqa: DTZ001
INCREASE = {"temp_budget_increase": 1.5, "temp_budget_expiry": "2027-01-01T00:00:00"}
INCREASED = {"temp_budget_increase": "1.5", "temp_budget_expiry": "2027-01-01T00:00:00+00:00"}

# What LiteLLM had a year ago already.
LONG_SINCE = (
    Case("a key without anything", [key()], f"key:{KEY}", ME),
    Case("nobody", [key()], f"key:{'0' * 64}", None),
    Case(
        "a key of somebody",
        [key(user_id="ana", team_id="red", organization_id=None, key_alias="ana's")],
        f"key:{KEY}",
        {
            **ME,
            "user": "ana",
            "team": "red",
            "key_alias": "ana's",
        },
    ),
    Case("a session of LiteLLM's pages has no team", [key(team_id="litellm-dashboard")], f"key:{KEY}", ME),
    Case("a blocked key", [key(blocked=True)], f"key:{KEY}", {**ME, "blocked": True}),
    Case(
        "a key of somebody who was deactivated",
        [user(metadata={"scim_active": False}), key(user_id="ana")],
        f"key:{KEY}",
        {
            **ME,
            "user": "ana",
            "blocked": True,
        },
    ),
    Case(
        "a key that ends",
        [key(expires=datetime(2027, 5, 4, 3, 2, 1))],  # noqa: DTZ001 - as it is in the table
        f"key:{KEY}",
        {**ME, "expires": "2027-05-04T03:02:01+00:00"},
    ),
    Case(
        "a key that ended long ago",
        [key(expires=datetime(1900, 1, 1))],  # noqa: DTZ001
        f"key:{KEY}",
        {**ME, "expires": "1971-01-01T00:00:00+00:00"},
    ),
    Case(
        "a key with a budget that resets",
        [key(max_budget=0.1, budget_duration="30d")],
        f"key:{KEY}",
        {
            **ME,
            "max_budget": "0.1",
            "budget_duration": "30d",
        },
    ),
    Case("a duration without a limit limits nothing", [key(budget_duration="30d")], f"key:{KEY}", ME),
    Case("a limit that is no number limits nothing", [key(max_budget=float("nan"))], f"key:{KEY}", ME),
    Case("an infinite limit limits nothing", [key(max_budget=float("inf"))], f"key:{KEY}", ME),
    Case("a limit below 0 is exhausted", [key(max_budget=-1.0)], f"key:{KEY}", {**ME, "max_budget": "0"}),
    Case("a limit of 0 is exhausted", [key(max_budget=0.0)], f"key:{KEY}", {**ME, "max_budget": "0"}),
    Case(
        "a limit above all counters is what they hold",
        [key(max_budget=1e15)],
        f"key:{KEY}",
        {
            **ME,
            "max_budget": "9007199.254740991",
        },
    ),
    Case(
        "a key with a shared budget",
        [
            budget("b", max_budget=5.0, soft_budget=3.0, budget_duration="1d"),
            key(budget_id="b"),
        ],
        f"key:{KEY}",
        {**ME, "max_budget": "5", "soft_budget": "3", "budget_duration": "1d"},
    ),
    Case(
        "a key's own limit goes before the shared one",
        [
            budget("b", max_budget=5.0, soft_budget=3.0, budget_duration="1d"),
            key(budget_id="b", max_budget=1.0, budget_duration="7d"),
        ],
        f"key:{KEY}",
        {**ME, "max_budget": "1", "soft_budget": "3", "budget_duration": "7d"},
    ),
    Case(
        "a key with an increase until a moment",
        [key(max_budget=1.0, metadata=INCREASE)],
        f"key:{KEY}",
        {
            **ME,
            "max_budget": "1",
            **INCREASED,
        },
    ),
    Case("an increase of no limit", [key(metadata=INCREASE)], f"key:{KEY}", ME),
    Case(
        "budgets of models, by both of LiteLLM's names",
        [
            key(
                model_max_budget={
                    "gpt-4o": {"budget_limit": 0.5, "time_period": "1d"},
                    "o3": {"max_budget": 2, "budget_duration": "1mo"},
                    "no-time": {"budget_limit": 1.0},
                }
            ),
        ],
        f"key:{KEY}",
        {
            **ME,
            "model_max_budget": {
                "gpt-4o": {"budget_limit": "0.5", "time_period": "1d"},
                "o3": {"budget_limit": "2", "time_period": "1mo"},
            },
        },
    ),
    Case(
        "budgets of models of a shared budget",
        [
            budget("b", model_max_budget={"gpt-4o": {"budget_limit": 0.5, "time_period": "1d"}}),
            key(budget_id="b"),
        ],
        f"key:{KEY}",
        {**ME, "model_max_budget": {"gpt-4o": {"budget_limit": "0.5", "time_period": "1d"}}},
    ),
    Case(
        "a list of models",
        [key(models=["gpt-4o", "openai/*"])],
        f"key:{KEY}",
        {
            **ME,
            "models": ["gpt-4o", "openai/*"],
        },
    ),
    Case(
        "all models of its team", [key(team_id="red", models=["all-team-models"])], f"key:{KEY}", {**ME, "team": "red"}
    ),
    Case("all models that there are", [key(models=["all-proxy-models"])], f"key:{KEY}", ME),
    Case(
        "no models by default",
        [key(models=["no-default-models"])],
        f"key:{KEY}",
        {
            **ME,
            "models": ["no-default-models"],
        },
    ),
    Case(
        "a group of models in a list",
        [
            ("ProxyModelTable", {"model_id": "1", "model_name": "o3", "model_info": {"access_groups": ["dear"]}}),
            ("ProxyModelTable", {"model_id": "2", "model_name": "o4", "model_info": {"access_groups": ["cheap"]}}),
            key(models=["gpt-4o", "dear"]),
        ],
        f"key:{KEY}",
        {**ME, "models": ["gpt-4o", "dear", "o3"]},
    ),
    Case(
        "names that a team has for models",
        [
            ("ModelTable", {"id": 7, "aliases": {"fast": "gpt-4o-mini"}}),
            team(model_id=7, models=["gpt-4o"]),
            key(team_id="red", models=["o3"]),
        ],
        f"key:{KEY}",
        {**ME, "team": "red", "models": ["o3", "fast"]},
    ),
    Case(
        "a key's tags, as far as they have budgets",
        [
            budget("b", max_budget=1.0),
            ("TagTable", {"tag_name": "batch", "budget_id": "b"}),
            ("TagTable", {"tag_name": "seen"}),
            key(metadata={"tags": ["batch", "seen", "unknown"]}),
        ],
        f"key:{KEY}",
        {**ME, "tags": ["batch"]},
    ),
    Case(
        "a tag",
        [
            budget("b", max_budget=1.0, budget_duration="1d"),
            ("TagTable", {"tag_name": "batch", "budget_id": "b"}),
        ],
        "tag:batch",
        {"max_budget": "1", "budget_duration": "1d"},
    ),
    Case(
        "a team",
        [
            budget("b"),
            ("OrganizationTable", {"organization_id": "acme", "budget_id": "b"}),
            team(organization_id="acme", blocked=True, models=["gpt-4o"], max_budget=9.0, budget_duration="1mo"),
        ],
        "team:red",
        {
            "organization": "acme",
            "blocked": True,
            "models": ["gpt-4o"],
            "max_budget": "9",
            "budget_duration": "1mo",
        },
    ),
    Case("a team of all its models", [team(models=["all-team-models"])], "team:red", {}),
    Case(
        "a member with a budget",
        [
            budget("b", max_budget=2.0, budget_duration="7d"),
            team(),
            ("TeamMembership", {"team_id": "red", "user_id": "ana", "budget_id": "b"}),
        ],
        "member:red/ana",
        {"max_budget": "2", "budget_duration": "7d"},
    ),
    Case(
        "a member without one",
        [
            team(),
            ("TeamMembership", {"team_id": "red", "user_id": "ana"}),
        ],
        "member:red/ana",
        {},
    ),
    Case("somebody who is no member", [team()], "member:red/ana", None),
    Case(
        "a member of a team that has a budget for each",
        [
            budget("each", max_budget=3.0),
            team(metadata={"team_member_budget_id": "each"}),
        ],
        "member:red/ana",
        {"max_budget": "3"},
    ),
    Case(
        "a budget of 0 for each member is none",
        [
            budget("each", max_budget=0.0),
            team(metadata={"team_member_budget_id": "each"}),
        ],
        "member:red/ana",
        None,
    ),
    Case(
        "a member's own budget of 0 is exhausted",
        [
            budget("each", max_budget=3.0),
            budget("none", max_budget=0.0),
            team(metadata={"team_member_budget_id": "each"}),
            ("TeamMembership", {"team_id": "red", "user_id": "ana", "budget_id": "none"}),
        ],
        "member:red/ana",
        {"max_budget": "0"},
    ),
    Case(
        "a user",
        [user(max_budget=4.0, budget_duration="daily", models=["gpt-4o"])],
        "user:ana",
        {
            "max_budget": "4",
            "budget_duration": "1d",
            "models": ["gpt-4o"],
        },
    ),
    Case(
        "a user without models outside of teams",
        [user(models=["gpt-4o", "no-default-models"])],
        "user:ana",
        {
            "models": ["no-default-models"],
        },
    ),
    Case(
        "an organization",
        [
            budget("b", max_budget=100.0, budget_duration="1mo", soft_budget=80.0),
            ("OrganizationTable", {"organization_id": "acme", "budget_id": "b", "models": ["gpt-4o"]}),
        ],
        "org:acme",
        {"max_budget": "100", "budget_duration": "1mo", "soft_budget": "80"},
    ),
    Case(
        "an end user with a budget",
        [
            budget("b", max_budget=1.0),
            ("EndUserTable", {"user_id": "kim", "budget_id": "b", "blocked": False}),
        ],
        "end_user:kim",
        {"max_budget": "1"},
    ),
    Case(
        "a blocked end user", [("EndUserTable", {"user_id": "kim", "blocked": True})], "end_user:kim", {"blocked": True}
    ),
    Case(
        "an end user without a budget has the common one",
        [
            budget("all", max_budget=0.2),
            ("EndUserTable", {"user_id": "kim", "blocked": False}),
        ],
        "end_user:kim",
        {"max_budget": "0.2"},
        end_user_budget="all",
    ),
    Case(
        "an end user who was never seen has the common one",
        [budget("all", max_budget=0.2)],
        "end_user:new",
        {"max_budget": "0.2"},
        end_user_budget="all",
    ),
    Case("a common one that is not there", [], "end_user:new", None, end_user_budget="all"),
    Case("a user without anything", [user()], "user:ana", {}),
    Case(
        "a key with a limit in a text",
        [key(metadata={**INCREASE, "temp_budget_increase": "much"}, max_budget=1.0)],
        f"key:{KEY}",
        None,
        unreadable=[(f"key:{KEY[:8]}", "temp_budget_increase is not a number")],
    ),
    Case(
        "a key with a window that is none",
        [key(max_budget=1.0, budget_duration="soon")],
        f"key:{KEY}",
        None,
        unreadable=[(f"key:{KEY[:8]}", "budget_duration: 'soon' is not a duration")],
    ),
    Case(
        "a key with budgets of models that are none",
        [key(model_max_budget={"gpt-4o": 5})],
        f"key:{KEY}",
        None,
        unreadable=[(f"key:{KEY[:8]}", "model_max_budget is not an object of objects")],
    ),
    Case(
        "a team that cannot be read is blocked",
        [team(max_budget=1.0, budget_duration="soon")],
        "team:red",
        {"blocked": True},
        unreadable=[("team:red", "budget_duration: 'soon' is not a duration")],
    ),
    Case(
        "a user who cannot be read has nothing to spend",
        [user(max_budget=1.0, budget_duration="soon")],
        "user:ana",
        {"max_budget": 0},
        unreadable=[("user:ana", "budget_duration: 'soon' is not a duration")],
    ),
    Case(
        "a key with an increase that no number of a machine holds",
        [key(metadata={**INCREASE, "temp_budget_increase": 10**400}, max_budget=1.0)],
        f"key:{KEY}",
        {
            "key_sha256": KEY,
            "max_budget": 1,
            **INCREASED,
            "temp_budget_increase": LIMIT_MAX - 1,
        },
    ),
    Case(
        "a key with an increase until a time that there is not",
        [key(metadata={**INCREASE, "temp_budget_expiry": "0001-01-01T00:00:00+14:00"}, max_budget=1.0)],
        f"key:{KEY}",
        None,
        unreadable=[(f"key:{KEY[:8]}", "temp_budget_expiry is not a date")],
    ),
    Case(
        "a key with a number in a text that Python has not",
        [key(model_max_budget=json.dumps('{"gpt-4o": {"budget_limit": 1e99999999999999999999}}'))],
        f"key:{KEY}",
        None,
        unreadable=[(f"key:{KEY[:8]}", "model_max_budget is not JSON")],
    ),
)

# What came since.
LATELY = (
    Case(
        "a key that was replaced a while ago",
        [key(max_budget=1.0, key_alias="ana's"), ("DeprecatedVerificationToken", REPLACED)],
        f"key:{OLD_KEY}",
        {
            "key_sha256": OLD_KEY,
            "counts_as": KEY,
            "max_budget": "1",
            "key_alias": "ana's",
            "expires": "2090-01-01T00:00:00+00:00",
        },
    ),
    Case(
        "a key that was replaced long ago",
        [key(), ("DeprecatedVerificationToken", {**REPLACED, "revoke_at": datetime(2020, 1, 1)})],  # noqa: DTZ001
        f"key:{OLD_KEY}",
        None,
    ),
    Case(
        "several windows of a key",
        [
            key(
                budget_limits=[
                    {"max_budget": 1.0, "budget_duration": "1d", "reset_at": "2026-01-01T00:00:00Z"},
                    {"max_budget": 5.25, "budget_duration": "30d"},
                ]
            ),
        ],
        f"key:{KEY}",
        {
            **ME,
            "budget_limits": [
                {"max_budget": "1", "budget_duration": "1d"},
                {"max_budget": "5.25", "budget_duration": "30d"},
            ],
        },
    ),
    Case(
        "windows that cannot be read",
        [key(budget_limits={"max_budget": 1.0})],
        f"key:{KEY}",
        None,
        unreadable=[(f"key:{KEY[:8]}", "budget_limits is not a list of objects")],
    ),
    Case(
        "models of an access group",
        [
            (
                "AccessGroupTable",
                {"access_group_id": "g", "access_group_name": "dear", "access_model_names": ["o3", "gpt-4o"]},
            ),
            key(models=["gpt-4o"], access_group_ids=["g", "gone"]),
        ],
        f"key:{KEY}",
        {**ME, "models": ["gpt-4o", "o3"]},
    ),
    Case(
        "an access group narrows nothing where all is allowed",
        [
            ("AccessGroupTable", {"access_group_id": "g", "access_group_name": "dear", "access_model_names": ["o3"]}),
            team(access_group_ids=["g"]),
        ],
        "team:red",
        {},
    ),
    Case(
        "a team that is warned",
        [team(max_budget=9.0, soft_budget=7.0)],
        "team:red",
        {
            "max_budget": "9",
            "soft_budget": "7",
        },
    ),
    Case(
        "budgets of a team's models",
        [
            team(model_max_budget={"gpt-4o": {"budget_limit": 0.5, "time_period": "1d"}}),
        ],
        "team:red",
        {"model_max_budget": {"gpt-4o": {"budget_limit": "0.5", "time_period": "1d"}}},
    ),
    Case(
        "a project",
        [
            budget("b", max_budget=6.0),
            ("ProjectTable", {"project_id": "p", "budget_id": "b", "models": ["o3"], "blocked": True}),
        ],
        "project:p",
        {"max_budget": "6", "models": ["o3"], "blocked": True},
    ),
    Case(
        "a key of a project",
        [
            ("ProjectTable", {"project_id": "p"}),
            key(project_id="p"),
        ],
        f"key:{KEY}",
        {**ME, "project": "p"},
    ),
    Case(
        "a member with an increase",
        [
            budget("b", max_budget=2.0, temp_budget_increase=1.5),
            team(),
            ("TeamMembership", {"team_id": "red", "user_id": "ana", "budget_id": "b"}),
        ],
        "member:red/ana",
        {"max_budget": "2"},
    ),
    Case(
        "a member with models",
        [
            budget("b", allowed_models=["o3"]),
            team(),
            ("TeamMembership", {"team_id": "red", "user_id": "ana", "budget_id": "b"}),
        ],
        "member:red/ana",
        {"models": ["o3"]},
    ),
    Case(
        "an end user with models",
        [
            ("EndUserTable", {"user_id": "kim", "models": ["o3"], "blocked": False}),
        ],
        "end_user:kim",
        {"models": ["o3"]},
    ),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def newest() -> AsyncIterator[LitellmDatabase]:
    """Run the newest PostgreSQL with the newest tables."""
    async with Postgres(POSTGRES_18) as postgres:
        yield await copied(postgres, await migrated(postgres, NEWEST))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def oldest() -> AsyncIterator[LitellmDatabase]:
    """Run an older PostgreSQL with the tables of a year before."""
    async with Postgres(POSTGRES_16) as postgres:
        yield await copied(postgres, await migrated(postgres, OLDEST))


async def told(database: LitellmDatabase, case: Case) -> tuple[BudgetFields | None, list[tuple[str, str]]]:
    """Put the rows of a case in, and ask for its payer twice: what is said of it, and what could not be read."""
    await database.clear()
    for table, row in case.tables:
        await database.insert(table, row)
    unreadable: list[tuple[str, str]] = []
    source = LitellmSource(
        Database(parse_database_url(database.url)), case.end_user_budget, lambda who, why: unreadable.append((who, why))
    )
    scope = Scope.parse(case.scope)
    try:
        first, second = await source.fetch([scope]), await source.fetch([scope, scope])
    finally:
        await source.close()
    assert first == second
    return first.get(scope), unreadable


def expected(case: Case) -> BudgetFields | None:
    """Read what is expected as the configuration file is read."""
    return None if case.expected is None else FIELDS[Scope.parse(case.scope).kind].model_validate(case.expected)


def assert_told(case: Case, fields: BudgetFields | None, unreadable: Sequence[tuple[str, str]]) -> None:
    """Compare, also that what could not be read was told once, however often it was asked for."""
    assert expected(case) == fields
    assert len(case.unreadable) == len(unreadable)
    for (who, why), (told_who, told_why) in zip(case.unreadable, unreadable, strict=True):
        assert who == told_who
        assert told_why.startswith(why)


@pytest.mark.parametrize("case", [*LONG_SINCE, *LATELY], ids=lambda case: case.name)
async def test_the_newest_tables_say(newest: LitellmDatabase, case: Case) -> None:
    """What the rows of the newest LiteLLM say of a payer is what LiteLLM makes of them."""
    assert_told(case, *await told(newest, case))


@pytest.mark.parametrize("case", LONG_SINCE, ids=lambda case: case.name)
async def test_older_tables_say_the_same(oldest: LitellmDatabase, case: Case) -> None:
    """What was there a year ago is read as it is today: columns and tables that came since are not missed."""
    assert_told(case, *await told(oldest, case))
