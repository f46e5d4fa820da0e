"""Which budgets a request is for, and what it asks of each of them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from extauthz.domain.budgets import Budget, Counter, Filter, FilterKind, Measure, Scope, ScopeBudgets, ScopeKind, Spent
from extauthz.domain.claims import ANYTHING, Need, Target, claims_of, limits_free
from extauthz.domain.identity import Principal
from extauthz.domain.prices import Prices
from extauthz.domain.windows import WindowRule, parse_duration
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offers import Alias, CatalogSource, Fallbacks, Offer

USD, TOKENS, REQUESTS = Measure
EVER, DAY, HOUR = WindowRule(), WindowRule(parse_duration("1d")), WindowRule(parse_duration("1h"))
TEAM = Scope(ScopeKind.TEAM, ("t",))
GPT, CLAUDE = Filter(FilterKind.MODEL, "gpt-4o"), Filter(FilterKind.MODEL, "claude")
OPENAI, AZURE = Filter(FilterKind.PROVIDER, "openai"), Filter(FilterKind.PROVIDER, "azure")
NEED = Need(Spent(7, 100, 1), Spent(70, 1000, 1))
ASKS_GPT = Target(frozenset({"gpt-4o"}), frozenset({"openai"}))


def principal(*budgets: Budget, binds: bool = True) -> Principal:
    """Give a principal of one team."""
    return Principal("t", (ScopeBudgets(TEAM, budgets, binds=binds),))


def asked(payer: Principal, target: Target, need: Need = NEED) -> list[tuple[str, int | None, int, bool]]:
    """Give what is asked for: label, limit, amount, and whether all of it."""
    claims = claims_of(payer, target, need, now_ms=0)
    return [(claim.counter.label, claim.limit, claim.amount, claim.whole) for claim in claims]


@pytest.mark.parametrize(
    ("budgets", "target", "expected"),
    [
        pytest.param((), ASKS_GPT, [("lifetime", None, 7, False)], id="no budget at all"),
        pytest.param((Budget(5, DAY),), ASKS_GPT, [("1d", 5, 7, False)], id="usd"),
        pytest.param(
            (Budget(5, DAY, measure=TOKENS), Budget(6, EVER, measure=REQUESTS)),
            ASKS_GPT,
            [("1d/tokens", 5, 100, False), ("lifetime/requests", 6, 1, False), ("lifetime", None, 7, False)],
            id="usd is counted where others limit",
        ),
        pytest.param(
            (Budget(5, EVER, strict=True), Budget(5, EVER, strict=True, measure=TOKENS)),
            ASKS_GPT,
            [("lifetime", 5, 70, True), ("lifetime/tokens", 5, 1000, True)],
            id="strict asks for the most",
        ),
        pytest.param(
            (Budget(5, DAY, only=GPT), Budget(5, DAY, only=CLAUDE), Budget(5, DAY, measure=TOKENS, only=OPENAI)),
            ASKS_GPT,
            [
                ("1d/model=gpt-4o", 5, 7, False),
                ("1d/tokens/provider=openai", 5, 100, False),
                ("lifetime", None, 7, False),
            ],
            id="only those of the model and its provider",
        ),
        pytest.param(
            (Budget(5, DAY, only=GPT), Budget(6, DAY, only=AZURE), Budget(7, DAY)),
            ANYTHING,
            [("1d/model=gpt-4o", 5, 7, False), ("1d/provider=azure", 6, 7, False), ("1d", 7, 7, False)],
            id="all of them where nobody can tell",
        ),
    ],
)
def test_what_is_asked(
    budgets: tuple[Budget, ...], target: Target, expected: list[tuple[str, int | None, int, bool]]
) -> None:
    """Each budget that is for the request is asked in its own measure, and money is always counted."""
    assert expected == asked(principal(*budgets), target)


def test_what_does_not_bind_counts() -> None:
    """In every measure, and of models as well."""
    payer = principal(Budget(5, DAY, measure=TOKENS, only=GPT), Budget(0, DAY), binds=False)

    assert [("1d/tokens/model=gpt-4o", None, 100, False), ("1d", None, 7, False)] == asked(payer, ASKS_GPT)


def test_a_free_request_skips_usd_alone() -> None:
    """It is held by the budgets in tokens and requests, and counted on those in USD."""
    payer = principal(Budget(0, DAY), Budget(9, DAY, measure=TOKENS), Budget(0, DAY, only=GPT))
    need = Need(Spent(0, 100, 1), Spent(0, 1000, 1), free=True)

    assert [("1d", None, 0, False), ("1d/tokens", 9, 100, False), ("1d/model=gpt-4o", None, 0, False)] == asked(
        payer, ASKS_GPT, need
    )


@pytest.mark.parametrize(
    ("payer", "limited"),
    [
        (principal(), False),
        (principal(Budget(0, DAY), Budget(0, DAY, only=GPT)), False),
        (principal(Budget(0, DAY, measure=TOKENS, only=CLAUDE)), False),
        (principal(Budget(0, DAY, measure=TOKENS), binds=False), False),
        (principal(Budget(0, DAY, measure=TOKENS)), True),
        (principal(Budget(0, DAY, measure=REQUESTS, only=OPENAI)), True),
    ],
    ids=range(6),
)
def test_what_limits_a_free_request(payer: Principal, limited: bool) -> None:  # noqa: FBT001 - a column
    """Only a budget that binds, counts it, and is not in USD: else the store is not asked."""
    assert limited == limits_free(payer, ASKS_GPT)


def test_an_exhausted_provider_is_passed_over() -> None:
    """While another may answer: it is still counted there, and refuses no more. The last one refuses."""
    payer = principal(Budget(5, DAY, only=OPENAI), Budget(6, DAY, only=AZURE), Budget(7, DAY))
    both = Target(frozenset({"m"}), frozenset({"openai", "azure"}))
    openai, azure = (Counter(TEAM, DAY.at(0), USD, only) for only in (OPENAI, AZURE))

    left = both.without(openai)

    assert left is not None
    assert [("1d/provider=openai", None), ("1d/provider=azure", 6), ("1d", 7)] == [
        row[:2] for row in asked(payer, left)
    ]
    assert left.without(azure) is None


@pytest.mark.parametrize("target", [ANYTHING, ASKS_GPT, Target(frozenset({"gpt-4o"}))])
@pytest.mark.parametrize("only", [None, GPT, OPENAI], ids=str)
def test_nothing_else_is_passed_over(target: Target, only: Filter | None) -> None:
    """Neither the budget of all, nor that of a model, nor that of the only provider or of who knows which."""
    assert target.without(Counter(TEAM, DAY.at(0), USD, only)) is None


CATALOG = Catalog(
    CatalogSource(
        (
            Offer("gpt-4o", "openai/gpt-4o"),
            Offer("gpt-4o", "azure/house"),
            Offer("bare", "gpt-4o-mini"),
            Offer("tuned", "claude-x"),
            Offer("named", "whatever", provider="vertex_ai"),
            Offer("nobodys", "whatever"),
            Offer("openai/*", "openai/*"),
            Offer("*", "*"),
            Offer("dear", "anthropic/claude"),
        ),
        aliases=(Alias("fast", "gpt-4o"), Alias("dear", "gpt-4o"), Alias("router", "bare", others=("tuned", "dear"))),
        fallbacks=(Fallbacks({"gpt-4o": ("dear",)}),),
        unknown_price=Prices(Decimal(1), Decimal(1)),
    ),
    lambda *_: None,
)


@pytest.mark.parametrize(
    ("names", "models", "providers"),
    [
        (("gpt-4o",), {"gpt-4o"}, {"openai", "azure"}),
        (("fast",), {"fast", "gpt-4o"}, {"openai", "azure"}),
        (("dear",), {"dear", "gpt-4o"}, {"anthropic", "openai", "azure"}),
        (("bare",), {"bare"}, {"openai"}),
        (("tuned",), {"tuned"}, {"anthropic"}),
        (("named",), {"named"}, {"vertex_ai"}),
        (("nobodys",), {"nobodys"}, None),
        (("openai/gpt-9",), {"openai/gpt-9", "gpt-9", "openai/*"}, {"openai"}),
        (("openai/GPT-9",), {"openai/gpt-9", "gpt-9", "openai/*"}, {"openai"}),
        (("groq/llama",), {"groq/llama", "llama", "*"}, {"groq"}),
        (("router",), {"router", "bare", "tuned", "dear"}, {"openai", "anthropic"}),
        (("bare", "tuned"), {"bare", "tuned"}, {"openai", "anthropic"}),
        (("bare", "nobodys"), {"bare", "nobodys"}, None),
        ((), None, None),
    ],
    ids=range(14),
)
def test_what_a_name_leads_to(names: tuple[str, ...], models: set[str] | None, providers: set[str] | None) -> None:
    """Names with and without their providers, aliases and patterns; a provider that nobody names may be any."""
    target = CATALOG.targets.of(names)

    assert (models, providers) == (target.models, target.providers)


@pytest.mark.parametrize("asked", ["gpt-9", "GPT-9", "openai/Gpt-9", "GROQ/gpt-9"])
@pytest.mark.parametrize("named", ["gpt-9", "GPT-9"])
def test_another_case_is_no_way_around(asked: str, named: str) -> None:
    """Some upstreams serve the same model whatever the case of its name, and a pattern passes any on to them."""
    assert CATALOG.targets.of((asked,)).is_for(Filter(FilterKind.MODEL, named))
    assert CATALOG.targets.can_count(Filter(FilterKind.MODEL, named))


@pytest.mark.parametrize("named", ["groq", "Groq"])
def test_another_case_of_a_provider_is_no_way_around(named: str) -> None:
    """Where the name that is asked for says the provider, it says the same in any case; it is passed over in any."""
    only = Filter(FilterKind.PROVIDER, named)
    both = Target(frozenset({"m"}), frozenset({"groq", "openai"})).without(Counter(TEAM, DAY.at(0), USD, only))

    assert CATALOG.targets.of(("GROQ/llama",)).is_for(only)
    assert both is not None
    assert not both.limits(Budget(1, DAY, only=Filter(FilterKind.PROVIDER, "GROQ")))
    assert both.without(Counter(TEAM, DAY.at(0), USD, OPENAI)) is None


def test_labels() -> None:
    """A budget is called as its counters are."""
    for budget in (Budget(1, DAY), Budget(1, EVER, measure=TOKENS), Budget(1, DAY, measure=REQUESTS, only=OPENAI)):
        assert budget.label == budget.counter(TEAM, budget.rule.at(0)).label


def test_counters_are_those_of_their_windows() -> None:
    """They are the same objects until a window ends, and the right ones at every instant, also at an earlier one."""
    scope = ScopeBudgets(TEAM, (Budget(5, DAY), Budget(5, HOUR, measure=TOKENS)))
    day_ms, hour_ms = 86_400_000, 3_600_000
    instants = (0, hour_ms - 1, hour_ms, day_ms - 1, day_ms, 0)

    for now_ms in instants:
        expected = [budget.counter(TEAM, budget.rule.at(now_ms)) for budget in scope.budgets]
        assert expected == [counter for counter, _ in scope.counters(now_ms)]
    assert scope.counters(0) is scope.counters(hour_ms - 1)
    assert ScopeBudgets(TEAM, scope.budgets) == scope
