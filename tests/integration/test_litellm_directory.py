"""Keys, teams and budgets of LiteLLM's own database through a real Envoy: allowed and refused as LiteLLM's rules say.

The rows are LiteLLM's, in tables that its own migrations made; nothing of them is in the configuration.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp
import pytest
import pytest_asyncio

from tests.support.litellm_database import NEWEST, LitellmDatabase, copied, fill_house, hashed, migrated
from tests.support.postgres import PASSWORD, Postgres
from tests.support.processes import eventually
from tests.support.stack import Stack, patient, stack

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

# How soon an operator's change must be in force.
IN_FORCE_SECONDS = 5.0

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: o3
    litellm_params: {model: openai/o3, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
litellm_settings: {max_end_user_budget_id: each}
general_settings: {database_url: os.environ/LITELLM_DATABASE}
extauthz: {directory: litellm}
"""

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """A key with its columns, and what a request with it is answered; None for a key that is not there."""

    name: str
    key: Row | None
    status: int
    model: str = "gpt-4o"
    more: Mapping[str, object] = field(default_factory=dict)


CASES = (
    Case("a key", {}, 200),
    Case("nobody's key", None, 401),
    Case("a blocked key", {"blocked": True}, 401),
    Case("a key that ended", {"expires": datetime(2020, 1, 1)}, 401),  # noqa: DTZ001 - as it is in the table
    Case("a key that cannot be read", {"max_budget": 1.0, "budget_duration": "soon"}, 401),
    Case("a key without money", {"max_budget": 0.0}, 429),
    Case("a key without money, and a free model", {"max_budget": 0.0}, 200, "local-llama"),
    Case(
        "a key without money in one of its windows",
        {"budget_limits": [{"max_budget": 0, "budget_duration": "1d"}]},
        429,
    ),
    Case(
        "a key without money for a model",
        {"model_max_budget": {"o3": {"budget_limit": 0, "time_period": "1d"}}},
        429,
        "o3",
    ),
    Case("the same key and another model", {"model_max_budget": {"o3": {"budget_limit": 0, "time_period": "1d"}}}, 200),
    Case(
        "a key with money for a while",
        {
            "max_budget": 0.0,
            "metadata": {"temp_budget_increase": 5, "temp_budget_expiry": "2090-01-01T00:00:00"},
        },
        200,
    ),
    Case("a key with a shared budget", {"budget_id": "none"}, 429),
    Case("a key of other models", {"models": ["o3"]}, 403),
    Case("a key of a model's group", {"models": ["dear"]}, 200),
    Case("a key of an access group", {"models": ["o3"], "access_group_ids": ["more"]}, 200),
    Case("a key in a team", {"team_id": "fine"}, 200),
    Case("a key in a blocked team", {"team_id": "blocked"}, 401),
    Case("a key in a team that cannot be read", {"team_id": "odd"}, 401),
    Case("a key in a team that is not there", {"team_id": "nowhere"}, 200),
    Case("a key in a team without money", {"team_id": "poor"}, 429),
    Case("a key in a team of other models", {"team_id": "others", "models": ["all-team-models"]}, 403),
    Case("a key in a team whose organization has no money", {"team_id": "of a poor one"}, 429),
    Case("a key of an organization without money", {"organization_id": "poor"}, 429),
    Case("a member without money", {"team_id": "fine", "user_id": "broke member"}, 429),
    Case("a member of other models", {"team_id": "fine", "user_id": "narrow member"}, 403),
    Case("a user without money", {"user_id": "poor"}, 429),
    Case("a user without money, in a team", {"user_id": "poor", "team_id": "fine"}, 200),
    Case("a user without models", {"user_id": "only in teams"}, 403),
    Case("a user without models, in a team", {"user_id": "only in teams", "team_id": "fine"}, 200),
    Case("a user who was deactivated", {"user_id": "gone", "team_id": "fine"}, 401),
    Case("a user who is not there", {"user_id": "nowhere"}, 200),
    Case("a key of a project without money", {"project_id": "poor"}, 429),
    Case("a key of a blocked project", {"project_id": "blocked"}, 401),
    Case("a key with a tag without money", {"metadata": {"tags": ["poor", "unknown"]}}, 429),
    Case("an end user without money", {}, 429, more={"user": "poor"}),
    Case("a blocked end user", {}, 401, more={"user": "blocked"}),
    Case("an end user with money", {}, 200, more={"user": "rich"}),
    Case("an end user who was never seen, where each has none", {}, 429, more={"user": "new"}),
)


def key_of(case: Case) -> str:
    """Give the key of a case."""
    return f"sk-{case.name.replace(',', '').replace(' ', '-')}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database() -> AsyncIterator[LitellmDatabase]:
    """Run a PostgreSQL with the rows of all cases."""
    async with Postgres() as postgres:
        database = await copied(postgres, await migrated(postgres, NEWEST))
        await fill(database)
        yield database


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(database: LitellmDatabase) -> AsyncIterator[Stack]:
    """Run Envoy and a server that knows nobody but from the database."""
    async with stack(CONFIG, options=patient, environment={"LITELLM_DATABASE": database.url}) as running:
        yield running


async def fill(database: LitellmDatabase) -> None:
    """Put the rows of all cases in, among those of 100 teams and 10,000 keys."""
    await fill_house(database)
    none = {"budget_id": "none"}
    await database.insert("BudgetTable", {**none, "max_budget": 0.0}, {"budget_id": "each", "max_budget": 0.0})
    await database.insert(
        "BudgetTable", {"budget_id": "rich", "max_budget": 9.0}, {"budget_id": "tiny", "max_budget": 0.000_000_001}
    )
    await database.insert("BudgetTable", {"budget_id": "narrow", "allowed_models": ["o3"]})
    await database.insert("OrganizationTable", {"organization_id": "poor", **none})
    await database.insert(
        "TeamTable",
        {"team_id": "fine", "max_budget": 50.0, "models": ["all-proxy-models"]},
        {"team_id": "blocked", "blocked": True},
        {"team_id": "odd", "max_budget": 50.0, "budget_duration": "soon"},
        {"team_id": "poor", "max_budget": 0.0},
        {"team_id": "others", "models": ["o3"]},
        {"team_id": "of a poor one", "organization_id": "poor"},
        {"team_id": "stingy", "metadata": {"team_member_budget_id": "tiny"}},
        {"team_id": "raised", "max_budget": 0.0},
    )
    await database.insert(
        "TeamMembership",
        {"team_id": "fine", "user_id": "broke member", **none},
        {"team_id": "fine", "user_id": "narrow member", "budget_id": "narrow"},
    )
    await database.insert(
        "UserTable",
        {"user_id": "poor", "max_budget": 0.0},
        {"user_id": "only in teams", "models": ["no-default-models"]},
        {"user_id": "gone", "metadata": {"scim_active": False}},
    )
    await database.insert("ProjectTable", {"project_id": "poor", **none}, {"project_id": "blocked", "blocked": True})
    await database.insert("TagTable", {"tag_name": "poor", **none})
    await database.insert(
        "EndUserTable",
        {"user_id": "poor", "blocked": False, **none},
        {"user_id": "blocked", "blocked": True},
        {"user_id": "rich", "blocked": False, "budget_id": "rich"},
    )
    await database.insert(
        "ProxyModelTable", {"model_id": "1", "model_name": "gpt-4o", "model_info": {"access_groups": ["dear"]}}
    )
    await database.insert(
        "AccessGroupTable", {"access_group_id": "more", "access_group_name": "more", "access_model_names": ["gpt-4o"]}
    )
    for case in CASES:
        if case.key is not None:
            await database.key(key_of(case), **case.key)
    await database.key("sk-each", team_id="stingy", user_id="anybody")
    await database.key("sk-revoked")
    await database.key("sk-raised", team_id="raised")
    await database.key("sk-never-used")


async def asked(house: Stack, key: str, model: str = "gpt-4o", more: Mapping[str, object] | None = None) -> int:
    """Ask for a chat, and give the status of the answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **(more or {})}
    async with aiohttp.ClientSession() as session:
        answer = await session.post(
            f"{house.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
        )
        await answer.read()
        return answer.status


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_request_is_answered_as_the_rows_say(house: Stack, case: Case) -> None:
    """Who may what, and who has money for it, is what LiteLLM's rows say, by LiteLLM's own rules."""
    assert case.status == await asked(house, key_of(case), case.model, case.more)


async def test_a_budget_for_each_member_is_used_up(house: Stack) -> None:
    """What a team has for each of its members is spent by somebody who is not listed among them."""
    assert await asked(house, "sk-each") == 200
    await house.settled()
    assert await asked(house, "sk-each") == 429


async def test_a_revoked_key_is_refused_soon(house: Stack, database: LitellmDatabase) -> None:
    """A key that is deleted in LiteLLM while it is in use is refused within seconds."""
    assert await asked(house, "sk-revoked") == 200

    await database.run('DELETE FROM "LiteLLM_VerificationToken" WHERE token = $1', hashed("sk-revoked"))

    async def refused() -> bool:
        return await asked(house, "sk-revoked") == 401

    await eventually(refused, IN_FORCE_SECONDS, "the key is refused")


async def test_a_raised_budget_is_in_force_soon(house: Stack, database: LitellmDatabase) -> None:
    """A budget that is raised in LiteLLM lets its team on within seconds."""
    assert await asked(house, "sk-raised") == 429

    await database.run("""UPDATE "LiteLLM_TeamTable" SET max_budget = 50 WHERE team_id = 'raised'""")

    async def served() -> bool:
        return await asked(house, "sk-raised") == 200

    await eventually(served, IN_FORCE_SECONDS, "the team is served")


async def test_without_the_database_who_is_known_is_served(house: Stack, database: LitellmDatabase) -> None:
    """With the database gone, a key in use goes on and one that was never seen is a 503; both are right afterwards.

    No line of the log has the password, and each payer that could not be read is named once.
    """
    assert await asked(house, "sk-a-key") == 200
    assert await asked(house, "sk-a-blocked-key") == 401
    assert await asked(house, "sk-a-key-that-cannot-be-read") == 401
    assert await asked(house, "sk-a-key-in-a-team-that-cannot-be-read") == 401

    await database.postgres.kill()

    assert await asked(house, "sk-never-used") == 503
    assert await asked(house, "sk-a-key") == 200
    assert await asked(house, "sk-a-blocked-key") == 401
    await database.postgres.start()

    async def known() -> bool:
        return await asked(house, "sk-never-used") == 200

    await eventually(known, what="the database is asked again")
    log = house.gate.process.output
    assert PASSWORD not in log
    assert log.count(f"key:{hashed('sk-a-key-that-cannot-be-read')[:8]}") == 1
    assert log.count("team:odd") >= 1
