"""What a read of a promised answer does to the books: when it is early, late, repeated, forged, or one too many."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from extauthz.adapters.holds import HoldCodec
from extauthz.booking import Observation, Outcome
from extauthz.domain.budgets import Spent
from extauthz.domain.prices import Usage
from extauthz.domain.reservation import Claim, Lease, Signal, State, promise_name
from extauthz.endings import Endings
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ending, Promise
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.promises import Promises, Sight
from extauthz.settlement import Settlement
from extauthz.usage import Report, Result
from tests.support.ledger import ManualClock, a_counter, a_hold, a_reserve
from tests.support.snapshots import a_priced_snapshot
from tests.support.witness import AbsentLedger, Witness

COUNTER = a_counter()
NAME = promise_name("resp_1")
SEEN = Report(Usage(10, 10), finished=True, result=Result.OVER)
LONG = Lease(86_400_000, Spent(2_500))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once."""
    monkeypatch.setattr("extauthz.promises.SECOND_LOOK_S", 0.0)


@dataclass(slots=True)
class House:
    """A store with a clock in the test's hand, and what ends reservations by their promises."""

    clock: ManualClock = field(default_factory=ManualClock)
    witness: Witness = field(default_factory=Witness)
    ledger: AbsentLedger = field(init=False)
    settlement: Settlement = field(init=False)
    promises: Promises = field(init=False)
    codec: HoldCodec = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = AbsentLedger(self.clock.now_ms)
        usual, endings = UsualAnswer(UsualTokens(1), UsualTokens(0)), Endings(self.ledger, self.witness)
        self.settlement = Settlement(self.ledger, endings, a_priced_snapshot, usual, self.witness)
        self.codec = HoldCodec(self.ledger.signing_key)
        self.promises = Promises(
            self.ledger, self.settlement, self.witness, unseal=self.codec.unseal, decode=self.codec.decode
        )

    @property
    def sealed(self) -> str:
        """The name, as a Check seals it."""
        return str(self.codec.seal(NAME))

    async def reserve(self) -> None:
        """Hold money for the answer."""
        request = a_reserve("r", Claim(COUNTER, None, 5), reserved_at_ms=self.clock.now_ms(), lease=LONG)
        await self.ledger.reserve(request)

    async def promise(self) -> None:
        """Let the stream end that promises it."""
        hold = a_hold("r", (COUNTER,), reserved_at_ms=self.clock.now_ms())
        signed = str(self.codec.encode(hold))
        report = Report(pending=True, finished=True)
        await self.settlement.finished(Observation(hold, Outcome.ANSWERED, report, promise=Promise(NAME, signed)))

    async def see(self, report: Report = SEEN) -> None:
        """Read the answer."""
        await self.promises.seen(Sight(self.sealed, report))

    @property
    def endings(self) -> list[tuple[State, Ending]]:
        """What was told of endings."""
        return [(how, ending) for how, _, ending in self.witness.endings]


async def test_a_result_settles_and_does_so_once() -> None:
    """The first read books, others find nothing to do, and nothing is held after it."""
    house = House()
    await house.reserve()
    await house.promise()
    for _ in range(3):
        await house.see()
        await house.promises.look_again()

    assert ["r"] == house.ledger.ids
    assert [(State.SETTLED, Ending.FIRST)] == house.endings
    assert 0 == await house.ledger.open_count()


async def test_a_failure_releases() -> None:
    """What failed, and used nothing, costs nothing."""
    house = House()
    await house.reserve()
    await house.promise()
    await house.see(Report(finished=True, result=Result.FAILED))

    assert [("r", None)] == [(id_, cost) for id_, cost, _ in house.ledger.told]
    assert [(State.RELEASED, Ending.FIRST)] == house.endings


async def test_a_failure_that_used_something_is_paid() -> None:
    """A failure that shows usage is an answer."""
    house = House()
    await house.reserve()
    await house.promise()
    await house.see(replace(SEEN, result=Result.FAILED))

    assert [(State.SETTLED, Ending.FIRST)] == house.endings


async def test_a_lease_that_ended_before_is_put_right() -> None:
    """A result that is seen after the lease has ended corrects what that booked, once."""
    house = House()
    await house.reserve()
    await house.promise()
    await house.clock.advance(LONG.lease_ms + 1)
    assert 1 == await house.settlement.expire()
    await house.see()
    await house.see()

    assert [(State.EXPIRED, Ending.FIRST), (State.SETTLED, Ending.LATE)] == house.endings


async def test_a_read_that_overtakes_its_promise() -> None:
    """What is seen before its promise is known is looked up once more."""
    house = House()
    await house.reserve()
    await house.see()
    await house.promise()
    await house.promises.look_again()

    assert [(State.SETTLED, Ending.FIRST)] == house.endings


async def test_what_nobody_promised_is_looked_up_twice() -> None:
    """A read of an answer that holds nothing here is forgotten after its second look."""
    house = House()
    await house.see()
    for _ in range(2):
        await house.promises.look_again()
    await house.reserve()
    await house.promise()
    await house.promises.look_again()

    assert 1 == await house.ledger.open_count()


@pytest.mark.parametrize("passes", [1, 5])
async def test_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """What is seen while the store is away is settled when it is back, however long that takes."""
    house = House()
    await house.reserve()
    await house.promise()
    promised = house.ledger.promised

    async def away(_: str) -> str | None:
        raise StoreUnavailableError("the store is away")

    monkeypatch.setattr(house.ledger, "promised", away, raising=False)
    await house.see()
    for _ in range(passes):
        await house.promises.look_again()
    monkeypatch.setattr(house.ledger, "promised", promised)
    await house.promises.look_again()

    assert [(State.SETTLED, Ending.FIRST)] == house.endings


async def test_a_forged_name_is_counted() -> None:
    """A name that the store's key did not seal ends nothing."""
    house = House()
    await house.reserve()
    await house.promise()
    await house.promises.seen(Sight(NAME, SEEN))

    assert (1, 1) == (house.witness.holds_rejected, await house.ledger.open_count())


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One read too many is not kept, which is told; its reservation ends by the next read, or its lease."""
    monkeypatch.setattr("extauthz.promises.WAITING_MAX", 2)
    house = House()
    for _ in range(3):
        await house.see()

    assert [(State.SETTLED, Signal.ACCESS_LOG)] == house.witness.lost
