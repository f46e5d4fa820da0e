"""The memory store's maxima, and what it forgets; what it does otherwise is the contract of all stores."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.domain.budgets import Counter, Scope, ScopeKind, Spent
from extauthz.domain.reservation import Claim, Lease, State
from extauthz.domain.windows import WindowRule
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import AlreadyEnded, Balance, Drift, Ending, Reserved, TooLate
from extauthz.ledger.memory import ANNOUNCED_MAX, STALE_LEASES_MAX, MemoryLedger
from extauthz.ledger.pieces import PIECE
from extauthz.ledger.tombstones import EARLY_RELEASE_MS, EARLY_RELEASES_MAX, RETENTION_MS
from tests.support.ledger import LEASE, SIGNING_KEY, ManualClock, a_counter, a_hold, a_reserve, a_window, balance

TEAM = a_counter()
CLAIM = Claim(TEAM, limit=1000, amount=1)


@pytest.fixture
def clock() -> ManualClock:
    """Give the clock of a test."""
    return ManualClock()


class TestReservationsMax:
    """Open reservations have a maximum."""

    async def test_the_next_one_is_no_admission(self, clock: ManualClock) -> None:
        """At the maximum the store is unavailable, with a text that says what to do, and nothing is held."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, reservations_max=2)
        await ledger.reserve(a_reserve("a", CLAIM))
        await ledger.reserve(a_reserve("b", CLAIM))

        with pytest.raises(StoreUnavailableError, match="2 open reservations already: see that endings arrive"):
            await ledger.reserve(a_reserve("c", CLAIM))
        assert Balance(TEAM, 0, 2) == await balance(ledger, TEAM)

    async def test_known_ones_go_on(self, clock: ManualClock) -> None:
        """At the maximum the open ones are still repeated and ended, which makes room."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, reservations_max=1)
        await ledger.reserve(a_reserve("a", CLAIM))

        assert Reserved(999) == await ledger.reserve(a_reserve("a", CLAIM))
        assert Ending.FIRST == await ledger.release("a")
        assert Reserved(999) == await ledger.reserve(a_reserve("b", CLAIM))


class TestCountersMax:
    """Counters have a maximum, and those of windows that are over make room."""

    async def test_reserve_at_the_maximum(self, clock: ManualClock) -> None:
        """A reserve that needs one more counter holds nothing at all, also where it would have had one."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, counters_max=2)
        await ledger.reserve(a_reserve("a", CLAIM))

        with pytest.raises(StoreUnavailableError, match="counts on 2 counters already, one per scope"):
            await ledger.reserve(a_reserve("b", CLAIM, Claim(a_counter("b"), None, 1), Claim(a_counter("c"), None, 1)))
        assert Balance(TEAM, 0, 1) == await balance(ledger, TEAM)
        assert 1 == await ledger.open_count()
        assert 1 == len(await ledger.balances(10))

    async def test_settle_at_the_maximum(self, clock: ManualClock) -> None:
        """A settle of an unknown reservation that needs one more counter is not booked, and can be tried again."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, counters_max=1)
        window = a_window(clock.now_ms(), left_ms=100)
        await ledger.settle(a_hold("a", (a_counter("a", window),)), Spent(7))
        hold = a_hold("b", (TEAM,))

        with pytest.raises(StoreUnavailableError):
            await ledger.settle(hold, Spent(7))

        await clock.advance(100)

        assert Ending.UNKNOWN == await ledger.settle(hold, Spent(7))
        assert Balance(TEAM, 7, 0) == await balance(ledger, TEAM)

    async def test_a_refusal_takes_no_counter(self, clock: ManualClock) -> None:
        """Requests that are refused cannot fill the store."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, counters_max=1)
        for number in range(10):
            await ledger.reserve(a_reserve(f"r{number}", Claim(a_counter(f"t{number}"), 0, 1)))

        assert Reserved(999) == await ledger.reserve(a_reserve("r", CLAIM))

    async def test_never_with_a_reservation_on(self, clock: ManualClock) -> None:
        """A window that is over makes no room while a reservation is open on it, even one that holds nothing."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, counters_max=1)
        old = a_counter("old", a_window(clock.now_ms(), left_ms=100))
        request = a_reserve("a", Claim(old, 1000, 0))
        await ledger.reserve(request)
        await clock.advance(RETENTION_MS + 100)
        again = a_reserve("b", CLAIM, reserved_at_ms=clock.now_ms())

        with pytest.raises(StoreUnavailableError):
            await ledger.reserve(again)

        await ledger.settle(request.hold, Spent(3))

        assert Balance(old, 3, 0) == await balance(ledger, old)
        assert Reserved(999) == await ledger.reserve(again)


class TestRetention:
    """Windows that are over are kept as long as anything may still be booked there."""

    async def test_dropped_when_nothing_can_be_booked_any_more(self, clock: ManualClock) -> None:
        """A counter is kept for a day after its window or its last ending, whichever is later, and then dropped."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        old = a_counter("old", a_window(clock.now_ms(), left_ms=100))
        await ledger.reserve(a_reserve("r", Claim(old, 1000, 40)))
        await clock.advance(1000)
        await ledger.expire(1)
        await clock.advance(RETENTION_MS - 1)
        await ledger.reserve(a_reserve("wakes", Claim(a_counter("a"), None, 1), reserved_at_ms=clock.now_ms()))
        kept = await balance(ledger, old)
        await clock.advance(RETENTION_MS)
        await ledger.reserve(a_reserve("wakes again", Claim(a_counter("b"), None, 1), reserved_at_ms=clock.now_ms()))

        assert (Balance(old, 30, 0), Balance(old, 0, 0)) == (kept, await balance(ledger, old))

    async def test_short_windows_do_not_pile_up(self, clock: ManualClock) -> None:
        """Two days of 1,000 s windows leave no more than the counters of one."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, counters_max=90)
        for number in range(200):
            now_ms = clock.now_ms()
            counter = a_counter("team", a_window(now_ms, left_ms=1000))
            request = a_reserve(f"r{number}", Claim(counter, 1000, 1), reserved_at_ms=now_ms)
            await ledger.reserve(request)
            await ledger.settle(request.hold, Spent(1))
            await clock.advance(1_000_000)

        assert len(ledger._tallies._due) == len(ledger._tallies._by_key) <= 90


class TestTombstones:
    """Endings are remembered for a day, and at most so many of them."""

    async def test_an_ending_is_forgotten_after_a_day(self, clock: ManualClock) -> None:
        """A day after its end nobody can tell any more, and nothing is booked or held."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        request = a_reserve("r", CLAIM)
        await ledger.reserve(request)
        await ledger.settle(request.hold, Spent(7))
        await clock.advance(RETENTION_MS - 1)
        remembered = await ledger.settle(request.hold, Spent(8))
        await clock.advance(1)

        assert (Ending.REPEATED, Ending.FORGOTTEN) == (remembered, await ledger.settle(request.hold, Spent(8)))
        assert TooLate() == await ledger.reserve(request)
        assert Balance(TEAM, 7, 0) == await balance(ledger, TEAM)

    async def test_what_had_to_go_early_is_not_booked_twice(self, clock: ManualClock) -> None:
        """Holds as old as a dropped ending are too old to tell; younger ones are booked as ever."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, tombstones_max=2)
        requests = []
        for name in ("a", "b", "c", "d"):
            requests.append(a_reserve(name, CLAIM, reserved_at_ms=clock.now_ms()))
            await ledger.reserve(requests[-1])
            await clock.advance(10)
        for request in requests:
            await ledger.settle(request.hold, Spent(100))
        endings = [await ledger.settle(request.hold, Spent(100)) for request in requests]
        between = a_hold("between", (TEAM,), reserved_at_ms=requests[1].hold.reserved_at_ms + 1)

        assert [Ending.FORGOTTEN, Ending.FORGOTTEN, Ending.REPEATED, Ending.REPEATED] == endings
        assert TooLate() == await ledger.reserve(requests[0])
        assert AlreadyEnded(State.SETTLED) == await ledger.reserve(requests[3])
        assert Ending.UNKNOWN == await ledger.settle(between, Spent(5))
        assert Balance(TEAM, 405, 0) == await balance(ledger, TEAM)

    async def test_they_have_a_maximum(self, clock: ManualClock) -> None:
        """Endings fill no more than the maximum."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, tombstones_max=10)
        for number in range(100):
            await ledger.settle(a_hold(f"r{number}", (TEAM,), reserved_at_ms=clock.now_ms()), Spent(1))

        assert 10 == len(ledger._tombstones._by_name)

    async def test_early_releases_have_a_maximum(self, clock: ManualClock) -> None:
        """Signals of reservations that nobody knows fill no more than theirs."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        for number in range(EARLY_RELEASES_MAX + 10):
            await ledger.release(f"r{number}")

        assert EARLY_RELEASES_MAX == len(ledger._tombstones._early)

    async def test_early_releases_do_not_push_endings_out(self, clock: ManualClock) -> None:
        """However many releases of unknown reservations come, a late settle after an expiry is booked."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, tombstones_max=10)
        request = a_reserve("r", CLAIM)
        await ledger.reserve(request)
        await clock.advance(LEASE.lease_ms)
        await ledger.expire(1)
        for number in range(100):
            await ledger.release(f"r{number}")

        assert Ending.LATE == await ledger.settle(request.hold, Spent(100))

    async def test_early_releases_stand_for_a_minute(self, clock: ManualClock) -> None:
        """By then the reserve that one was to stop has come or never will, and the next one sweeps it out."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        await ledger.release("a")
        await ledger.release("b")
        await clock.advance(EARLY_RELEASE_MS)

        assert Ending.UNKNOWN == await ledger.release("a")
        assert [("a", None)] == list(ledger._tombstones._early)

    async def test_a_lifetime_counter_that_nothing_was_spent_on_is_forgotten(self, clock: ManualClock) -> None:
        """Requests that fail leave no counters behind, however many payers they name."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY, counters_max=10)
        for number in range(100):
            counter = Counter(Scope(ScopeKind.END_USER, (f"u{number}",)), WindowRule().at(clock.now_ms()))
            await ledger.reserve(a_reserve(f"r{number}", Claim(counter, None, 5)))
            await ledger.release(f"r{number}")

        assert () == await ledger.balances(10)

    async def test_a_late_settle_does_not_stand_longer(self, clock: ManualClock) -> None:
        """The tombstone of an expired reservation stands for a day from the expiry, settled or not."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        request = a_reserve("r", CLAIM)
        await ledger.reserve(request)
        await clock.advance(LEASE.lease_ms)
        await ledger.expire(1)
        await clock.advance(RETENTION_MS - 1)

        assert Ending.LATE == await ledger.settle(request.hold, Spent(100))

        await clock.advance(1)

        assert Ending.FORGOTTEN == await ledger.settle(request.hold, Spent(100))
        assert Balance(TEAM, 100, 0) == await balance(ledger, TEAM)


class TestLeases:
    """Renewals leave no trail."""

    async def test_renewals_do_not_pile_up(self, clock: ManualClock) -> None:
        """However often a long stream is renewed, the leases kept stay within their maximum; it expires once."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        request = a_reserve("r", CLAIM)
        await ledger.reserve(request)
        for number in range(3 * STALE_LEASES_MAX):
            await ledger.renew(request.hold, Lease(60_000, spent=Spent(number)))
            await clock.advance(1)

        assert STALE_LEASES_MAX + 2 >= len(ledger._lease_ends)

        await clock.advance(60_000)

        assert [3 * STALE_LEASES_MAX - 1] == [expired.spent.cost_nanousd for expired in await ledger.expire(10)]

    async def test_a_shorter_lease_counts(self, clock: ManualClock) -> None:
        """A renewal may also bring the end nearer."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        request = a_reserve("r", CLAIM, lease=Lease(60_000, Spent(1)))
        await ledger.reserve(request)
        await ledger.renew(request.hold, Lease(10, Spent(2)))
        await clock.advance(10)

        assert [2] == [expired.spent.cost_nanousd for expired in await ledger.expire(10)]


class TestAudit:
    """The memory store has no journal: what is held is compared with the open reservations."""

    async def test_finds_damage(self, clock: ManualClock) -> None:
        """A counter that holds more than its reservations, and a reservation without a lease, are told."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        await ledger.reserve(a_reserve("a", CLAIM))
        await ledger.reserve(a_reserve("b", CLAIM, Claim(a_counter("b"), None, 7)))
        right = await ledger.audit()
        (tally,) = ledger._tallies.take([TEAM], clock.now_ms())
        tally.held += 3
        ledger._lease_ends.clear()

        assert right.ok
        assert (2, 2, 0) == (right.counters_checked, right.reservations_open, right.entries_read)
        assert {Drift("held", TEAM.key, 2, 5), Drift("lease", "a", 0, 0), Drift("lease", "b", 0, 0)} == {
            *(await ledger.audit()).drifts
        }


class TestAnnouncements:
    """Announcements have a maximum."""

    async def test_the_oldest_goes(self, clock: ManualClock) -> None:
        """Beyond the maximum the oldest is forgotten, and may be announced again; the latest are remembered."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        for number in range(ANNOUNCED_MAX + 1):
            assert await ledger.announce(f"{number}", 60_000)

        assert not await ledger.announce("1", 60_000)
        assert not await ledger.announce(f"{ANNOUNCED_MAX}", 60_000)
        assert await ledger.announce("0", 60_000)
        assert await ledger.announce("1", 60_000)


class TestLists:
    """Whoever asks for long lists keeps nobody waiting."""

    async def test_others_have_their_turns(self, clock: ManualClock) -> None:
        """While many counters are listed and compared, a reserve is carried out."""
        ledger = MemoryLedger(clock.now_ms, SIGNING_KEY)
        counters = [a_counter(f"{number}") for number in range(3 * PIECE)]
        for counter in counters:
            await ledger.reserve(a_reserve(counter.key, Claim(counter, None, 1)))
        questions = (
            ledger.balances(10),
            ledger.standings([(counter, 1) for counter in counters]),
            ledger.reservations(10),
            ledger.audit(),
        )
        for number, question in enumerate(questions):
            asking = asyncio.create_task(question)
            await asyncio.sleep(0)
            await ledger.reserve(a_reserve(f"meanwhile {number}", CLAIM))
            assert not asking.done()
            await asking
        assert (await ledger.audit()).ok
