"""What the signals about streams do to the books."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from extauthz.authorizer import first_lease
from extauthz.booking import Observation, Outcome
from extauthz.config.model import Settings
from extauthz.config.snapshot import Configuration
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, ScopeKind, Spent
from extauthz.domain.policy import OnExpiry
from extauthz.domain.prices import Estimate, Prices, Units, Usage
from extauthz.domain.reservation import Claim, Hold, Lease, Note, Signal, State
from extauthz.domain.windows import LIFETIME, Window
from extauthz.endings import Endings
from extauthz.ledger.base import Ending
from extauthz.pricing.cost import cost
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.settlement import BLIND_MS, Settlement
from extauthz.usage import Report
from tests.support.ledger import LEASE, ManualClock, a_reserve
from tests.support.snapshots import a_priced_snapshot, an_offer
from tests.support.witness import AbsentLedger, Witness

# A token of input costs 10 nano-USD, one of output 100.
PRICES = Prices(Decimal("0.00000001"), Decimal("0.0000001"))
ESTIMATE = Estimate(input_tokens=50, output_tokens=20, cost_nanousd=2_500, cost_nanousd_max=90_000)
USAGE = Report(Usage(40, 10), events=9, finished=True)
USAGE_COST = 1_400
NOTHING = Report()
PART = Report(events=4, text_bytes=30)  # 30 bytes are worth 10 tokens, more than 4 events
PART_COST = 500 + 1_000


def hold(*, streamed: bool = True) -> Hold:
    """Make a hold of the estimate above."""
    return Hold("r", 0, (), "gpt-4o", PRICES, ESTIMATE, streamed)


def noted(report: Report) -> Note:
    """Give what the journal keeps: that the access log told of it, and the usage as it was reported."""
    return Note(Signal.ACCESS_LOG, report.usage)


@pytest.mark.parametrize(("rule", "spent"), [(OnExpiry.RELEASE, NOTHING_SPENT), (OnExpiry.CHARGE, Spent(2_500, 70, 1))])
def test_on_expiry(rule: OnExpiry, spent: Spent) -> None:
    """The first lease says what is booked when nothing is ever heard of a request."""
    assert Lease(120_000, spent) == first_lease(hold(), Settings(on_expiry=rule))


# ------------------------------------------------------------------------------------------------ carried out

COUNTER = Counter(Scope(ScopeKind.TEAM, ("research",)), Window(LIFETIME, 0, None))
BOUND = replace(hold(), counters=(COUNTER,), tokens_max=100, reserved_at_ms=ManualClock().now_ms())


class House:
    """A store with a clock in the test's hand, and the settlement on it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.configuration = Configuration(a_priced_snapshot())
        self.ledger = AbsentLedger(self.clock.now_ms)
        self.witness = Witness()
        self.endings = Endings(self.ledger, self.witness)
        self.usual = UsualAnswer(UsualTokens(512), UsualTokens(0))
        self.settlement = Settlement(self.ledger, self.endings, self.configuration, self.usual, self.witness)

    async def reserve(self, name: str = "r", lease: Lease = LEASE) -> None:
        """Make a reservation that is on the counter."""
        await self.ledger.reserve(
            a_reserve(name, Claim(COUNTER, None, 5), reserved_at_ms=self.clock.now_ms(), lease=lease)
        )

    async def expire(self) -> None:
        """Let a reservation end by its lease, and look at the leases."""
        await self.reserve(f"r{self.clock.now_ms()}", Lease(0, NOTHING_SPENT))
        assert 1 == await self.settlement.expire()

    async def spent(self) -> int:
        """Tell what is in the books."""
        (standing,) = await self.ledger.standings([(COUNTER, 0)])
        return standing.spent


@pytest.mark.parametrize(
    ("usage", "booked", "absurd"),
    [
        pytest.param(Usage(100, 100), Usage(100, 100), (), id="all of the context"),
        pytest.param(Usage(101, 5), Usage(100, 5), ("input_tokens",), id="more input"),
        pytest.param(Usage(5, 10**8), Usage(5, 100), ("output_tokens",), id="more output"),
        pytest.param(
            Usage(500, 5, 400, 300, 200),
            Usage(100, 5, 100, 100, 100),
            ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_output_tokens"),
            id="more of several kinds",
        ),
    ],
)
async def test_usage_beyond_the_context(usage: Usage, booked: Usage, absurd: tuple[str, ...]) -> None:
    """No answer has more tokens than its model reads: what is more is cut, named, and booked and noted as cut."""
    house = House()
    await house.reserve()
    await house.settlement.finished(Observation(BOUND, Outcome.ANSWERED, Report(usage, finished=True)))

    ((name, spent, note),) = house.ledger.told
    assert ("r", Note(Signal.ACCESS_LOG, booked)) == (name, note)
    assert spent == Spent(cost(PRICES, booked), booked.tokens, 1)
    assert cost(PRICES, booked) == await house.spent()
    assert ([("gpt-4o", absurd)] if absurd else []) == house.witness.absurd


async def test_nothing_is_cut_where_the_context_is_not_known() -> None:
    """Without a maximum the upstream's count is believed."""
    house = House()
    unbound = replace(BOUND, tokens_max=None)
    await house.settlement.finished(Observation(unbound, Outcome.ANSWERED, Report(Usage(10_000, 1))))

    assert 100_100 == await house.spent()
    assert [] == house.witness.absurd


async def test_what_a_living_stream_reports_is_cut_as_well() -> None:
    """The cost that a lease carries is never of more tokens than the model reads."""
    house = House()
    await house.reserve()
    await house.settlement.progressed(BOUND, Report(Usage(10_000, 10_000), events=1))
    await house.clock.advance(10**6)
    await house.settlement.expire()

    assert cost(PRICES, Usage(100, 100)) == await house.spent()


async def test_what_is_cut_is_learnt_as_cut() -> None:
    """An absurd answer does not make the next estimate absurd."""
    house = House()
    for number in range(20):
        await house.reserve(f"r{number}")
        bound = replace(BOUND, id=f"r{number}")
        await house.settlement.finished(Observation(bound, Outcome.ANSWERED, Report(Usage(1, 10**8))))

    assert 100 == house.usual.output.of("gpt-4o")


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.FAILED])
async def test_a_finished_stream_is_noted(outcome: Outcome) -> None:
    """The journal gets the signal with every ending, and the usage with a settlement."""
    house = House()
    await house.reserve()
    await house.settlement.finished(Observation(BOUND, outcome, USAGE))

    failed = outcome is Outcome.FAILED
    spent, note = (None, Note()) if failed else (Spent(USAGE_COST, 50, 1), Note(Signal.ACCESS_LOG, USAGE.usage))
    assert [("r", spent, note)] == house.ledger.told
    how = State.RELEASED if failed else State.SETTLED
    assert [(how, Signal.ACCESS_LOG, Ending.FIRST)] == house.witness.endings


async def test_a_cancelled_check_is_noted() -> None:
    """Envoy's giving up is another signal than its log."""
    house = House()
    await house.reserve()
    await house.settlement.cancelled("r", "first")

    assert [("r", None, Note(Signal.CANCELLATION))] == house.ledger.told
    assert [(State.RELEASED, Signal.CANCELLATION, Ending.FIRST)] == house.witness.endings


async def test_a_check_without_an_answer_is_noted() -> None:
    """That a stream ended of which we know the id alone is told by the access log."""
    house = House()
    await house.settlement.unanswered("r")

    assert [("r", None, Note(Signal.ACCESS_LOG))] == house.ledger.told
    assert [(State.RELEASED, Signal.ACCESS_LOG, Ending.UNKNOWN)] == house.witness.endings


async def test_endings_are_kept_while_the_store_is_away() -> None:
    """None fails or is told about; all are carried out when it is back. A living stream will be heard of again."""
    house = House()
    for name in ("r", "cancelled", "unanswered"):
        await house.reserve(name)
    house.ledger.away = True
    await house.settlement.progressed(BOUND, PART)
    await house.settlement.finished(Observation(BOUND, Outcome.ANSWERED, USAGE))
    await house.settlement.cancelled("cancelled", "first")
    await house.settlement.unanswered("unanswered")

    assert ([1, 2, 3], []) == (house.witness.waiting, house.witness.endings)
    assert 3 == await house.ledger.open_count()

    house.ledger.away = False
    catching_up = asyncio.get_running_loop().create_task(house.endings.catch_up())
    await asyncio.wait_for(house.endings.drained(), 10)
    catching_up.cancel()

    assert [
        (State.SETTLED, Signal.ACCESS_LOG, Ending.FIRST),
        (State.RELEASED, Signal.CANCELLATION, Ending.FIRST),
        (State.RELEASED, Signal.ACCESS_LOG, Ending.FIRST),
    ] == house.witness.endings
    assert (0, USAGE_COST) == (await house.ledger.open_count(), await house.spent())


# ---------------------------------------------------------------- what was free, and what is still to be made

FREE = replace(BOUND, model="llama", free=True)
MODELS = a_priced_snapshot(
    an_offer("gpt-4o", "openai/gpt-4o", input_cost_per_token=10, output_cost_per_token=100),
    an_offer("llama", "openai/llama", input_cost_per_token=0, output_cost_per_token=0),
)


async def test_a_free_answer_leaves_the_store_alone() -> None:
    """Neither its end nor a sign of its life is told to the store: free models go on without one."""
    house = House()
    house.configuration.replace(MODELS)
    await house.settlement.progressed(FREE, replace(PART, model="gpt-4o"))
    await house.settlement.expire()
    assert 0 == house.ledger.heard_ms()

    house.ledger.away = True
    for outcome in Outcome:
        await house.settlement.finished(Observation(FREE, outcome, replace(USAGE, model="llama")))

    assert ([], [], [], 0) == (house.ledger.told, house.witness.endings, house.witness.paid, house.endings.waiting)


async def test_a_free_request_that_a_paid_model_answered_is_booked_once() -> None:
    """However often its end is told, and it is counted as what it is; nothing is learnt of the free model from it."""
    house = House()
    house.configuration.replace(MODELS)
    for _ in range(20):
        await house.settlement.finished(Observation(FREE, Outcome.ANSWERED, replace(USAGE, model="gpt-4o")))

    assert USAGE_COST == await house.spent()
    assert [("llama", "gpt-4o")] == house.witness.paid
    assert Ending.UNKNOWN is house.witness.endings[0][2]
    assert {Ending.REPEATED} == {ending for _, _, ending in house.witness.endings[1:]}
    assert 512 == house.usual.output.of("llama")


@pytest.mark.parametrize(("answered", "strayed"), [("gpt-4o", True), ("llama", False)])
async def test_a_free_request_that_was_reserved_is_told_of_as_well(answered: str, strayed: bool) -> None:  # noqa: FBT001 - a column
    """Where tokens or requests limit it, it is settled like any other; a paid answer is seen, and not learnt from."""
    house = House()
    house.configuration.replace(MODELS)
    free = replace(BOUND, model="llama", prices=Prices(Decimal(0), Decimal(0)), estimate=Estimate(50, 20, 0, 0))
    for number in range(20):
        await house.reserve(f"r{number}")
        report = replace(USAGE, model=answered)
        await house.settlement.finished(Observation(replace(free, id=f"r{number}"), Outcome.ANSWERED, report))

    assert [("llama", "gpt-4o")] * (20 if strayed else 0) == house.witness.paid
    assert (512 if strayed else 10) == house.usual.output.of("llama")


PROMISE = Report(pending=True)


async def test_a_promise_stays_held_and_is_booked_when_nothing_is_heard() -> None:
    """The answer ends, the reservation does not; after the background's lease the estimate is booked."""
    house = House()
    house.configuration.replace(a_priced_snapshot(background_lease_seconds=600))
    await house.reserve()
    await house.settlement.finished(Observation(BOUND, Outcome.ANSWERED, PROMISE))
    await house.clock.advance(599_999)

    assert ([], 0) == (house.witness.endings, await house.settlement.expire())
    await house.clock.advance(1)
    assert (1, 2_500) == (await house.settlement.expire(), await house.spent())


async def test_a_promise_whose_reservation_has_ended_is_booked_at_once() -> None:
    """A lease that ran out before, or a store that never knew: what was promised is paid all the same, once."""
    house = House()
    await house.reserve(lease=Lease(0, NOTHING_SPENT))
    await house.settlement.expire()
    for _ in range(2):
        await house.settlement.finished(Observation(BOUND, Outcome.ANSWERED, PROMISE))

    assert 2_500 == await house.spent()
    assert [Ending.FIRST, Ending.LATE, Ending.REPEATED] == [ending for _, _, ending in house.witness.endings]


async def test_a_promise_is_kept_while_the_store_is_away() -> None:
    """The renewal is told when the store is back, or its first lease would let it go for nothing."""
    house = House()
    await house.reserve()
    house.ledger.away = True
    await house.settlement.finished(Observation(BOUND, Outcome.ANSWERED, PROMISE))
    assert 1 == house.endings.waiting

    house.ledger.away = False
    catching_up = asyncio.get_running_loop().create_task(house.endings.catch_up())
    await asyncio.wait_for(house.endings.drained(), 10)
    catching_up.cancel()
    await house.clock.advance(LEASE.lease_ms)

    assert (0, 1) == (await house.settlement.expire(), await house.ledger.open_count())


@pytest.mark.parametrize(
    ("usage", "learnt"),
    [
        pytest.param(Usage(5, 7), 7, id="tokens"),
        pytest.param(Usage(5, 0), 0, id="an answer without output"),
        pytest.param(Usage(0, 0, units=Units(images=1)), 512, id="units say nothing of tokens"),
    ],
)
async def test_what_is_learnt(usage: Usage, learnt: int) -> None:
    """What answers need is learnt from those that tell their tokens."""
    house = House()
    for number in range(20):
        await house.reserve(f"r{number}")
        bound = replace(BOUND, id=f"r{number}")
        await house.settlement.finished(Observation(bound, Outcome.ANSWERED, Report(usage)))

    assert learnt == house.usual.output.of("gpt-4o")


# -------------------------------------------------------------------------------------------------- blindness


async def test_blind_without_access_logs() -> None:
    """Leases that end what nobody logged for BLIND_MS say so, and not a millisecond sooner."""
    house = House()
    await house.clock.advance(BLIND_MS - 1)
    await house.expire()
    assert {False} == set(house.witness.blind)

    await house.clock.advance(1)
    await house.expire()
    assert [True] == house.witness.blind[1:]


async def test_quiet_is_not_blind() -> None:
    """Where nothing ends by its lease nothing is said: at night nobody asks for anything."""
    house = House()
    await house.clock.advance(10 * BLIND_MS)
    await house.settlement.expire()

    assert [] == house.witness.blind


@pytest.mark.parametrize("signal", ["finished", "progressed", "unanswered"])
async def test_an_access_log_ends_blindness(signal: str) -> None:
    """Once one was heard, at any replica, settlement sees again, for BLIND_MS."""
    house = House()
    await house.clock.advance(BLIND_MS)
    await house.expire()
    match signal:
        case "finished":
            await house.settlement.finished(Observation(BOUND, Outcome.ANSWERED, USAGE))
        case "progressed":
            await house.settlement.progressed(BOUND, PART)
        case _:
            await house.settlement.unanswered("r")
    await house.settlement.expire()
    assert [True, False] == house.witness.blind

    await house.clock.advance(BLIND_MS - 1)
    await house.expire()
    await house.clock.advance(1)
    await house.expire()
    assert [True, False, False, True] == house.witness.blind


async def test_a_cancellation_is_no_access_log() -> None:
    """A Check that Envoy gave up on says nothing about whether its logs arrive."""
    house = House()
    await house.clock.advance(BLIND_MS)
    await house.settlement.cancelled("r", "first")
    await house.expire()

    assert [True] == house.witness.blind
