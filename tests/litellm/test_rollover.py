"""Overspend that is carried from window to window, held against LiteLLM's own function."""

from __future__ import annotations

import json
import subprocess
from random import Random

import pytest

from extauthz.domain.budgets import Budget, Scope, ScopeKind, Spent
from extauthz.domain.reservation import Claim
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.ledger.memory import MemoryLedger
from tests.support.ledger import SIGNING_KEY, START_MS, ManualClock, a_hold, a_reserve
from tests.support.litellm import ENVIRONMENT, NEEDED, PROGRAM

pytestmark = [NEEDED, pytest.mark.litellm]

DAYS, STORIES = 12, 40
DAY_MS = 86_400_000
TEAM = Scope(ScopeKind.TEAM, ("t",))

ASK = """
import asyncio, json, sys
from datetime import datetime, timezone
import litellm
from litellm.proxy._types import LiteLLM_TeamTable
from litellm.proxy.common_utils.reset_budget_job import ResetBudgetJob
from litellm.proxy.common_utils.timezone_utils import get_budget_reset_settings

async def begins(limit, days):
    team = LiteLLM_TeamTable(team_id="t", max_budget=limit, spend=0, budget_duration="1d")
    for spent in days:
        yield team.spend
        team.spend += spent
        await ResetBudgetJob._reset_budget_for_team(team, datetime.now(timezone.utc), get_budget_reset_settings())

async def main():
    litellm.budget_rollover = True
    print(json.dumps([[int(day) async for day in begins(*story)] for story in json.load(sys.stdin)]))

asyncio.run(main())
"""


async def begins(limit: int, days: list[int]) -> list[int]:
    """Give what is spent at the beginning of each day, when so much is spent on each."""
    clock = ManualClock(START_MS)
    ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
    budget = Budget(limit, WindowRule(Duration(1, Unit.DAY)), rollover=True)
    spent: list[int] = []
    for number, amount in enumerate(days):
        counter = budget.counter(TEAM, budget.rule.at(clock.now_ms()))
        await ledger.reserve(a_reserve(f"r{number}", Claim(counter, limit, 1), reserved_at_ms=clock.now_ms()))
        await ledger.release(f"r{number}")
        (standing,) = await ledger.standings([(counter, limit)])
        spent.append(standing.spent)
        await ledger.settle(a_hold(f"s{number}", (counter,), reserved_at_ms=clock.now_ms()), Spent(amount))
        await clock.advance(DAY_MS)
    return spent


async def test_carried_as_in_litellm() -> None:
    """Each day on which somebody asks begins with as much as in LiteLLM, whatever was spent before."""
    random = Random(1)
    stories = [
        (random.choice([0, 10, 100]), [random.choice([0, 0, 5, 10, 40, 300]) for _ in range(DAYS)])
        for _ in range(STORIES)
    ]
    answer = subprocess.run(  # noqa: ASYNC221 - nothing else happens here
        [PROGRAM.with_name("python"), "-c", ASK],
        input=json.dumps(stories),
        env=dict(ENVIRONMENT),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    ).stdout

    assert json.loads(answer) == [await begins(limit, days) for limit, days in stories]
