"""Refusals in the words that people already search for."""

import pytest

from extauthz.domain import denials
from extauthz.domain.budgets import Counter, Scope, ScopeKind, Standing
from extauthz.domain.windows import Window

LIFETIME = Window("lifetime", 0, None)
DAY_MS = 86_400_000
USD = 1_000_000_000


def standing(scope: Scope, window: Window = LIFETIME, *, spent: int = 0, held: int = 0, limit: int = 0) -> Standing:
    """Make a standing, amounts in nano-USD."""
    return Standing(Counter(scope, window), limit, spent, held)


@pytest.mark.parametrize(
    ("scope", "entity"),
    [
        (Scope(ScopeKind.GLOBAL), ""),
        (Scope(ScopeKind.ORGANIZATION, ("acme",)), " Organization=acme"),
        (Scope(ScopeKind.TEAM, ("research",)), " Team=research"),
        (Scope(ScopeKind.MEMBER, ("research", "ana")), " TeamMember=ana:research"),
        (Scope(ScopeKind.USER, ("ana",)), " User=ana"),
        (Scope(ScopeKind.KEY, ("9f86d081884c7d65" * 4,)), " Key=9f86d081884c"),
        (Scope(ScopeKind.END_USER, ("bob",)), " EndUser=bob"),
    ],
    ids=str,
)
def test_an_exhausted_budget_names_its_payer(scope: Scope, entity: str) -> None:
    """The message says who, what was spent and what the limit is, as LiteLLM's does."""
    denial = denials.budget_exceeded(standing(scope), now_ms=0, status=429, hide_amounts=False)

    assert denial.message == f"Budget has been exceeded!{entity} Current cost: 0.0, Max budget: 0.0"
    assert (denial.status, denial.type, denial.code, denial.param) == (429, "budget_exceeded", "429", None)
    assert denial.should_retry is False
    assert denial.retry_after_s is None


def test_a_window_says_when_it_resets() -> None:
    """The client learns the seconds to wait, rounded up, and people the moment."""
    window = Window("1d", 0, DAY_MS)
    spent = standing(Scope(ScopeKind.TEAM, ("t",)), window, spent=2 * USD, limit=USD)

    denial = denials.budget_exceeded(spent, now_ms=DAY_MS - 1500, status=429, hide_amounts=False)

    assert denial.retry_after_s == 2
    assert denial.message.endswith("Current cost: 2.0, Max budget: 1.0 The 1d budget resets at 1970-01-02T00:00:00Z.")


def test_held_money_is_worth_a_retry() -> None:
    """Nothing is exhausted, so the answer says that it passes soon."""
    held = standing(Scope(ScopeKind.TEAM, ("t",)), held=USD, limit=USD)

    denial = denials.budget_held(held, hide_amounts=False)

    assert (denial.status, denial.type, denial.retry_after_s, denial.should_retry) == (429, "budget_held", 1, True)
    assert "Held: 1.0" in denial.message


def test_a_request_that_never_fits_is_not_worth_a_retry() -> None:
    """Waiting does not help, so the client is told to ask for less."""
    spent = standing(Scope(ScopeKind.TEAM, ("t",)), spent=USD // 2, limit=USD)

    denial = denials.request_too_dear(spent, USD, status=429, hide_amounts=False)

    assert (denial.type, denial.retry_after_s, denial.should_retry) == ("budget_exceeded", None, False)
    assert "It may cost up to 1.0. Current cost: 0.5, Max budget: 1.0." in denial.message


def test_amounts_can_be_hidden() -> None:
    """With `hide_amounts` no digit of money reaches the client."""
    spent = standing(Scope(ScopeKind.TEAM, ("t",)), spent=7 * USD, held=7 * USD, limit=7 * USD)

    messages = [
        denials.budget_exceeded(spent, now_ms=0, status=402, hide_amounts=True).message,
        denials.budget_held(spent, hide_amounts=True).message,
        denials.request_too_dear(spent, 7 * USD, status=402, hide_amounts=True).message,
    ]

    assert not any("7" in message for message in messages)
