"""Amounts in every measure, as the stores write them, and the measure that a counter's key names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.budgets import Counter, Filter, FilterKind, Measure, Scope, ScopeKind, Spent
from extauthz.domain.windows import LIFETIME, Window
from extauthz.ledger.amounts import counted, from_word, measure_of, to_word
from extauthz.ledger.base import Audit, Drift, together
from tests.support.ledger import a_counter

NAMES = st.text(max_size=20) | st.sampled_from(["tokens", "/tokens", "a|b/requests", "requests=x"])
WINDOWS = st.sampled_from([Window(LIFETIME, 0, None), Window("1d", 86_400_000, 172_800_000)])
FILTERS = st.none() | st.builds(Filter, st.sampled_from(FilterKind), NAMES)
SCOPES = st.builds(lambda name: Scope(ScopeKind.TEAM, (name,)), NAMES) | st.builds(
    lambda team, user: Scope(ScopeKind.MEMBER, (team, user)), NAMES, NAMES
)
AMOUNTS = st.builds(Spent, *[st.integers(-(10**16), 10**16)] * 3)


@given(scope=SCOPES, window=WINDOWS, measure=st.sampled_from(Measure), only=FILTERS)
def test_a_key_names_its_measure(scope: Scope, window: Window, measure: Measure, only: Filter | None) -> None:
    """Whatever a scope, a model or a provider is called."""
    assert measure is measure_of(Counter(scope, window, measure, only).key)


@pytest.mark.parametrize("name", ["", "no counter", "tokens", "a/tokens", "|", "|/", "|/pages", "r|1d/tokensx"])
def test_what_is_no_key_is_in_usd(name: str) -> None:
    """Something that nobody's verb wrote has no measure of its own."""
    assert Measure.USD is measure_of(name)


@given(spent=AMOUNTS)
def test_words_are_read_back(spent: Spent) -> None:
    """To the last digit, in every measure."""
    assert spent == from_word(to_word(spent))


def test_a_word_of_before() -> None:
    """One amount alone is one in USD."""
    assert Spent(30) == from_word("30")


@pytest.mark.parametrize("word", ["", "a", "1,", "1,2", "1,2,", "1,2,3,4"])
def test_what_is_no_word(word: str) -> None:
    """Anything else is a mistake, and is not read as nothing."""
    with pytest.raises(ValueError, match=r"says no amounts|invalid literal"):
        from_word(word)


def test_what_is_counted() -> None:
    """What is booked in USD alone says nothing of tokens; one other counter is enough to say all."""
    used = Spent(700, 50, 1)

    assert Spent(700) == counted(used, [a_counter(), a_counter(only=Filter(FilterKind.MODEL, "tokens"))])
    assert used == counted(used, [a_counter(), a_counter(measure=Measure.REQUESTS)])
    assert Spent(700) == counted(used, [])


def test_a_drift_in_tokens_is_none_in_usd() -> None:
    """It makes the books wrong, and is not added to nano-USD."""
    tokens, usd = a_counter(measure=Measure.TOKENS).key, a_counter().key
    wrong = Audit((Drift("spent", tokens, 5, 500), Drift("held", usd, 9, 2), Drift("lease", "r", 0, 0)), 2, 1, 1, 0)

    assert (False, 7, 14) == (wrong.ok, wrong.drift_nanousd, together([wrong, wrong]).drift_nanousd)
    assert (False, 0) == ((found := Audit(wrong.drifts[:1], 1, 1, 0, 0)).ok, found.drift_nanousd)
