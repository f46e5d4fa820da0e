"""The life of a reservation, as its table tells it."""

from __future__ import annotations

import re

import pytest

from extauthz.domain import reservation
from extauthz.domain.reservation import TRANSITIONS, State, Verb


@pytest.mark.parametrize("verb", Verb)
def test_what_is_held_can_end_in_every_way(verb: Verb) -> None:
    """A reservation that is held ends by each verb."""
    assert (State.HELD, verb) in TRANSITIONS


@pytest.mark.parametrize("verb", Verb)
def test_a_verb_has_one_outcome(verb: Verb) -> None:
    """A verb that changes anything leads to its own state, whatever came before."""
    outcomes = {after for (_, by), after in TRANSITIONS.items() if by is verb}

    assert 1 == len(outcomes)


def test_nothing_is_held_again() -> None:
    """No verb leads back to a hold."""
    assert State.HELD not in TRANSITIONS.values()


@pytest.mark.parametrize("state", [State.SETTLED, State.RELEASED])
def test_settled_and_released_are_final(state: State) -> None:
    """Nothing follows on a settle or a release."""
    assert not [verb for verb in Verb if (state, verb) in TRANSITIONS]


def test_an_expiry_may_only_be_settled() -> None:
    """After its lease a reservation is only ever put right by its cost."""
    assert [Verb.SETTLE] == [verb for verb in Verb if (State.EXPIRED, verb) in TRANSITIONS]


def test_the_picture_shows_the_table() -> None:
    """The arrows in the module's text are the table's entries, no more and no fewer."""
    arrows = re.findall(r"^ +(\w+) ──(\w+)─+▶ (\w+)", reservation.__doc__ or "", re.MULTILINE)

    assert TRANSITIONS == {(State(before), Verb(verb)): State(after) for before, verb, after in arrows}
