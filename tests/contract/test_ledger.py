"""What every ledger does. This is the exact meaning of extauthz/ledger/base.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest

from extauthz.domain.budgets import NOTHING_SPENT, Counter, Spent, Standing
from extauthz.domain.reservation import TRANSITIONS, Claim, Lease, State, Verb
from extauthz.ledger.base import (
    PROMISE_BYTES_MAX,
    PROMISES_MAX,
    TOMBSTONE_SECONDS,
    AlreadyEnded,
    Amendment,
    AmendmentKind,
    Balance,
    Ending,
    Expired,
    Ledger,
    Promise,
    Refused,
    Reserve,
    Reserved,
    StaleWindow,
    TooLate,
)
from tests.support.ledger import LEASE, Clock, a_counter, a_reserve, a_window, balance

pytestmark = pytest.mark.asyncio(loop_scope="session")

RETENTION_MS = TOMBSTONE_SECONDS * 1000

TEAM = a_counter("research")
OTHER_TEAM = a_counter("support")
HUNDRED = Claim(TEAM, limit=1000, amount=100)
HUNDRED_UNLIMITED = replace(HUNDRED, limit=None)

# More than any list is made of at once.
MANY = 1201

Ask = Callable[..., Reserve]


@pytest.fixture
def ask(clock: Clock) -> Ask:
    """Give a maker of reserves whose holds are as old as the store's present."""
    return lambda name, *claims, **more: a_reserve(name, *claims, **{"reserved_at_ms": clock.now_ms(), **more})


async def spend(ledger: Ledger, ask: Ask, counter: Counter, cost_nanousd: int) -> None:
    """Bring a counter's spent up by a reservation that is settled at once."""
    request = ask(f"spent on {counter.key}", Claim(counter, None, 0))
    await ledger.reserve(request)
    await ledger.settle(request.hold, Spent(cost_nanousd))


class TestReserve:
    """Money is held on every counter of a request, or on none."""

    async def test_holds_on_every_counter(self, ledger: Ledger, ask: Ask) -> None:
        """Each counter holds the amount that its own claim names, and nothing is spent."""
        result = await ledger.reserve(ask("r", HUNDRED, Claim(OTHER_TEAM, 500, 70)))

        assert Reserved(available_nanousd=430) == result
        assert Balance(TEAM, spent=0, held=100) == await balance(ledger, TEAM)
        assert Balance(OTHER_TEAM, spent=0, held=70) == await balance(ledger, OTHER_TEAM)

    async def test_is_all_or_nothing(self, ledger: Ledger, ask: Ask) -> None:
        """A refusal by the last counter leaves the first one untouched."""
        result = await ledger.reserve(ask("r", HUNDRED, Claim(OTHER_TEAM, limit=0, amount=100)))

        assert isinstance(result, Refused)
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)
        assert 0 == await ledger.open_count()

    @pytest.mark.parametrize(
        ("whole", "available", "amount", "held"),
        [
            pytest.param(False, 100, 60, 60, id="a part that fits is held"),
            pytest.param(False, 100, 100, 100, id="a part that just fits is held"),
            pytest.param(False, 1, 100, 1, id="a part holds what is left"),
            pytest.param(False, 0, 100, None, id="a part needs something left"),
            pytest.param(False, 5, 0, 0, id="a part of nothing passes while something is left"),
            pytest.param(False, 0, 0, None, id="a part of nothing needs something left"),
            pytest.param(True, 100, 100, 100, id="a whole that just fits is held"),
            pytest.param(True, 99, 100, None, id="a whole that does not fit is refused"),
            pytest.param(True, 0, 0, 0, id="a whole of nothing fits beside holds"),
        ],
    )
    async def test_a_limit_left_by_holds(
        self, ledger: Ledger, ask: Ask, *, whole: bool, available: int, amount: int, held: int | None
    ) -> None:
        """A partial claim takes what it can get while anything is available, a whole one everything or nothing."""
        await ledger.reserve(ask("earlier", Claim(TEAM, 1000, 1000 - available)))

        result = await ledger.reserve(ask("r", Claim(TEAM, 1000, amount, whole=whole)))

        if held is None:
            assert Refused(Standing(TEAM, 1000, spent=0, held=1000 - available)) == result
        else:
            assert Reserved(available - held) == result
        assert 1000 - available + (held or 0) == (await balance(ledger, TEAM)).held

    @pytest.mark.parametrize("whole", [False, True], ids=["partial", "whole"])
    @pytest.mark.parametrize(("limit", "spent"), [(0, 0), (1000, 1000), (1000, 1001)])
    async def test_an_exhausted_counter_refuses_even_nothing(
        self, ledger: Ledger, ask: Ask, limit: int, spent: int, *, whole: bool
    ) -> None:
        """Once spent has reached the limit nothing passes; a limit of 0 is exhausted at once."""
        await spend(ledger, ask, TEAM, spent)

        result = await ledger.reserve(ask("r", Claim(TEAM, limit, 0, whole=whole)))

        assert Refused(Standing(TEAM, limit, spent, held=0)) == result

    async def test_without_a_limit_everything_is_held(self, ledger: Ledger, ask: Ask) -> None:
        """A counter without a limit holds the full amount, never refuses, and has no available to tell."""
        result = await ledger.reserve(ask("r", Claim(TEAM, limit=None, amount=10**15)))

        assert Reserved(available_nanousd=None) == result
        assert Balance(TEAM, 0, 10**15) == await balance(ledger, TEAM)

    async def test_without_claims(self, ledger: Ledger, ask: Ask) -> None:
        """A request that nothing is counted for is a reservation all the same."""
        result = await ledger.reserve(ask("r"))

        assert Reserved(available_nanousd=None) == result
        assert 1 == await ledger.open_count()

    async def test_exhausted_binds_before_held_out(self, ledger: Ledger, ask: Ask) -> None:
        """An exhausted counter is named rather than one that holds have taken, however far below 0 that is."""
        await spend(ledger, ask, OTHER_TEAM, 10)
        await ledger.reserve(ask("earlier", Claim(TEAM, None, 5000)))

        result = await ledger.reserve(ask("r", HUNDRED, Claim(OTHER_TEAM, 10, 100)))

        assert Refused(Standing(OTHER_TEAM, 10, spent=10, held=0)) == result

    async def test_least_available_binds_among_held_out(self, ledger: Ledger, ask: Ask) -> None:
        """Of two counters that holds have taken, the one with less left is named."""
        await ledger.reserve(ask("earlier", Claim(TEAM, None, 1000), Claim(OTHER_TEAM, None, 1001)))

        result = await ledger.reserve(ask("r", HUNDRED, Claim(OTHER_TEAM, 1000, 100)))

        assert Refused(Standing(OTHER_TEAM, 1000, spent=0, held=1001)) == result

    @pytest.mark.parametrize(
        ("claims", "held", "available"),
        [
            pytest.param([Claim(TEAM, 1000, 80), Claim(TEAM, 500, 80)], 80, 420, id="both fit"),
            pytest.param([Claim(TEAM, 1000, 80), Claim(TEAM, 50, 80)], 50, 0, id="the tighter leaves a part"),
            pytest.param([Claim(TEAM, 50, 80), Claim(TEAM, None, 80)], 50, 0, id="one is no limit"),
            pytest.param([Claim(TEAM, 900, 200, whole=True), Claim(TEAM, 500, 80)], 200, 300, id="one wants the whole"),
        ],
    )
    async def test_two_budgets_on_one_counter(
        self, ledger: Ledger, ask: Ask, claims: list[Claim], held: int, available: int
    ) -> None:
        """The same counter in two claims holds once, and both limits are obeyed."""
        request = ask("r", *claims)
        result = await ledger.reserve(request)

        assert Reserved(available) == result
        assert Balance(TEAM, 0, held) == await balance(ledger, TEAM)

        await ledger.settle(request.hold, Spent(60))

        assert Balance(TEAM, 60, 0) == await balance(ledger, TEAM)

    async def test_two_budgets_on_one_counter_both_refuse(self, ledger: Ledger, ask: Ask) -> None:
        """A limit that is exhausted refuses although another one on the same counter would pass."""
        await spend(ledger, ask, TEAM, 50)

        result = await ledger.reserve(ask("r", HUNDRED, Claim(TEAM, 50, 80)))

        assert Refused(Standing(TEAM, 50, spent=50, held=0)) == result

    async def test_a_refused_request_may_ask_again(self, ledger: Ledger, ask: Ask) -> None:
        """A refusal leaves nothing behind: the same id passes once there is money."""
        earlier = ask("earlier", Claim(TEAM, 100, 100))
        await ledger.reserve(earlier)
        refused = await ledger.reserve(ask("r", Claim(TEAM, 100, 100)))
        await ledger.release(earlier.hold.id)

        assert isinstance(refused, Refused)
        assert Reserved(0) == await ledger.reserve(ask("r", Claim(TEAM, 100, 100)))

    async def test_not_after(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A reserve that runs after its time does nothing; one that runs in time does not mind having had little."""
        not_after_ms = clock.now_ms() + 1000
        in_time = await ledger.reserve(ask("in time", HUNDRED, not_after_ms=not_after_ms))
        stuck = ask("stuck", HUNDRED, not_after_ms=not_after_ms)
        await clock.advance(1001)

        assert Reserved(900) == in_time
        assert TooLate() == await ledger.reserve(stuck)
        assert 1 == await ledger.open_count()

    async def test_a_hold_older_than_tombstones(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A reserve so old that its ending may be forgotten does nothing."""
        request = ask("r", HUNDRED, reserved_at_ms=clock.now_ms() - RETENTION_MS)

        assert TooLate() == await ledger.reserve(request)
        assert 0 == await ledger.open_count()


class TestIdempotence:
    """A verb that arrives twice does what it did once."""

    async def test_reserve(self, ledger: Ledger, ask: Ask) -> None:
        """A second reserve of an id holds nothing more, and is answered as the first."""
        first = await ledger.reserve(ask("r", HUNDRED))
        second = await ledger.reserve(ask("r", HUNDRED))

        assert Reserved(900) == first == second
        assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)
        assert 1 == await ledger.open_count()

    async def test_reserve_of_a_known_id_is_not_judged_again(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """What is held is held: neither a full budget, nor the time, nor the window's end makes a repeat fail."""
        claim = Claim(a_counter(window=a_window(clock.now_ms(), left_ms=500)), 100, 100)
        await ledger.reserve(ask("r", claim))
        await clock.advance(501)

        repeated = await ledger.reserve(ask("r", claim, not_after_ms=clock.now_ms() - 1))

        assert Reserved(0) == repeated

    async def test_settle(self, ledger: Ledger, ask: Ask) -> None:
        """The first settle counts, whatever a second one says."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)

        assert Ending.FIRST == await ledger.settle(request.hold, Spent(70))
        assert Ending.REPEATED == await ledger.settle(request.hold, Spent(80))
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_release(self, ledger: Ledger, ask: Ask) -> None:
        """A second release changes nothing."""
        await ledger.reserve(ask("r", HUNDRED))

        assert Ending.FIRST == await ledger.release("r")
        assert Ending.REPEATED == await ledger.release("r")
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)

    async def test_expire(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A reservation expires once."""
        await ledger.reserve(ask("r", HUNDRED))
        await clock.advance(LEASE.lease_ms)

        assert (Expired("r", Spent(30)),) == await ledger.expire(10)
        assert () == await ledger.expire(10)
        assert Balance(TEAM, 30, 0) == await balance(ledger, TEAM)

    async def test_late_settle(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A late settle puts the books right once."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)
        await clock.advance(LEASE.lease_ms)
        await ledger.expire(10)

        assert Ending.LATE == await ledger.settle(request.hold, Spent(70))
        assert Ending.REPEATED == await ledger.settle(request.hold, Spent(80))
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_settle_of_an_unknown_reservation(self, ledger: Ledger, ask: Ask) -> None:
        """A settle that the store knows nothing of is booked once."""
        request = ask("r", HUNDRED)

        assert Ending.UNKNOWN == await ledger.settle(request.hold, Spent(70))
        assert Ending.REPEATED == await ledger.settle(request.hold, Spent(70))
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_settle_of_what_passed_as_free(self, ledger: Ledger, ask: Ask) -> None:
        """It was never reserved: told by two replicas at once, and late, it is booked once, and held by nobody."""
        free = replace(ask("r", HUNDRED).hold, free=True)
        told = await asyncio.gather(*(ledger.settle(free, Spent(70)) for _ in range(2)))

        assert sorted((Ending.UNKNOWN, Ending.REPEATED)) == sorted(told)
        assert Ending.REPEATED == await ledger.settle(free, Spent(70))
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_release_of_an_unknown_reservation(self, ledger: Ledger) -> None:
        """A release that the store knows nothing of is remembered."""
        assert Ending.UNKNOWN == await ledger.release("r")
        assert Ending.REPEATED == await ledger.release("r")


class TestStates:
    """Every verb in every state does what the table in domain/reservation.py says, and no more."""

    # The cost that the verb settles with, and what is booked in each state before it.
    COST_NANOUSD: ClassVar = 70
    BOOKED_NANOUSD: ClassVar = {
        State.HELD: 0,
        State.SETTLED: 55,
        State.RELEASED: 0,
        State.EXPIRED: LEASE.spent.cost_nanousd,
    }

    async def bring_to(self, state: State, request: Reserve, ledger: Ledger, clock: Clock) -> None:
        """Reserve, and end the reservation in a state."""
        await ledger.reserve(request)
        match state:
            case State.HELD:
                pass
            case State.SETTLED:
                await ledger.settle(request.hold, Spent(self.BOOKED_NANOUSD[State.SETTLED]))
            case State.RELEASED:
                await ledger.release(request.hold.id)
            case State.EXPIRED:
                await clock.advance(LEASE.lease_ms)
                await ledger.expire(1)

    async def carry_out(self, verb: Verb, request: Reserve, ledger: Ledger, clock: Clock) -> bool:
        """Carry out a verb, and tell whether it says that it changed anything."""
        match verb:
            case Verb.SETTLE:
                return await ledger.settle(request.hold, Spent(self.COST_NANOUSD)) in {Ending.FIRST, Ending.LATE}
            case Verb.RELEASE:
                return await ledger.release(request.hold.id) is Ending.FIRST
            case Verb.EXPIRE:
                await clock.advance(LEASE.lease_ms)
                return await ledger.expire(1) != ()

    def booked(self, state: State, verb: Verb) -> int:
        """Tell what must be spent after a verb in a state."""
        if (state, verb) not in TRANSITIONS or verb is Verb.RELEASE:
            return self.BOOKED_NANOUSD[state]
        return self.COST_NANOUSD if verb is Verb.SETTLE else LEASE.spent.cost_nanousd

    @pytest.mark.parametrize("verb", Verb)
    @pytest.mark.parametrize("state", State)
    async def test_transition(self, ledger: Ledger, clock: Clock, ask: Ask, state: State, verb: Verb) -> None:
        """A verb leads to the table's state, says so and books accordingly; one that is not there changes nothing."""
        request = ask("r", HUNDRED)
        await self.bring_to(state, request, ledger, clock)

        changed = await self.carry_out(verb, request, ledger, clock)
        after = await ledger.reserve(request)

        assert ((state, verb) in TRANSITIONS) == changed
        assert AlreadyEnded(TRANSITIONS.get((state, verb), state)) == after
        assert Balance(TEAM, self.booked(state, verb), 0) == await balance(ledger, TEAM)
        assert 0 == await ledger.open_count()

    @pytest.mark.parametrize("state", [state for state in State if state is not State.HELD])
    async def test_nothing_is_renewed_after_its_end(self, ledger: Ledger, clock: Clock, ask: Ask, state: State) -> None:
        """A sign of life of an ended reservation does not bring it back."""
        request = ask("r", HUNDRED)
        await self.bring_to(state, request, ledger, clock)

        assert not await ledger.renew(request.hold, LEASE)
        assert AlreadyEnded(state) == await ledger.reserve(request)

    @pytest.mark.parametrize("cost", [0, 10, 30, 5000])
    async def test_late_settle_corrects_up_and_down(self, ledger: Ledger, clock: Clock, ask: Ask, cost: int) -> None:
        """After a late settle its cost is what the reservation counts for, below or above what its expiry booked."""
        await spend(ledger, ask, TEAM, 400)
        request = ask("r", HUNDRED)
        await self.bring_to(State.EXPIRED, request, ledger, clock)

        assert Ending.LATE == await ledger.settle(request.hold, Spent(cost))
        assert Balance(TEAM, 400 + cost, 0) == await balance(ledger, TEAM)

    async def test_settle_may_exceed_what_was_held(self, ledger: Ledger, ask: Ask) -> None:
        """The real cost is booked although it is more than the hold, and more than the limit."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)
        await ledger.settle(request.hold, Spent(2500))

        assert Balance(TEAM, 2500, 0) == await balance(ledger, TEAM)


class TestOvertaking:
    """Signals arrive in any order."""

    async def test_release_before_its_reserve(self, ledger: Ledger, ask: Ask) -> None:
        """The release wins: the reserve that comes after it holds nothing."""
        await ledger.release("r")

        assert AlreadyEnded(State.RELEASED) == await ledger.reserve(ask("r", HUNDRED))
        assert 0 == await ledger.open_count()

    async def test_settle_before_its_reserve(self, ledger: Ledger, ask: Ask) -> None:
        """The cost is booked once, and the reserve that comes after it holds nothing."""
        request = ask("r", HUNDRED)
        await ledger.settle(request.hold, Spent(70))

        assert AlreadyEnded(State.SETTLED) == await ledger.reserve(request)
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_settle_after_a_release_that_was_first(self, ledger: Ledger, ask: Ask) -> None:
        """A settle of a reservation that was released before it was reserved books nothing."""
        await ledger.release("r")

        assert Ending.REPEATED == await ledger.settle(ask("r", HUNDRED).hold, Spent(70))
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)

    @pytest.mark.parametrize(
        ("age_ms", "ending", "spent"),
        [
            pytest.param(RETENTION_MS - 60_000, Ending.UNKNOWN, 70, id="young"),
            pytest.param(RETENTION_MS, Ending.FORGOTTEN, 0, id="old"),
        ],
    )
    async def test_settle_of_an_unknown_reservation_by_age(
        self, ledger: Ledger, clock: Clock, ask: Ask, age_ms: int, ending: Ending, spent: int
    ) -> None:
        """It is booked while its ending would still be remembered, and after that no more."""
        hold = ask("r", HUNDRED, reserved_at_ms=clock.now_ms() - age_ms).hold

        assert ending == await ledger.settle(hold, Spent(70))
        assert Balance(TEAM, spent, 0) == await balance(ledger, TEAM)

    async def test_an_open_reservation_is_never_too_old(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """What is open is settled, however long ago its hold was made."""
        request = ask("r", HUNDRED, reserved_at_ms=clock.now_ms() - RETENTION_MS + 200)
        await ledger.reserve(request)
        await clock.advance(300)

        assert Ending.FIRST == await ledger.settle(request.hold, Spent(70))


class TestAttempts:
    """A retried Check asks for the same reservation under another attempt."""

    async def test_release_of_the_attempt_that_holds(self, ledger: Ledger, ask: Ask) -> None:
        """It gives the money back and stops that attempt alone: the retry reserves under the same id."""
        await ledger.reserve(ask("r", HUNDRED, attempt="first"))

        assert Ending.FIRST == await ledger.release("r", attempt="first")
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)
        assert AlreadyEnded(State.RELEASED) == await ledger.reserve(ask("r", HUNDRED, attempt="first"))
        assert Reserved(900) == await ledger.reserve(ask("r", HUNDRED, attempt="second"))

    async def test_release_of_an_attempt_that_was_taken_over(self, ledger: Ledger, ask: Ask) -> None:
        """The reservation stays with the retry, which can be settled."""
        request = ask("r", HUNDRED, attempt="second")
        await ledger.reserve(ask("r", HUNDRED, attempt="first"))
        await ledger.reserve(request)

        assert Ending.REPEATED == await ledger.release("r", attempt="first")
        assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)
        assert Ending.FIRST == await ledger.settle(request.hold, Spent(70))

    async def test_a_taken_over_attempt_does_not_take_back(self, ledger: Ledger, ask: Ask) -> None:
        """A repeated reserve of a released attempt leaves the reservation with the retry."""
        await ledger.reserve(ask("r", HUNDRED, attempt="second"))
        await ledger.release("r", attempt="first")

        assert AlreadyEnded(State.RELEASED) == await ledger.reserve(ask("r", HUNDRED, attempt="first"))
        assert Ending.FIRST == await ledger.release("r", attempt="second")

    async def test_release_of_an_attempt_before_its_reserve(self, ledger: Ledger, ask: Ask) -> None:
        """Only the attempt that was released is stopped."""
        assert Ending.UNKNOWN == await ledger.release("r", attempt="first")
        assert Ending.REPEATED == await ledger.release("r", attempt="first")
        assert AlreadyEnded(State.RELEASED) == await ledger.reserve(ask("r", HUNDRED, attempt="first"))
        assert Reserved(900) == await ledger.reserve(ask("r", HUNDRED, attempt="second"))

    async def test_final_release_ends_every_attempt(self, ledger: Ledger, ask: Ask) -> None:
        """A release that names no attempt stops later ones too."""
        await ledger.reserve(ask("r", HUNDRED, attempt="first"))
        await ledger.release("r")

        assert AlreadyEnded(State.RELEASED) == await ledger.reserve(ask("r", HUNDRED, attempt="second"))
        assert Ending.REPEATED == await ledger.release("r", attempt="second")

    async def test_final_release_after_that_of_an_attempt(self, ledger: Ledger, ask: Ask) -> None:
        """The release of an attempt leaves the reservation to others; a final one then stops them."""
        await ledger.reserve(ask("r", HUNDRED, attempt="first"))
        await ledger.release("r", attempt="first")

        assert Ending.UNKNOWN == await ledger.release("r")
        assert AlreadyEnded(State.RELEASED) == await ledger.reserve(ask("r", HUNDRED, attempt="second"))

    async def test_settle_after_the_release_of_an_attempt(self, ledger: Ledger, ask: Ask) -> None:
        """An answer that came all the same is booked: it costs money, and the reservation had not ended for good."""
        request = ask("r", HUNDRED, attempt="first")
        await ledger.reserve(request)
        await ledger.release("r", attempt="first")

        assert Ending.UNKNOWN == await ledger.settle(request.hold, Spent(70))
        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)
        assert AlreadyEnded(State.SETTLED) == await ledger.reserve(ask("r", HUNDRED, attempt="second"))


class TestLeases:
    """A reservation of which nothing is heard ends by itself."""

    async def test_nothing_expires_early(self, ledger: Ledger, ask: Ask) -> None:
        """A reservation lives through its lease."""
        await ledger.reserve(ask("r", HUNDRED, lease=Lease(60_000, Spent(30))))

        assert () == await ledger.expire(10)
        assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)

    async def test_oldest_first_and_not_more_than_asked(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """Leases end in the order in which they run out, at most so many at a time."""
        for name, lease_ms in {"last": 300, "first": 100, "second": 200, "not due": 60_000}.items():
            await ledger.reserve(ask(name, HUNDRED, lease=Lease(lease_ms, spent=Spent(lease_ms))))
        await clock.advance(300)

        assert (Expired("first", Spent(100)), Expired("second", Spent(200))) == await ledger.expire(2)
        assert (Expired("last", Spent(300)),) == await ledger.expire(2)
        assert Balance(TEAM, 600, 100) == await balance(ledger, TEAM)

    async def test_renew_starts_the_lease_anew(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A renewed reservation outlives its first lease, and expires with what the last renewal says."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)

        assert await ledger.renew(request.hold, Lease(60_000, spent=Spent(40)))
        assert await ledger.renew(request.hold, Lease(1000, spent=Spent(50)))

        await clock.advance(LEASE.lease_ms)
        early = await ledger.expire(10)
        await clock.advance(1000)

        assert () == early
        assert (Expired("r", Spent(50)),) == await ledger.expire(10)
        assert Balance(TEAM, 50, 0) == await balance(ledger, TEAM)

    async def test_renew_of_an_unknown_reservation(self, ledger: Ledger, ask: Ask) -> None:
        """A sign of life of what the store does not know brings nothing to life."""
        assert not await ledger.renew(ask("r", HUNDRED).hold, LEASE)
        assert 0 == await ledger.open_count()

    async def test_an_overdue_reservation_is_held_until_it_is_expired(
        self, ledger: Ledger, clock: Clock, ask: Ask
    ) -> None:
        """Time alone ends nothing: a settle that comes before the expiry is the first ending."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)
        await clock.advance(LEASE.lease_ms)

        assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)
        assert Ending.FIRST == await ledger.settle(request.hold, Spent(70))
        assert () == await ledger.expire(10)


class TestWindows:
    """A counter belongs to one window, and a settle to the window that it was reserved in."""

    async def test_outside_of_its_window(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A claim on a window that is over, or has not begun, is answered with the store's time and holds nothing."""
        over = a_counter(window=a_window(clock.now_ms(), left_ms=0))
        to_come = a_counter(window=a_window(clock.now_ms(), left_ms=60_000))

        for counter in (over, to_come):
            result = await ledger.reserve(ask("r", HUNDRED, Claim(counter, 1000, 100)))

            assert isinstance(result, StaleWindow)
            assert 1000 > abs(clock.now_ms() - result.now_ms)
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)

    async def test_rolls_over(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """When a window is over, the next one has the whole limit, while what is open stays held in the old one."""
        old = a_counter(window=a_window(clock.now_ms(), left_ms=500))
        new = a_counter(window=a_window(clock.now_ms(), left_ms=1500))
        await spend(ledger, ask, old, 60)
        request = ask("open", Claim(old, 100, 40))
        await ledger.reserve(request)
        await clock.advance(500)

        result = await ledger.reserve(ask("r", Claim(new, 100, 10)))

        assert Reserved(90) == result
        assert Balance(old, 60, 40) == await balance(ledger, old)

        await ledger.settle(request.hold, Spent(25))

        assert Balance(old, 85, 0) == await balance(ledger, old)
        assert Balance(new, 0, 10) == await balance(ledger, new)

    async def test_late_settle_into_a_window_that_is_over(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """The window in which a reservation was made gets its expiry and its late cost, however late they come."""
        old = a_counter(window=a_window(clock.now_ms(), left_ms=100))
        request = ask("r", Claim(old, 100, 40))
        await ledger.reserve(request)
        await clock.advance(LEASE.lease_ms)
        await ledger.expire(10)

        assert Balance(old, 30, 0) == await balance(ledger, old)
        assert Ending.LATE == await ledger.settle(request.hold, Spent(25))
        assert Balance(old, 25, 0) == await balance(ledger, old)


class TestAmendments:
    """Somebody changes the books by hand."""

    async def amend(
        self, ledger: Ledger, kind: AmendmentKind, amount: int | None = None, counter: Counter = TEAM
    ) -> Amendment:
        """Change a counter, and check that it was done now."""
        amendment = Amendment(f"{kind} of {amount} on {counter.key}", kind, counter, amount, "ops@example.com")

        assert await ledger.amend(amendment)

        return amendment

    async def test_reset(self, ledger: Ledger, ask: Ask) -> None:
        """Nothing is spent any more; what is held stays held, and is settled on top of nothing."""
        await spend(ledger, ask, TEAM, 1000)
        request = ask("open", Claim(TEAM, None, 40))
        await ledger.reserve(request)
        await self.amend(ledger, AmendmentKind.RESET)

        assert Balance(TEAM, 0, 40) == await balance(ledger, TEAM)

        await ledger.settle(request.hold, Spent(70))

        assert Balance(TEAM, 70, 0) == await balance(ledger, TEAM)

    async def test_reset_of_a_counter_that_nobody_used(self, ledger: Ledger) -> None:
        """There is nothing to forget."""
        await self.amend(ledger, AmendmentKind.RESET)

        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)

    async def test_a_correction_after_a_reset_takes_nothing_below_zero(
        self, ledger: Ledger, clock: Clock, ask: Ask
    ) -> None:
        """What an expiry booked was forgotten by the reset: the late settle cannot give it back a second time."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)
        await clock.advance(LEASE.lease_ms)
        await ledger.expire(10)
        await self.amend(ledger, AmendmentKind.RESET)

        assert Ending.LATE == await ledger.settle(request.hold, Spent(LEASE.spent.cost_nanousd - 10))
        assert Balance(TEAM, 0, 0) == await balance(ledger, TEAM)

    async def test_import(self, ledger: Ledger, ask: Ask) -> None:
        """What was spent elsewhere counts, and exhausts the budget."""
        await spend(ledger, ask, TEAM, 400)
        await self.amend(ledger, AmendmentKind.IMPORT, 600)

        assert Refused(Standing(TEAM, 1000, 1000, 0)) == await ledger.reserve(ask("r", HUNDRED))

    async def test_grant(self, ledger: Ledger, ask: Ask) -> None:
        """The limit is higher by what was granted, once more with each grant."""
        await spend(ledger, ask, TEAM, 1000)
        await self.amend(ledger, AmendmentKind.GRANT, 30)
        await self.amend(ledger, AmendmentKind.GRANT, 50)

        assert (Standing(TEAM, 1080, 1000, 0),) == await ledger.standings([(TEAM, 1000)])
        assert Reserved(0) == await ledger.reserve(ask("r", HUNDRED))
        assert Balance(TEAM, 1000, 80) == await balance(ledger, TEAM)
        assert Refused(Standing(TEAM, 1080, 1000, 80)) == await ledger.reserve(ask("other", HUNDRED))

    async def test_a_grant_ends_with_its_window(self, ledger: Ledger, clock: Clock) -> None:
        """The next window has the configured limit again."""
        now, later = (a_counter(window=a_window(clock.now_ms(), left_ms=left_ms)) for left_ms in (60_000, 61_000))
        await self.amend(ledger, AmendmentKind.GRANT, 30, now)

        assert (Standing(now, 130, 0, 0), Standing(later, 100, 0, 0)) == await ledger.standings(
            [(now, 100), (later, 100)]
        )

    async def test_limit(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """The limit stands in for the configured one in this window and later ones, until it is taken away."""
        now, later = (a_counter(window=a_window(clock.now_ms(), left_ms=left_ms)) for left_ms in (60_000, 61_000))
        await self.amend(ledger, AmendmentKind.LIMIT, 50, now)

        assert (Standing(now, 50, 0, 0), Standing(later, 50, 0, 0)) == await ledger.standings([(now, 9), (later, 9)])

        await self.amend(ledger, AmendmentKind.LIMIT, 0)

        assert Refused(Standing(TEAM, 0, 0, 0)) == await ledger.reserve(ask("r", HUNDRED))

        await self.amend(ledger, AmendmentKind.LIMIT, None)

        assert Reserved(900) == await ledger.reserve(ask("r", HUNDRED))

    @pytest.mark.parametrize("kind", [AmendmentKind.IMPORT, AmendmentKind.GRANT])
    async def test_twice(self, ledger: Ledger, kind: AmendmentKind) -> None:
        """The same change again changes nothing, and says so."""
        amendment = await self.amend(ledger, kind, 7)
        before = await ledger.standings([(TEAM, 100)])

        assert not await ledger.amend(amendment)
        assert before == await ledger.standings([(TEAM, 100)])


class TestConcurrency:
    """Requests that come at once are judged one after the other."""

    async def test_exactly_as_many_pass_as_fit(self, ledger: Ledger, ask: Ask) -> None:
        """Of 100 reserves at once for a budget that fits 10, exactly 10 pass."""
        requests = [ask(f"r{number}", HUNDRED) for number in range(100)]
        results = await asyncio.gather(*map(ledger.reserve, requests))

        assert 10 == sum(isinstance(result, Reserved) for result in results)
        assert 90 == sum(isinstance(result, Refused) for result in results)
        assert Balance(TEAM, 0, 1000) == await balance(ledger, TEAM)

    async def test_one_ending_is_the_first(self, ledger: Ledger, ask: Ask) -> None:
        """Of many endings of one reservation at once, exactly one counts."""
        request = ask("r", HUNDRED)
        await ledger.reserve(request)

        settles = (ledger.settle(request.hold, Spent(70)) for _ in range(20))
        releases = (ledger.release("r") for _ in range(20))
        endings = await asyncio.gather(*settles, *releases)

        assert 1 == endings.count(Ending.FIRST)
        assert 39 == endings.count(Ending.REPEATED)
        assert 0 == (await balance(ledger, TEAM)).held


class TestQuestions:
    """What one may ask a ledger."""

    async def test_standings_come_in_the_order_asked(self, ledger: Ledger, ask: Ask) -> None:
        """A counter stands as it is against any limit; one that nobody used stands at 0."""
        await spend(ledger, ask, TEAM, 5)
        await ledger.reserve(ask("r", HUNDRED))

        standings = await ledger.standings([(OTHER_TEAM, 7), (TEAM, 1000), (TEAM, 5)])

        expected = (Standing(OTHER_TEAM, 7, 0, 0), Standing(TEAM, 1000, 5, 100), Standing(TEAM, 5, 5, 100))
        assert expected == standings
        assert (7, 895, -100) == tuple(standing.available for standing in standings)
        assert (False, False, True) == tuple(standing.exhausted for standing in standings)

    async def test_balances_name_the_most_spent(self, ledger: Ledger, ask: Ask) -> None:
        """The counters with the most spent come first, and no more than asked for."""
        for team, cost in {"a": 10, "b": 30, "c": 20}.items():
            await spend(ledger, ask, a_counter(team), cost)

        assert (Balance(a_counter("b"), 30, 0), Balance(a_counter("c"), 20, 0)) == await ledger.balances(2)

    async def test_many_counters(self, ledger: Ledger) -> None:
        """Of more counters than are looked at in one piece each stands in its place, and alike ones go by their key."""
        counters = [a_counter(f"{number:04}") for number in range(MANY)]
        imports = (
            Amendment(counter.key, AmendmentKind.IMPORT, counter, 7 + number % 2, "ops")
            for number, counter in enumerate(counters)
        )
        assert all(await asyncio.gather(*map(ledger.amend, imports)))

        limits = [(counter, number) for number, counter in enumerate(counters)]
        expected = tuple(Standing(counter, number, 7 + number % 2, 0) for counter, number in limits)
        most_spent = tuple(Balance(counter, cost, 0) for cost in (8, 7) for counter in counters[cost - 7 :: 2])

        assert expected == await ledger.standings(limits)
        assert most_spent == await ledger.balances(MANY + 1)
        assert most_spent[: MANY - 1] == await ledger.balances(MANY - 1)
        assert most_spent[:3] == await ledger.balances(3)
        assert () == await ledger.balances(0)

    async def test_balances_leave_out_what_is_over(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A window that is over is listed only as long as money is held in it."""
        old = a_counter(window=a_window(clock.now_ms(), left_ms=100))
        await ledger.reserve(ask("r", Claim(old, 100, 40)))
        await clock.advance(100)

        assert (Balance(old, 0, 40),) == await ledger.balances(10)

        await ledger.release("r")

        assert () == await ledger.balances(10)

    async def test_open_count(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """Open are those that were reserved and have not ended in any way."""
        requests = [ask(name, HUNDRED) for name in ("settled", "released", "expired")]
        for request in requests:
            await ledger.reserve(request)
        await ledger.settle(requests[0].hold, Spent(1))
        await ledger.release("released")
        before = await ledger.open_count()
        await clock.advance(LEASE.lease_ms)
        await ledger.expire(10)

        assert (1, 0) == (before, await ledger.open_count())

    async def test_reservations(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """The oldest come first, whatever the order of their leases, and each says what it holds where until when."""
        now_ms = clock.now_ms()
        old = ask(
            "old", HUNDRED, Claim(OTHER_TEAM, 1000, 70), reserved_at_ms=now_ms - 2000, lease=Lease(60_000, Spent(30))
        )
        oldest = ask("oldest", Claim(TEAM, 150, 70), reserved_at_ms=now_ms - 3000, lease=Lease(90_000, Spent(30)))
        for request in (ask("new", Claim(TEAM, None, 0)), old, oldest):
            await ledger.reserve(request)

        listed = await ledger.reservations(9)

        assert ["oldest", "old", "new"] == [reservation.id for reservation in listed]
        assert oldest.attempt == listed[0].attempt
        assert [now_ms - 3000, now_ms - 2000] == [reservation.reserved_at_ms for reservation in listed[:2]]
        assert [((TEAM, 50),), ((TEAM, 100), (OTHER_TEAM, 70)), ((TEAM, 0),)] == [
            reservation.amounts for reservation in listed
        ]
        for due_ms, reservation in zip((90_000, 60_000, LEASE.lease_ms), listed, strict=True):
            assert due_ms <= reservation.lease_end_ms - now_ms < due_ms + 5000
        assert listed[:2] == await ledger.reservations(2)

    async def test_reservations_renewed_and_ended(self, ledger: Ledger, clock: Clock, ask: Ask) -> None:
        """A renewed one has its new lease; what has ended, or was refused, is not listed."""
        now_ms = clock.now_ms()
        requests = {name: ask(name, HUNDRED) for name in ("renewed", "settled", "released")}
        for request in requests.values():
            await ledger.reserve(request)
        assert isinstance(await ledger.reserve(ask("refused", Claim(TEAM, 0, 1))), Refused)
        await ledger.renew(requests["renewed"].hold, Lease(120_000, Spent(30)))
        await ledger.settle(requests["settled"].hold, Spent(1))
        await ledger.release("released")

        (listed,) = await ledger.reservations(9)

        assert "renewed" == listed.id
        assert 120_000 <= listed.lease_end_ms - now_ms < 125_000

    async def test_a_model_with_a_blank(self, ledger: Ledger, ask: Ask) -> None:
        """A model's name comes back as it was, whatever is in it."""
        request = ask("r", HUNDRED)
        await ledger.reserve(replace(request, hold=replace(request.hold, model="my model|%20/é")))

        (listed,) = await ledger.reservations(1)

        assert "my model|%20/é" == listed.model

    async def test_many_reservations(self, ledger: Ledger, ask: Ask, clock: Clock) -> None:
        """More than are read in one piece are listed, in their order."""
        now_ms = clock.now_ms()
        requests = [
            ask(
                f"r{number:04}",
                HUNDRED_UNLIMITED,
                reserved_at_ms=now_ms - number % 7,
                lease=Lease(60_000, NOTHING_SPENT),
            )
            for number in range(MANY)
        ]
        await asyncio.gather(*map(ledger.reserve, requests))
        expected = sorted((request.hold.reserved_at_ms, request.hold.id) for request in requests)

        listed = await ledger.reservations(MANY)

        assert expected == [(reservation.reserved_at_ms, reservation.id) for reservation in listed]
        assert listed[:600] == await ledger.reservations(600)

    async def test_audit(self, ledger: Ledger, ask: Ask) -> None:
        """Books that verbs alone have written are right, and the audit says how much it has looked at."""
        await spend(ledger, ask, TEAM, 5)
        await ledger.reserve(ask("open", HUNDRED, Claim(OTHER_TEAM, None, 70)))
        await ledger.reserve(ask("nothing held", Claim(a_counter("c"), None, 0)))

        audit = await ledger.audit()

        assert audit.ok
        assert (3, 3, 2) == (audit.counters_checked, audit.scopes_checked, audit.reservations_open)

    async def test_time_and_key(self, ledger: Ledger, clock: Clock) -> None:
        """The store tells its time and the key that holds are signed with."""
        assert 1000 > abs(clock.now_ms() - ledger.now_ms())
        assert ledger.signing_key()


class TestPromises:
    """What is held for an answer that is still to be made is found by the answer's name."""

    async def test_is_found_until_it_is_forgotten(self, ledger: Ledger) -> None:
        """A promise is given back as it was made, as often as it is asked for, and not after it was forgotten."""
        promise = Promise("a" * 64, "a signed hold")
        assert await ledger.promise(promise)

        assert ["a signed hold"] * 2 == [await ledger.promised(promise.name) for _ in range(2)]
        await ledger.forget(promise.name)
        assert await ledger.promised(promise.name) is None

    async def test_nobody_promised_it(self, ledger: Ledger) -> None:
        """A name that nobody promised is no promise, and may be forgotten."""
        await ledger.forget("unknown")

        assert await ledger.promised("unknown") is None

    async def test_the_first_keeps_its_name(self, ledger: Ledger) -> None:
        """A promise that is made again changes nothing, and none takes the place of another."""
        first, other = Promise("one", "first"), Promise("one", "other")
        answers = [await ledger.promise(promise) for promise in (first, first, other)]

        assert [True, True, False] == answers
        assert "first" == await ledger.promised("one")

    async def test_its_name_is_free_again(self, ledger: Ledger) -> None:
        """What was forgotten stands in nobody's way."""
        await ledger.promise(Promise("one", "first"))
        await ledger.forget("one")

        assert await ledger.promise(Promise("one", "second"))
        assert "second" == await ledger.promised("one")

    @pytest.mark.parametrize(("size", "remembered"), [(PROMISE_BYTES_MAX, True), (PROMISE_BYTES_MAX + 1, False)])
    async def test_is_not_longer_than_it_may_be(self, ledger: Ledger, size: int, *, remembered: bool) -> None:
        """A hold that is too long is not remembered."""
        assert remembered is await ledger.promise(Promise("long", "h" * size))
        assert (await ledger.promised("long") is not None) is remembered

    async def test_there_is_room_for_so_many(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond the maximum none is taken, those that are there stay, and what is forgotten makes room."""
        assert PROMISES_MAX > MANY
        for module in ("items", "promises"):
            monkeypatch.setattr(f"extauthz.ledger.{module}.PROMISES_MAX", 1)
        names = [f"n{number}" for number in range(9)]  # in several shards, one in each
        made = {name for name in names if await ledger.promise(Promise(name, name))}
        kept = {name for name in names if await ledger.promised(name) is not None}
        await ledger.forget("n0")

        assert {"n0"} <= made == kept < set(names)
        assert await ledger.promise(Promise("n0", "again"))

    async def test_is_no_part_of_the_books(self, ledger: Ledger, ask: Ask) -> None:
        """A promise holds nothing by itself, and the books are right with it."""
        await ledger.reserve(ask("r", HUNDRED))
        await ledger.promise(Promise("one", "a signed hold"))

        assert (await ledger.audit()).ok
        assert Balance(TEAM, 0, 100) == await balance(ledger, TEAM)
        assert 1 == await ledger.open_count()


class TestAnnounce:
    """One of all processes tells the world what every one of them sees."""

    async def test_the_first_alone(self, ledger: Ledger) -> None:
        """Of many who announce the same at once exactly one is the first; another name is another announcement."""
        told = await asyncio.gather(*(ledger.announce("research is at 80 %", 60_000) for _ in range(20)))

        assert 1 == sum(told)
        assert not await ledger.announce("research is at 80 %", 60_000)
        assert await ledger.announce("research is at 90 %", 60_000)

    async def test_its_time_is_over(self, ledger: Ledger, clock: Clock) -> None:
        """After its time the next one is the first again, and that time is not prolonged by those who come too late."""
        assert await ledger.announce("again", 600)
        await clock.advance(100)
        assert not await ledger.announce("again", 60_000)
        await clock.advance(501)

        assert await ledger.announce("again", 60_000)

    async def test_a_name_of_any_length(self, ledger: Ledger) -> None:
        """Long names are told apart by their last letter, too, and any letter may be in one."""
        for name in ("é" * 300 + "a", "é" * 300 + "b", "a {b}:* \n\0", ""):
            assert [True, False] == [await ledger.announce(name, 60_000) for _ in range(2)]

    async def test_is_no_part_of_the_books(self, ledger: Ledger) -> None:
        """An announcement moves no money and opens nothing."""
        await ledger.announce("something", 60_000)

        assert () == await ledger.balances(10)
        assert () == await ledger.reservations(10)
        assert (await ledger.audit()).ok
