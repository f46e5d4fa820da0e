"""What a store that failed over is told again: the last seconds, in their order, and nothing that its end tells too."""

from __future__ import annotations

import pytest

from extauthz.domain.budgets import Spent
from extauthz.domain.reservation import Claim, Note, Signal
from extauthz.ledger.base import UNNOTED, Release
from extauthz.ledger.items import renew_item, reserve_item, settle_item
from extauthz.ledger.retelling import REMEMBERED_S, Granted, Memory, Renewed, Settled, Told
from tests.support.ledger import LEASE, a_counter, a_hold, a_reserve

COUNTER = a_counter()


class Clock:
    """A steady clock in the test's hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


def reserve(name: str, attempt: str = "first") -> Granted:
    """Tell that a reservation was made."""
    return Granted(reserve_item(a_reserve(name, Claim(COUNTER, None, 5), attempt=attempt)), (b"5",))


def renewed(name: str) -> Renewed:
    """Tell that a lease was renewed."""
    return Renewed(renew_item(a_hold(name, (COUNTER,)), LEASE))


def settle(name: str) -> Settled:
    """Tell that a reservation ended with a cost."""
    return Settled(settle_item(a_hold(name, (COUNTER,)), Spent(7), UNNOTED))


@pytest.mark.parametrize(
    ("told", "recalled"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(
            [reserve("a"), renewed("a"), reserve("b"), renewed("a")],
            [reserve("a"), renewed("a"), reserve("b"), renewed("a")],
            id="what is open, in its order",
        ),
        pytest.param(
            [reserve("a"), reserve("b"), renewed("a"), settle("a"), renewed("b")],
            [reserve("b"), settle("a"), renewed("b")],
            id="settled: its settlement",
        ),
        pytest.param([reserve("a"), renewed("a"), Release("a")], [Release("a")], id="released for good: its release"),
        pytest.param([settle("a"), reserve("a")], [settle("a")], id="ended before it began"),
        pytest.param(
            [reserve("a"), Release("a", "first", Note(Signal.CANCELLATION)), reserve("a", "second")],
            [reserve("a"), Release("a", "first", Note(Signal.CANCELLATION)), reserve("a", "second")],
            id="one attempt's release ends no other's reservation",
        ),
        pytest.param(
            [reserve("a"), Release("a", "first"), settle("a")],
            [Release("a", "first"), settle("a")],
            id="both endings are told",
        ),
    ],
)
def test_what_is_recalled(told: list[Told], recalled: list[Told]) -> None:
    """Endings are told, and the beginnings of what has not ended."""
    memory = Memory(Clock())
    for verb in told:
        memory.keep(verb)

    assert tuple(recalled) == memory.recall()


def test_recalling_forgets_nothing() -> None:
    """A second failover right after the first is told as much."""
    memory = Memory(Clock())
    memory.keep(reserve("a"))

    assert memory.recall() == memory.recall() == (reserve("a"),)


def test_it_forgets() -> None:
    """A verb is remembered for REMEMBERED_S and no longer, whether others came after it or not."""
    clock = Clock()
    memory = Memory(clock)
    memory.keep(settle("a"))
    clock.now_s += REMEMBERED_S
    assert (settle("a"),) == memory.recall()

    clock.now_s += 0.001
    assert () == memory.recall()
    memory.keep(settle("b"))
    assert (settle("b"),) == memory.recall()
    assert 1 == len(memory._told)


def test_an_ending_that_is_forgotten_hides_nothing() -> None:
    """What is left of a reservation is told when its ending is too old: the store has that for long."""
    clock = Clock()
    memory = Memory(clock)
    memory.keep(settle("a"))
    clock.now_s += REMEMBERED_S + 1
    memory.keep(renewed("a"))

    assert (renewed("a"),) == memory.recall()


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much happens in that time, the last REMEMBERED_MAX verbs are remembered."""
    monkeypatch.setattr("extauthz.ledger.retelling.REMEMBERED_MAX", 3)
    memory = Memory(Clock())
    for name in "abcde":
        memory.keep(settle(name))

    assert tuple(map(settle, "cde")) == memory.recall()
    assert 3 == len(memory._told)
