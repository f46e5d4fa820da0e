"""What every ledger does with counters in tokens and in requests, and with those of one model or one provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from extauthz.domain.budgets import (
    NOTHING_SPENT,
    Counter,
    Filter,
    FilterKind,
    Measure,
    Scope,
    ScopeKind,
    Spent,
    Standing,
)
from extauthz.domain.reservation import Claim, Lease
from extauthz.ledger.base import (
    Amendment,
    AmendmentKind,
    Balance,
    Ending,
    Expired,
    Ledger,
    Refused,
    Reserve,
    Reserved,
)
from tests.support.ledger import LEASE, Clock, a_counter, a_reserve, a_window, balance

pytestmark = pytest.mark.asyncio(loop_scope="session")

USD = a_counter()
TOKENS = a_counter(measure=Measure.TOKENS)
REQUESTS = a_counter(measure=Measure.REQUESTS)
# Names that would be measures, or ends of a key, if nobody looked where they stand.
OF_MODELS = tuple(
    a_counter(measure=measure, only=Filter(FilterKind.MODEL, name))
    for measure in Measure
    for name in ("gpt-4o", "tokens", "/requests", "x/tokens|1|2", "ä b")
)
OF_PROVIDERS = tuple(
    a_counter("tokens", measure=measure, only=Filter(FilterKind.PROVIDER, "usd")) for measure in Measure
)
MEMBER = Counter(Scope(ScopeKind.MEMBER, ("model=x", "tokens")), USD.window)
EVERY = (USD, TOKENS, REQUESTS, *OF_MODELS, *OF_PROVIDERS, MEMBER)

USED = Spent(700, 50, 1)
EXPIRY = Lease(LEASE.lease_ms, Spent(30, 20, 1))

Ask = Callable[..., Reserve]


@pytest.fixture
def ask(clock: Clock) -> Ask:
    """Give a maker of reserves whose holds are as old as the store's present."""
    return lambda name, *claims, **more: a_reserve(
        name, *claims, **{"reserved_at_ms": clock.now_ms(), "lease": EXPIRY, **more}
    )


def unlimited(*counters: Counter) -> tuple[Claim, ...]:
    """Count on each what a request is expected to use, without a limit."""
    expected = Spent(900, 80, 1)
    return tuple(Claim(counter, None, expected.of(counter.measure)) for counter in counters)


async def stand(ledger: Ledger, counters: Sequence[Counter]) -> list[tuple[str, int, int]]:
    """Tell what is spent and held on counters."""
    standings = await ledger.standings([(counter, 0) for counter in counters])
    return [(standing.counter.label, standing.spent, standing.held) for standing in standings]


def in_each(counters: Sequence[Counter], spent: Spent, held: Spent = NOTHING_SPENT) -> list[tuple[str, int, int]]:
    """Give what counters say when so much was spent on each, and so much is held."""
    return [(counter.label, spent.of(counter.measure), held.of(counter.measure)) for counter in counters]


async def import_(ledger: Ledger, counter: Counter, amount: int) -> None:
    """Bring a counter's spent up."""
    amendment = Amendment(f"{amount} on {counter.key}", AmendmentKind.IMPORT, counter, amount, "ops@example.com")
    assert await ledger.amend(amendment)


class TestEndings:
    """Each counter is booked in its own measure, in the same step as all others."""

    async def test_settle(self, ledger: Ledger, ask: Ask) -> None:
        """A reservation holds on every counter what its claim says, and is settled with what was used, in its unit."""
        request = ask("r", *unlimited(*EVERY))
        await ledger.reserve(request)

        assert in_each(EVERY, NOTHING_SPENT, Spent(900, 80, 1)) == await stand(ledger, EVERY)
        assert Ending.FIRST == await ledger.settle(request.hold, USED)
        assert in_each(EVERY, USED) == await stand(ledger, EVERY)
        assert Ending.REPEATED == await ledger.settle(request.hold, USED)
        assert in_each(EVERY, USED) == await stand(ledger, EVERY)
        assert (await ledger.audit()).ok

    async def test_settle_of_an_unknown_reservation(self, ledger: Ledger, ask: Ask) -> None:
        """What the store knows nothing of is booked so as well, on the counters of the hold."""
        hold = ask("r", *unlimited(*EVERY)).hold

        assert Ending.UNKNOWN == await ledger.settle(hold, USED)
        assert in_each(EVERY, USED) == await stand(ledger, EVERY)

    async def test_an_answer_that_costs_nothing(self, ledger: Ledger, ask: Ask) -> None:
        """A free model's tokens are counted, and its request, where nothing is spent in USD."""
        request = ask("r", Claim(USD, None, 0), *unlimited(TOKENS, REQUESTS))
        await ledger.reserve(request)
        await ledger.settle(request.hold, Spent(0, 50, 1))

        assert [("lifetime", 0, 0), ("lifetime/tokens", 50, 0), ("lifetime/requests", 1, 0)] == await stand(
            ledger, [USD, TOKENS, REQUESTS]
        )

    async def test_release(self, ledger: Ledger, ask: Ask) -> None:
        """A request that failed used nothing, and is none."""
        await ledger.reserve(ask("r", *unlimited(*EVERY)))
        await ledger.release("r")

        assert in_each(EVERY, NOTHING_SPENT) == await stand(ledger, EVERY)

    async def test_expiry(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A lease books what it says in every measure."""
        await ledger.reserve(ask("r", *unlimited(*EVERY)))
        await clock.advance(EXPIRY.lease_ms)

        assert (Expired("r", EXPIRY.spent),) == await ledger.expire(10)
        assert in_each(EVERY, EXPIRY.spent) == await stand(ledger, EVERY)
        assert (await ledger.audit()).ok

    @pytest.mark.parametrize("only", [USD, OF_MODELS[0], OF_PROVIDERS[0]], ids=lambda counter: counter.label)
    async def test_expiry_where_only_usd_is_counted(
        self, ledger: Ledger, clock: Clock, ask: Ask, only: Counter
    ) -> None:
        """Nothing else is booked, and so it is told."""
        await ledger.reserve(ask("r", *unlimited(only)))
        await clock.advance(EXPIRY.lease_ms)

        assert (Expired("r", Spent(30)),) == await ledger.expire(10)
        assert Balance(only, 30, 0) == await balance(ledger, only)

    async def test_expiry_by_the_last_renewal(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """What a stream had delivered when it was heard of last is booked, in every measure."""
        request = ask("r", *unlimited(*EVERY), lease=Lease(60_000, NOTHING_SPENT))
        await ledger.reserve(request)
        await ledger.renew(request.hold, Lease(EXPIRY.lease_ms, Spent(40, 25, 1)))
        await clock.advance(EXPIRY.lease_ms)

        assert (Expired("r", Spent(40, 25, 1)),) == await ledger.expire(10)
        assert in_each(EVERY, Spent(40, 25, 1)) == await stand(ledger, EVERY)

    async def test_expiry_that_releases(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A lease that says nothing books nothing, and the late settle all."""
        request = ask("r", *unlimited(*EVERY), lease=Lease(EXPIRY.lease_ms, NOTHING_SPENT))
        await ledger.reserve(request)
        await clock.advance(EXPIRY.lease_ms)

        assert (Expired("r", NOTHING_SPENT),) == await ledger.expire(10)
        assert in_each(EVERY, NOTHING_SPENT) == await stand(ledger, EVERY)
        assert Ending.LATE == await ledger.settle(request.hold, USED)
        assert in_each(EVERY, USED) == await stand(ledger, EVERY)

    @pytest.mark.parametrize(
        "used",
        [
            pytest.param(Spent(700, 50, 1), id="more"),
            pytest.param(Spent(7, 5, 1), id="less"),
            pytest.param(Spent(7, 50, 1), id="cheaper, and longer"),
            pytest.param(Spent(30, 20, 1), id="as much"),
            pytest.param(NOTHING_SPENT, id="nothing"),
        ],
    )
    async def test_late_settle(self, ledger: Ledger, clock: Clock, ask: Ask, used: Spent) -> None:
        """What an expiry booked is put right in every measure, up or down, once."""
        request = ask("r", *unlimited(*EVERY))
        await ledger.reserve(request)
        await clock.advance(EXPIRY.lease_ms)
        await ledger.expire(10)

        assert Ending.LATE == await ledger.settle(request.hold, used)
        assert Ending.REPEATED == await ledger.settle(request.hold, USED)
        assert in_each(EVERY, used) == await stand(ledger, EVERY)
        assert (await ledger.audit()).ok

    async def test_a_correction_takes_nothing_below_zero(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """After a reset of one counter, what it lacks is missing there, and nowhere else."""
        request = ask("r", *unlimited(*EVERY))
        await ledger.reserve(request)
        await clock.advance(EXPIRY.lease_ms)
        await ledger.expire(10)
        await ledger.amend(Amendment("reset", AmendmentKind.RESET, TOKENS, None, "ops"))

        assert Ending.LATE == await ledger.settle(request.hold, Spent(10, 15, 1))
        assert Balance(TOKENS, 0, 0) == await balance(ledger, TOKENS)
        others = [counter for counter in EVERY if counter != TOKENS]
        assert in_each(others, Spent(10, 15, 1)) == await stand(ledger, others)
        assert (await ledger.audit()).ok


class TestAdmission:
    """Every limit binds in its own unit."""

    @pytest.mark.parametrize("counter", [TOKENS, REQUESTS, OF_MODELS[6], OF_PROVIDERS[2]], ids=lambda it: it.label)
    async def test_a_limit(self, ledger: Ledger, ask: Ask, counter: Counter) -> None:
        """As much is held as there is, the last request gets what is left, and the next is refused by that counter."""
        granted = [
            await ledger.reserve(ask(f"r{number}", Claim(USD, 1000, 10), Claim(counter, 5, 2))) for number in range(4)
        ]

        assert [Reserved(990), Reserved(980), Reserved(970), Refused(Standing(counter, 5, 0, 5))] == granted
        assert Balance(USD, 0, 30) == await balance(ledger, USD)

    async def test_the_whole_must_fit(self, ledger: Ledger, ask: Ask) -> None:
        """A strict budget in tokens refuses what may be too long, however much money there is."""
        whole = Claim(TOKENS, 100, 60, whole=True)
        granted = [await ledger.reserve(ask(name, Claim(USD, 1000, 10), whole)) for name in "ab"]

        assert [Reserved(990), Refused(Standing(TOKENS, 100, 0, 60))] == granted

    async def test_what_is_left_is_told_in_usd_alone(self, ledger: Ledger, ask: Ask) -> None:
        """The least of what limits in USD leave, however little others do; nothing where only others limit."""
        usd_of_model = OF_MODELS[0]
        tight = (Claim(TOKENS, 5, 1), Claim(REQUESTS, 5, 1))

        assert Reserved(80) == await ledger.reserve(ask("a", *tight, Claim(USD, 100, 7), Claim(usd_of_model, 90, 10)))
        assert Reserved(80) == await ledger.reserve(ask("a", *tight, Claim(USD, 100, 7), Claim(usd_of_model, 90, 10)))
        assert Reserved(None) == await ledger.reserve(ask("b", *tight, Claim(USD, None, 7)))

    @pytest.mark.parametrize(
        ("spent", "binding"),
        [
            pytest.param({TOKENS: 99, REQUESTS: 5, USD: 99}, REQUESTS, id="the exhausted one"),
            pytest.param({TOKENS: 100, REQUESTS: 10, USD: 99}, TOKENS, id="tokens before requests"),
            pytest.param({TOKENS: 999, REQUESTS: 10, USD: 100}, USD, id="USD before both"),
            pytest.param({TOKENS: 999, USD: 100, OF_MODELS[0]: 101}, OF_MODELS[0], id="the least in USD"),
            pytest.param({TOKENS: 90, REQUESTS: 4}, TOKENS, id="held out: tokens before requests"),
            pytest.param({TOKENS: 95, OF_MODELS[0]: 91, USD: 92}, USD, id="held out: the least in USD"),
        ],
    )
    async def test_which_one_is_named(
        self, ledger: Ledger, ask: Ask, spent: dict[Counter, int], binding: Counter
    ) -> None:
        """An exhausted one comes first, then USD, tokens, requests, then the one with the least left."""
        limits = {REQUESTS: 5, TOKENS: 100, OF_MODELS[0]: 100, USD: 100}
        for counter, amount in spent.items():
            await import_(ledger, counter, amount)

        claims = [Claim(counter, limit, 50, whole=True) for counter, limit in limits.items()]
        refused = await ledger.reserve(ask("r", *claims))

        assert Refused(Standing(binding, limits[binding], spent[binding], 0)) == refused


class TestAmendments:
    """Somebody changes one budget of a scope by hand: that which its label names."""

    @pytest.mark.parametrize("counter", EVERY, ids=lambda counter: counter.key)
    async def test_by_hand(self, ledger: Ledger, counter: Counter) -> None:
        """Import, grant, limit and reset are in the counter's measure, and leave all others of the scope alone."""
        amendments = [
            Amendment(str(number), kind, counter, amount, "ops@example.com")
            for number, (kind, amount) in enumerate(
                [(AmendmentKind.IMPORT, 70), (AmendmentKind.GRANT, 5), (AmendmentKind.LIMIT, 60)]
            )
        ]
        assert all([await ledger.amend(amendment) for amendment in amendments])

        standings = {standing.counter: standing for standing in await ledger.standings([(each, 9) for each in EVERY])}
        assert Standing(counter, 65, 70, 0) == standings.pop(counter)
        assert {Standing(other, 9, 0, 0) for other in standings} == set(standings.values())

        await ledger.amend(Amendment("back", AmendmentKind.LIMIT, counter, None, "ops@example.com"))
        await ledger.amend(Amendment("reset", AmendmentKind.RESET, counter, None, "ops@example.com"))

        assert (Standing(counter, 14, 0, 0),) == await ledger.standings([(counter, 9)])
        assert (await ledger.audit()).ok

    async def test_a_limit_of_later_windows(self, ledger: Ledger, clock: Clock) -> None:
        """It stands in for the configured one in every window of that label."""
        now, later = (
            a_counter(window=a_window(clock.now_ms(), left_ms=left_ms), measure=Measure.TOKENS)
            for left_ms in (60_000, 61_000)
        )
        in_usd = a_counter(window=later.window)
        await ledger.amend(Amendment("limit", AmendmentKind.LIMIT, now, 50, "ops"))

        standings = await ledger.standings([(now, 9), (later, 9), (in_usd, 9)])
        assert (Standing(now, 50, 0, 0), Standing(later, 50, 0, 0), Standing(in_usd, 9, 0, 0)) == standings


class TestQuestions:
    """Lists name counters of every measure."""

    async def test_balances_in_turn(self, ledger: Ledger) -> None:
        """The most spent of each measure come first, then the second of each: a few cents are many nano-USD."""
        amounts = {
            USD: 9_000_000,
            OF_MODELS[0]: 8_000_000,
            OF_MODELS[1]: 7_000_000,
            TOKENS: 500,
            OF_MODELS[6]: 600,
            REQUESTS: 3,
        }
        for counter, amount in amounts.items():
            await import_(ledger, counter, amount)

        in_turn = [USD, OF_MODELS[6], REQUESTS, OF_MODELS[0], TOKENS, OF_MODELS[1]]
        listed = tuple(Balance(counter, amounts[counter], 0) for counter in in_turn)
        assert listed == await ledger.balances(10)
        assert listed[:4] == await ledger.balances(4)
        assert () == await ledger.balances(0)

    async def test_reservations(self, ledger: Ledger, ask: Ask) -> None:
        """An open reservation says what it holds where, in each counter's measure."""
        await ledger.reserve(ask("r", *unlimited(*EVERY)))

        (listed,) = await ledger.reservations(1)

        assert tuple((counter, Spent(900, 80, 1).of(counter.measure)) for counter in EVERY) == listed.amounts
