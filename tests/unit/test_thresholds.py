"""Which thresholds a budget has crossed, and what is told of one."""

from __future__ import annotations

import pytest

from extauthz.adapters.webhook import payload
from extauthz.domain.budgets import Counter, Filter, FilterKind, Measure, Scope, ScopeKind, Standing
from extauthz.domain.thresholds import Alert, Threshold, ThresholdKind, crossed, spent_percent
from extauthz.domain.windows import Window

SCOPE = Scope(ScopeKind.TEAM, ("research",))
FOREVER = Counter(SCOPE, Window("lifetime", 0, None))
MONTH = Counter(SCOPE, Window("1mo", 1_793_491_200_000, 1_796_083_200_000))
PERCENTAGES = (80, 100, 150)


def standing(spent: int, limit: int = 10, held: int = 0, counter: Counter = FOREVER) -> Standing:
    """Give a budget as it stands."""
    return Standing(counter, limit, spent, held)


@pytest.mark.parametrize(
    ("now", "soft", "names"),
    [
        pytest.param(standing(0), 0, (), id="nothing is spent"),
        pytest.param(standing(0, limit=0), None, (), id="a limit of 0"),
        pytest.param(standing(3, limit=0), 2, ("soft 2",), id="a limit of 0 that was spent on"),
        pytest.param(standing(799, limit=1000), None, (), id="just before"),
        pytest.param(standing(800, limit=1000), None, ("80%",), id="exactly there"),
        pytest.param(standing(10), None, ("100%", "80%"), id="the highest first"),
        pytest.param(standing(100), None, ("150%", "100%", "80%"), id="beyond the limit"),
        pytest.param(standing(1, held=9), None, (), id="held is not spent"),
        pytest.param(standing(4), 5, (), id="before the soft limit"),
        pytest.param(standing(5), 5, ("soft 5",), id="at the soft limit"),
        pytest.param(standing(9), 5, ("soft 5", "80%"), id="both"),
        pytest.param(standing(2**53 - 1, limit=2**53 - 1), None, ("100%", "80%"), id="the largest amounts"),
    ],
)
def test_what_is_crossed(now: Standing, soft: int | None, names: tuple[str, ...]) -> None:
    """What is spent crosses thresholds, exactly where it reaches them; what is held does not."""
    assert names == tuple(map(str, crossed(now, soft, PERCENTAGES)))


@pytest.mark.parametrize(
    ("now", "percent"), [(standing(9, 11), 81), (standing(0), 0), (standing(25), 250), (standing(1, 0), None)]
)
def test_the_percentage_is_never_too_high(now: Standing, percent: int | None) -> None:
    """It is rounded down, so that 100 % means that all is spent; a limit of 0 has none."""
    assert percent == spent_percent(now)


def test_what_is_told() -> None:
    """An alert says everything by name: who, which window, how much of what, and when it is over."""
    spent = standing(8_500_000_000, 10_000_000_000, counter=MONTH)

    assert {
        "kind": "percentage",
        "scope": "team:research",
        "name": "team:research",
        "window": "1mo",
        "measure": "usd",
        "threshold_percent": 80,
        "used_percent": 85,
        "resets_at": "2026-12-01T00:00:00+00:00",
        "limit_usd": 10.0,
        "spent_usd": 8.5,
    } == Alert(Threshold(ThresholdKind.PERCENTAGE, 80), spent, "team:research").fields()


def test_amounts_may_be_left_out() -> None:
    """With `hide_amounts` no amount is told, not even that of the soft limit."""
    soft = Threshold(ThresholdKind.SOFT, 5_000_000_000)
    told = {hide: Alert(soft, standing(6_000_000_000), "team:research", hide).fields() for hide in (False, True)}

    assert 5.0 == told[False]["soft_budget_usd"]
    assert not {name for name in told[True] if name.endswith("_usd")}
    assert told[False]["resets_at"] is None


def test_amounts_of_other_measures_have_their_own_names() -> None:
    """Tokens are never told under a name that says USD, and the window's name is the budget's."""
    tokens = Counter(SCOPE, MONTH.window, Measure.TOKENS, Filter(FilterKind.MODEL, "gpt-4o"))

    told = Alert(Threshold(ThresholdKind.PERCENTAGE, 80), standing(9, counter=tokens), "team:research").fields()

    assert ("1mo/tokens/model=gpt-4o", "tokens", 10, 9) == tuple(
        told[name] for name in ("window", "measure", "limit", "spent")
    )
    assert not any(name.endswith("_usd") for name in told)


def test_the_sentence_has_the_unit() -> None:
    """What a chat shows of a budget in tokens says tokens."""
    tokens = Counter(SCOPE, MONTH.window, Measure.TOKENS)
    alert = Alert(Threshold(ThresholdKind.PERCENTAGE, 80), standing(9000, 10_000, counter=tokens), "team:research")

    text = payload(alert)["text"]

    assert str(text).startswith("The budget of team:research (1mo/tokens) has reached 80%. 90% of it is used.")
    assert "Spent: 9000 of 10000 tokens." in str(text)
