"""Endings on their way into the books: told at once, or kept until the store is back, each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from extauthz.domain.budgets import Spent
from extauthz.domain.reservation import Claim, Note, Signal, State
from extauthz.endings import AT_ONCE_MAX, End, Endings
from extauthz.ledger.base import Ending, Promise, Release, Renew, Settle
from tests.support.ledger import LEASE, a_counter, a_hold, a_reserve
from tests.support.processes import eventually
from tests.support.witness import AbsentLedger, Witness

COUNTER = a_counter()
CANCELLED = Note(Signal.CANCELLATION)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr("extauthz.endings.RETRY_S", 0.0)


@dataclass(slots=True)
class House:
    """A store, the endings for it, and what whoever brought them was told."""

    waiting_max: int = 1000
    ledger: AbsentLedger = field(default_factory=AbsentLedger)
    witness: Witness = field(default_factory=Witness)
    heard: list[tuple[str, Ending]] = field(default_factory=list)
    endings: Endings = field(init=False)

    def __post_init__(self) -> None:
        self.endings = Endings(self.ledger, self.witness, waiting_max=self.waiting_max)

    async def bring(self, end: End) -> None:
        """Bring an ending."""
        await self.endings.carry_out(end, self.hear(end))

    def hear(self, end: End) -> Callable[[Ending], None]:
        """Keep what an ending did."""
        return lambda ending: self.heard.append((_id(end), ending))

    @property
    def heard_ids(self) -> list[str]:
        """The ids of the endings that were told about."""
        return [id_ for id_, _ in self.heard]

    @asynccontextmanager
    async def catching_up(self) -> AsyncIterator[None]:
        """Tell the store what it missed, inside the block."""
        task = asyncio.get_running_loop().create_task(self.endings.catch_up())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def settle(name: str, cost_nanousd: int = 7) -> Settle:
    """End a reservation with a cost."""
    return Settle(a_hold(name, (COUNTER,), reserved_at_ms=0), Spent(cost_nanousd), Note(Signal.ACCESS_LOG))


def _id(end: End) -> str:
    return end.id if isinstance(end, Release) else end.hold.id


async def spent(house: House) -> int:
    """Tell what is in the books."""
    (standing,) = await house.ledger.standings([(COUNTER, 0)])
    return standing.spent


@pytest.mark.parametrize(
    ("end", "told"),
    [
        pytest.param(settle("r", 9), ("r", Spent(9), Note(Signal.ACCESS_LOG)), id="settle"),
        pytest.param(Release("r"), ("r", None, Note()), id="release"),
        pytest.param(
            Release("r", "attempt", Note(Signal.CANCELLATION)),
            ("r", None, Note(Signal.CANCELLATION)),
            id="one attempt's",
        ),
    ],
)
async def test_carried_out_at_once(end: End, told: tuple[str, Spent | None, Note]) -> None:
    """While the store answers an ending is told right away, with its note, and nothing is kept."""
    house = House()
    await house.bring(end)

    assert [told] == house.ledger.told
    assert [("r", Ending.UNKNOWN)] == house.heard
    assert [] == house.witness.waiting
    await asyncio.wait_for(house.endings.drained(), 10)


PROMISE = Promise("a name", "a signed hold")


def renewal(name: str) -> Renew:
    """Let a reservation go on until what its answer promised is seen."""
    return Renew(a_hold(name, (COUNTER,), reserved_at_ms=0), LEASE, promise=PROMISE)


async def test_a_promise_is_remembered_with_its_renewal() -> None:
    """A reservation that goes on is found by what its answer promised, also when the store was away meanwhile."""
    house = House()
    await house.ledger.reserve(a_reserve("r", Claim(COUNTER, None, 5), reserved_at_ms=0))
    house.ledger.away = True
    await house.bring(renewal("r"))
    house.ledger.away = False
    async with house.catching_up():
        await house.endings.drained()

    assert [("r", Ending.OPEN)] == house.heard
    assert PROMISE.hold == await house.ledger.promised(PROMISE.name)


async def test_what_cannot_go_on_promises_nothing() -> None:
    """A reservation that has ended is booked by its lease, and is found by nobody."""
    house = House()
    await house.bring(renewal("r"))

    assert LEASE.spent.cost_nanousd == await spent(house)
    assert await house.ledger.promised(PROMISE.name) is None


@pytest.mark.parametrize(
    "end", [replace(settle("r"), promised="a name"), Release("r", promised="a name")], ids=["settle", "release"]
)
async def test_a_promise_that_was_kept_is_forgotten(end: End) -> None:
    """What ends a reservation by its promise makes room for others."""
    house = House()
    await house.ledger.promise(PROMISE)
    await house.bring(end)

    assert ["r"] == house.ledger.ids
    assert await house.ledger.promised(PROMISE.name) is None


async def test_kept_while_the_store_is_away() -> None:
    """Whoever brings an ending is not kept waiting, hears nothing yet, and the count of what waits is told."""
    house = House()
    house.ledger.away = True
    for name in "abc":
        await house.bring(settle(name))

    assert [] == house.heard
    assert [1, 2, 3] == house.witness.waiting
    assert 0 == await spent(house)


async def test_told_when_the_store_is_back() -> None:
    """In the order in which they came, each once, and then nothing waits any more."""
    house = House()
    house.ledger.away = True
    names = [f"r{number}" for number in range(2 * AT_ONCE_MAX + 1)]
    for name in names:
        await house.bring(settle(name))
    tried = house.ledger.tries
    async with house.catching_up():
        # It does try meanwhile, and what the store misses keeps its place.
        await eventually(lambda: house.ledger.tries >= tried + 3 * AT_ONCE_MAX, what="it tries again")
        house.ledger.away = False
        await asyncio.wait_for(house.endings.drained(), 10)

    assert names == house.ledger.ids
    assert [(name, Ending.UNKNOWN) for name in names] == house.heard
    assert 7 * len(names) == await spent(house)
    assert 0 == house.witness.waiting[-1]
    assert len(names) == max(house.witness.waiting)


async def test_whoever_fails_to_hear_of_one_loses_no_other() -> None:
    """What is told to somebody who fails is in the books, and so is all that came with it and after it."""
    house = House()
    house.ledger.away = True

    def fail(_: Ending) -> None:
        house.ledger.away = True
        raise ValueError("broken on purpose")

    for number in range(2 * AT_ONCE_MAX):
        end = settle(f"r{number}")
        await house.endings.carry_out(end, house.hear(end) if number else fail)
    async with house.catching_up():
        house.ledger.away = False
        await eventually(lambda: house.ledger.away, what="the first is told")
        house.ledger.away = False
        await asyncio.wait_for(house.endings.drained(), 10)

    assert 7 * 2 * AT_ONCE_MAX == await spent(house)
    assert 2 * AT_ONCE_MAX - 1 == len(house.heard)
    assert [("endings", "broken on purpose")] == [(where, str(error)) for where, error in house.witness.failures]


async def test_it_goes_on_after_it_was_empty() -> None:
    """A second absence is caught up with like the first."""
    house = House()
    async with house.catching_up():
        for name in "ab":
            house.ledger.away = True
            await house.bring(settle(name))
            house.ledger.away = False
            await asyncio.wait_for(house.endings.drained(), 10)

    assert ["a", "b"] == house.heard_ids


async def test_bounded() -> None:
    """With no room left an ending is lost and counted by what it was; those that were kept before are told."""
    house = House(waiting_max=2)
    house.ledger.away = True
    for end in (settle("a"), settle("b"), settle("c"), Release("d", "first", CANCELLED)):
        await house.bring(end)
    house.ledger.away = False
    async with house.catching_up():
        await asyncio.wait_for(house.endings.drained(), 10)

    assert [(State.SETTLED, Signal.ACCESS_LOG), (State.RELEASED, Signal.CANCELLATION)] == house.witness.lost
    assert 2 == max(house.witness.waiting)
    assert ["a", "b"] == house.heard_ids


async def test_what_is_under_way_takes_room_too() -> None:
    """An ending that the store is being told may come back: its place is not given away meanwhile."""
    house = House(waiting_max=1)
    house.ledger.away = True
    await house.bring(settle("a"))
    house.ledger.answers.clear()
    tried = house.ledger.tries
    async with house.catching_up():
        await eventually(lambda: house.ledger.tries > tried, what="the store is being told")
        bringing = asyncio.get_running_loop().create_task(house.bring(settle("b")))
        house.ledger.answers.set()
        await bringing
        house.ledger.away = False
        await asyncio.wait_for(house.endings.drained(), 10)

    assert [(State.SETTLED, Signal.ACCESS_LOG)] == house.witness.lost
    assert ["a"] == house.heard_ids


async def test_refused_checks_leave_room_for_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away each refused Check leaves a release for nothing: they have a maximum of their own."""
    monkeypatch.setattr("extauthz.endings.WITHDRAWALS_MAX", 2)
    house = House(waiting_max=5)
    house.ledger.away = True
    for name in "abcd":
        await house.bring(Release(name, "first", CANCELLED))
    tried = house.ledger.tries
    async with house.catching_up():
        # Those that the store has missed again are still those two.
        await eventually(lambda: house.ledger.tries >= tried + 10, what="it tries again")
        await house.bring(Release("e", "first", CANCELLED))
        for end in (Release("f"), settle("g"), settle("h")):
            await house.bring(end)
        house.ledger.away = False
        await asyncio.wait_for(house.endings.drained(), 10)
        house.ledger.away = True
        await house.bring(Release("i", "first", CANCELLED))
        house.ledger.away = False
        await asyncio.wait_for(house.endings.drained(), 10)

    assert ["a", "b", "f", "g", "h", "i"] == house.heard_ids
    assert [(State.RELEASED, Signal.CANCELLATION)] * 3 == house.witness.lost


async def test_a_mistake_in_one_does_not_block_the_rest() -> None:
    """What fails in another way than by absence is reported and given up; the others are told."""
    house = House()
    house.ledger.away = True
    house.ledger.broken.add("b")
    for name in "abc":
        await house.bring(settle(name))
    house.ledger.away = False
    async with house.catching_up():
        await asyncio.wait_for(house.endings.drained(), 10)

    assert ["a", "c"] == house.heard_ids
    ((where, error),) = house.witness.failures
    assert ("endings", ZeroDivisionError) == (where, type(error))
    assert 0 == house.witness.waiting[-1]


async def test_a_mistake_at_once_is_the_callers() -> None:
    """Nothing is kept of what failed for another reason: trying again would fail again."""
    house = House()
    house.ledger.broken.add("a")
    with pytest.raises(ZeroDivisionError):
        await house.bring(settle("a"))

    assert [] == house.witness.waiting
    assert [] == house.heard


async def test_drained_waits_for_what_is_under_way() -> None:
    """Told is not answered: as long as the store may still refuse, nothing is drained."""
    house = House()
    house.ledger.away = True
    await house.bring(settle("a"))
    house.ledger.away = False
    house.ledger.answers.clear()
    tried = house.ledger.tries
    async with house.catching_up():
        drained = asyncio.get_running_loop().create_task(house.endings.drained())
        await eventually(lambda: house.ledger.tries > tried, what="the store is being told")
        assert not drained.done()
        house.ledger.answers.set()
        await asyncio.wait_for(drained, 10)

    assert ["a"] == house.heard_ids
