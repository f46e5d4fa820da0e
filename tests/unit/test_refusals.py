"""Exhausted counters that refuse for a second without the store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from extauthz.domain.budgets import Measure, Standing
from extauthz.domain.reservation import Claim
from extauthz.ledger.base import Refused
from extauthz.ledger.refusals import COUNTERS_MAX, KEPT_S_MAX, Refusals
from tests.support.ledger import a_counter

TEAM, OTHER = a_counter("research"), a_counter("support")
TOKENS = replace(TEAM, measure=Measure.TOKENS)
CLAIM = Claim(TEAM, limit=100, amount=5)
EXHAUSTED = Refused(Standing(TEAM, limit=100, spent=100, held=7))


@dataclass
class Steady:
    """A clock in the test's hand."""

    now_s: float = 50.0

    def __call__(self) -> float:
        """Tell the time in seconds."""
        return self.now_s


@pytest.fixture
def clock() -> Steady:
    """Give a clock that stands still."""
    return Steady()


@pytest.fixture
def refusals(clock: Steady) -> Refusals:
    """Give what knows of no counter."""
    return Refusals(clock, KEPT_S_MAX)


def test_it_refuses_for_a_second_after_the_store_was_asked(refusals: Refusals, clock: Steady) -> None:
    """Also another request, of another amount, with further counters."""
    other = (Claim(OTHER, 5, 1), replace(CLAIM, amount=0, whole=True))
    refusals.keep(EXHAUSTED, (CLAIM,), asked_s=49.5)
    clock.now_s = 50.4

    assert refusals.find(other) == EXHAUSTED

    clock.now_s = 50.5

    assert refusals.find(other) is None


def test_what_is_only_held_refuses_nobody_for_later(refusals: Refusals) -> None:
    """It may be given back at any moment."""
    refusals.keep(Refused(Standing(TEAM, limit=100, spent=99, held=1)), (CLAIM,), 50.0)

    assert refusals.find((CLAIM,)) is None


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(replace(CLAIM, limit=101), id="another limit: it was raised, or an increase began"),
        pytest.param(replace(CLAIM, limit=None), id="no limit: an admin, or a budget that only counts"),
        pytest.param(replace(CLAIM, counter=OTHER), id="another scope"),
        pytest.param(replace(CLAIM, counter=TOKENS), id="another measure"),
    ],
)
def test_it_does_not_know(refusals: Refusals, claim: Claim) -> None:
    """The store judges whatever differs from what it judged."""
    refusals.keep(EXHAUSTED, (CLAIM,), 50.0)

    assert refusals.find((claim,)) is None


def test_a_limit_that_was_changed_by_hand(refusals: Refusals) -> None:
    """The configured limit is what the next request comes with; the one in force is what it is told."""
    refused = Refused(Standing(TEAM, limit=20, spent=50, held=0))
    refusals.keep(refused, (CLAIM,), 50.0)

    assert refusals.find((CLAIM,)) == refused


def test_of_several_the_one_that_binds(refusals: Refusals) -> None:
    """By the rule of all stores: USD before tokens."""
    tokens = Claim(TOKENS, limit=9, amount=1)
    refusals.keep(Refused(Standing(TOKENS, limit=9, spent=30, held=0)), (tokens,), 50.0)
    refusals.keep(EXHAUSTED, (CLAIM,), 50.0)

    assert refusals.find((tokens, CLAIM)) == EXHAUSTED


def test_clear(refusals: Refusals) -> None:
    """Then the store judges again."""
    refusals.keep(EXHAUSTED, (CLAIM,), 50.0)
    refusals.clear()

    assert refusals.find((CLAIM,)) is None


def test_it_has_a_maximum(refusals: Refusals, clock: Steady) -> None:
    """The oldest goes first, and what was told anew is not old."""

    def exhausted(number: int) -> tuple[Refused, Claim]:
        counter = a_counter(f"team-{number}")
        return Refused(Standing(counter, 0, 0, 0)), Claim(counter, 0, 1)

    for number in (*range(COUNTERS_MAX), 0, COUNTERS_MAX):
        refused, claim = exhausted(number)
        refusals.keep(refused, (claim,), clock.now_s)
    found = [number for number in (0, 1, 2, COUNTERS_MAX) if refusals.find((exhausted(number)[1],))]

    assert [0, 2, COUNTERS_MAX] == found


def test_no_time(clock: Steady) -> None:
    """Every answer is the store's own."""
    refusals = Refusals(clock, 0)
    refusals.keep(EXHAUSTED, (CLAIM,), clock.now_s)

    assert refusals.find((CLAIM,)) is None
