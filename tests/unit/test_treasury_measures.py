"""Budgets in other measures than USD, changed by hand: which one is meant, and how much of what."""

from __future__ import annotations

from pathlib import Path

import pytest

from extauthz.config.load import load
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.errors import ImpossibleError, UnclearError
from extauthz.ledger.base import AmendmentKind
from extauthz.ledger.memory import MemoryLedger
from extauthz.survey import Survey
from extauthz.telemetry.events import Telemetry
from extauthz.treasury import Amount, BudgetQuery, Change, Treasury
from tests.support.ledger import SIGNING_KEY

CONFIG = """
extauthz:
  teams:
    t:
      max_budget: 5
      max_tokens: 1000
      budget_duration: 24h
      model_max_budget: {openai/gpt-4o: {max_requests: 3, budget_duration: 1d}}
"""
LABELS = ["24h", "24h/tokens", "1d/requests/model=openai%2Fgpt-4o"]


@pytest.fixture
def treasury(tmp_path: Path) -> Treasury:
    """Give a treasury of one team."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    config = load(file, {})
    return Treasury(MemoryLedger(lambda: 0, SIGNING_KEY), lambda: config, Survey, Telemetry())


def change(window: str, amount: Amount | None, kind: AmendmentKind = AmendmentKind.GRANT) -> Change:
    """Want a change of the team."""
    return Change(kind, "team:t", window, amount, "ana", "one")


@pytest.mark.parametrize(
    ("window", "amount", "limit"),
    [
        ("24h", Amount(7, in_usd=True), 5_000_000_007),
        ("1440m/tokens", None, None),
        ("24h/tokens", Amount(7, in_usd=False), 1007),
        ("1d/requests/model=openai%2Fgpt-4o", Amount(7, in_usd=False), 10),
    ],
    ids=["usd", "another length of the same time", "tokens", "a model's requests"],
)
async def test_the_one_that_is_named(treasury: Treasury, window: str, amount: Amount | None, limit: int | None) -> None:
    """By its label, as lists show it; a window of another unit is another one."""
    if limit is None:
        with pytest.raises(
            ImpossibleError, match="no budget with the window 1440m/tokens, but with 24h and 24h/tokens"
        ):
            await treasury.change(change(window, amount))
        return
    after, changed = await treasury.change(change(window, amount))

    assert (limit, True) == (after.standing.limit, changed)


@pytest.mark.parametrize(
    ("window", "amount", "sentence"),
    [
        ("24h/tokens", Amount(7, in_usd=True), "the budget 24h/tokens of team:t is in tokens: send `amount`"),
        ("24h", Amount(7, in_usd=False), "the budget 24h of team:t is in USD: send `amount_usd`"),
        ("24h/tokens", Amount(AMOUNT_NANOUSD_MAX, in_usd=False), f"above {AMOUNT_NANOUSD_MAX} tokens, the most"),
        ("24h/drops", Amount(7, in_usd=False), "`window`: "),
        ("", Amount(7, in_usd=False), "several budgets: name the `window` of one, 24h or 24h/tokens or 1d/requests"),
    ],
    ids=["usd for tokens", "tokens for usd", "too many", "no measure", "none named"],
)
async def test_what_is_unclear(treasury: Treasury, window: str, amount: Amount, sentence: str) -> None:
    """An amount of one measure never lands on a budget of another."""
    with pytest.raises(UnclearError) as refused:
        await treasury.change(change(window, amount))

    assert sentence in str(refused.value)
    assert [5_000_000_000, 1000, 3] == [each.standing.limit for each in await treasury.budgets_of("team:t")]


async def test_a_list_names_each(treasury: Treasury) -> None:
    """Budgets of one scope stand beside each other in the order of their labels, and pages go on behind any."""
    page = await treasury.page(BudgetQuery(count_max=2))
    rest = await treasury.page(BudgetQuery(after=page.end))

    assert sorted(LABELS) == [each.standing.counter.label for each in (*page.budgets, *rest.budgets)]
