"""Refusals in the words that people already search for."""

import pytest

from extauthz.domain import denials
from extauthz.domain.budgets import Counter, Filter, FilterKind, Measure, Scope, ScopeKind, Standing
from extauthz.domain.windows import Window

LIFETIME = Window("lifetime", 0, None)
DAY_MS = 86_400_000
USD = 1_000_000_000
GPT = Filter(FilterKind.MODEL, "gpt-4o")


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


TOKENS = Counter(Scope(ScopeKind.KEY, ("9f86d081884c7d65" * 4,)), Window("1d", 0, DAY_MS), Measure.TOKENS, GPT)
REQUESTS = Counter(Scope(ScopeKind.TEAM, ("t",)), LIFETIME, Measure.REQUESTS)
PROVIDER = Counter(Scope(ScopeKind.GLOBAL), LIFETIME, Measure.USD, Filter(FilterKind.PROVIDER, "openai"))


@pytest.mark.parametrize(
    ("counter", "message"),
    [
        (
            TOKENS,
            (
                "Budget has been exceeded! Key=9f86d081884c Model=gpt-4o Current tokens: 12000, Max tokens: 10000"
                " The 1d/tokens/model=gpt-4o budget resets at 1970-01-02T00:00:00Z."
            ),
        ),
        (REQUESTS, "Budget has been exceeded! Team=t Current requests: 12000, Max requests: 10000"),
        (PROVIDER, "Budget has been exceeded! Provider=openai Current cost: 0.000012, Max budget: 0.00001"),
    ],
    ids=["tokens of a model", "requests", "usd of a provider"],
)
def test_a_refusal_says_what_is_used_up(counter: Counter, message: str) -> None:
    """It says the measure, the model or provider, and amounts in their own unit; its window is the budget's label."""
    denial = denials.budget_exceeded(Standing(counter, 10_000, 12_000, 0), now_ms=0, status=429, hide_amounts=False)

    assert (message, counter.label) == (denial.message, denial.window)
    assert "budget_exceeded" == denial.type


def test_tokens_in_flight_and_too_many_of_them() -> None:
    """Held and too dear are told in tokens as well, and neither is confused with money."""
    held = denials.budget_held(Standing(TOKENS, 10, 4, 6), hide_amounts=False)
    dear = denials.request_too_dear(Standing(TOKENS, 10, 4, 0), 7, status=429, hide_amounts=False)
    asked = denials.request_too_dear(Standing(REQUESTS, 1, 0, 1), 1, status=429, hide_amounts=False)

    assert " Key=9f86d081884c Model=gpt-4o Current tokens: 4, Held: 6, Max tokens: 10. Try again" in held.message
    assert "may use more than the budget has left! Key=9f86d081884c Model=gpt-4o It may use up to 7." in dear.message
    assert dear.message.endswith("Current tokens: 4, Max tokens: 10. Ask for fewer tokens.")
    assert asked.message.endswith("Max requests: 1.")


def test_hidden_amounts_are_hidden_in_every_measure() -> None:
    """What is left is who, which model, and when it begins anew."""
    now = Standing(TOKENS, 10_000, 12_000, 3)

    told = [
        denials.budget_exceeded(now, now_ms=0, status=429, hide_amounts=True).message,
        denials.budget_held(now, hide_amounts=True).message,
        denials.request_too_dear(now, 7, status=429, hide_amounts=True).message,
    ]

    assert all("Model=gpt-4o" in message for message in told)
    assert not any("000" in message.replace("T00:00:00Z", "") or "tokens:" in message for message in told)
