"""What every ledger does with what was overspent in the window before, where budgets roll over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from extauthz.domain.budgets import Before, Counter, Measure, Spent, Standing
from extauthz.domain.reservation import Claim
from extauthz.domain.windows import Window
from extauthz.ledger.base import Amendment, AmendmentKind, Ledger, Refused, Reserve, Reserved
from extauthz.ledger.preview import PreviewLedger
from tests.support.ledger import Clock, a_counter, a_hold, a_reserve

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 100
WINDOW_MS = 60_000

Ask = Callable[..., Reserve]


class Windows:
    """Counters of one budget that rolls over: of the window of now, and of those before."""

    def __init__(self, now_ms: int, measure: Measure = Measure.USD, limit: int = LIMIT) -> None:
        self._start_ms = now_ms - WINDOW_MS // 2
        self._measure = measure
        self._limit = limit

    @property
    def now(self) -> Counter:
        """The counter of now."""
        return self.ago(0)

    def ago(self, count: int) -> Counter:
        """Give the counter of so many windows ago."""
        return replace(self._plain(count), before=Before(self._plain(count + 1), self._limit))

    def _plain(self, count: int) -> Counter:
        start_ms = self._start_ms - count * WINDOW_MS
        return a_counter(window=Window("1m", start_ms, start_ms + WINDOW_MS), measure=self._measure)


@pytest.fixture
def windows(clock: Clock) -> Windows:
    """Give the counters of a budget in USD."""
    return Windows(clock.now_ms())


@pytest.fixture
def ask(clock: Clock) -> Ask:
    """Give a maker of reserves whose holds are as old as the store's present."""
    return lambda name, *claims: a_reserve(name, *claims, reserved_at_ms=clock.now_ms())


async def spend(ledger: Ledger, counter: Counter, amount: int, *, name: str = "spent") -> None:
    """Book an amount, as the end of a request does that was reserved there."""
    hold = a_hold(f"{name} on {counter.key}", (counter,), reserved_at_ms=ledger.now_ms())
    await ledger.settle(hold, Spent(amount, amount, amount))


async def change(ledger: Ledger, kind: AmendmentKind, counter: Counter, amount: int | None = None) -> None:
    """Change a counter by hand."""
    assert await ledger.amend(Amendment(f"{kind} {amount} on {counter.key}", kind, counter, amount, "ops"))


async def spent(ledger: Ledger, counter: Counter) -> int:
    """Tell what is spent on a counter, with what it has still to take over."""
    (standing,) = await ledger.standings([(counter, LIMIT)])
    return standing.spent


async def booked(ledger: Ledger, counter: Counter) -> int:
    """Tell what is booked on a counter, whatever it has still to take over."""
    return await spent(ledger, replace(counter, before=None))


class TestCarried:
    """What was spent beyond the limit of one window is spent in the next one."""

    async def test_once(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """It counts before anybody asked, is booked by the first who asks, and by nobody again."""
        await spend(ledger, windows.ago(1), 130)

        assert (30, 0) == (await spent(ledger, windows.now), await booked(ledger, windows.now))
        assert Reserved(60) == await ledger.reserve(ask("first", Claim(windows.now, LIMIT, 10)))
        assert (30, 30) == (await spent(ledger, windows.now), await booked(ledger, windows.now))
        assert Reserved(50) == await ledger.reserve(ask("second", Claim(windows.now, LIMIT, 10)))
        assert (30, 30) == (await spent(ledger, windows.now), await booked(ledger, windows.now))
        assert (await ledger.audit()).ok

    async def test_a_check_that_is_retried_in_the_next_window(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """It has its reservation, and is told what is left when all is taken over; itself it takes nothing over."""
        await ledger.reserve(ask("r", Claim(a_counter("of all windows"), None, 10)))
        await spend(ledger, windows.ago(1), 130)
        again = replace(ask("r", Claim(windows.now, LIMIT, 10)), attempt="second")

        assert Reserved(70) == await ledger.reserve(again)
        assert (30, 0) == (await spent(ledger, windows.now), await booked(ledger, windows.now))

    async def test_it_exhausts(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A window that begins beyond its limit refuses, and takes it over all the same."""
        await spend(ledger, windows.ago(1), 250)
        refused = Refused(Standing(windows.now, LIMIT, 150, 0))

        assert refused == await ledger.reserve(ask("first", Claim(windows.now, LIMIT, 10)))
        assert 150 == await booked(ledger, windows.now)
        assert refused == await ledger.reserve(ask("second", Claim(windows.now, LIMIT, 10)))
        assert 150 == await booked(ledger, windows.now)

    @pytest.mark.parametrize("amount", [1, 99, 100])
    async def test_what_is_left_is_not_carried(self, ledger: Ledger, windows: Windows, ask: Ask, amount: int) -> None:
        """A window within its limit leaves the next one at 0, and gives it no more than its limit."""
        await spend(ledger, windows.ago(1), amount)

        assert Reserved(90) == await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))
        assert 0 == await spent(ledger, windows.now)

    async def test_what_is_held_is_not_spent(self, ledger: Ledger, windows: Windows, ask: Ask, clock: Clock) -> None:
        """Only what is booked is carried: what is held may still be released."""
        claim = Claim(a_counter(window=Window("1m", clock.now_ms() - 1000, clock.now_ms() + 60_000)), None, 250)
        await ledger.reserve(ask("held", claim))
        following = Window("1m", clock.now_ms() + 60_000, clock.now_ms() + 120_000)

        assert 0 == await spent(ledger, a_counter(window=following, before=Before(claim.counter, LIMIT)))

    @pytest.mark.parametrize("measure", [*Measure])
    async def test_in_every_measure(self, ledger: Ledger, clock: Clock, ask: Ask, measure: Measure) -> None:
        """Tokens and requests are carried as money is."""
        windows = Windows(clock.now_ms(), measure)
        await spend(ledger, windows.ago(1), 130)

        assert 30 == await spent(ledger, windows.now)
        await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))
        assert 30 == await booked(ledger, windows.now)
        assert (await ledger.audit()).ok

    async def test_where_nothing_binds(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A budget that only counts for this request counts what is carried as well."""
        await spend(ledger, windows.ago(1), 130)

        assert Reserved(None) == await ledger.reserve(ask("r", Claim(windows.now, None, 10)))
        assert 30 == await booked(ledger, windows.now)

    async def test_several_claims_on_one_counter(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """Each is judged by what was carried."""
        await spend(ledger, windows.ago(1), 130)
        claims = Claim(windows.now, LIMIT, 10), Claim(windows.now, LIMIT, 75, whole=True)

        assert Refused(Standing(windows.now, LIMIT, 30, 0)) == await ledger.reserve(ask("r", *claims))

    async def test_beside_others(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A budget that does not roll over begins at 0."""
        plain = a_counter("support", windows.now.window)
        await spend(ledger, a_counter("support", windows.ago(1).window), 130)
        await spend(ledger, windows.ago(1), 130)

        await ledger.reserve(ask("r", Claim(plain, LIMIT, 10), Claim(windows.now, LIMIT, 10)))
        assert (0, 30) == (await spent(ledger, plain), await spent(ledger, windows.now))

    async def test_a_preview(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """It answers by what is still to be carried, and books nothing."""
        await spend(ledger, windows.ago(1), 250)
        request = ask("r", Claim(windows.now, LIMIT, 10))

        previewed = await PreviewLedger(ledger).reserve(request)
        assert 0 == await booked(ledger, windows.now)
        assert previewed == await ledger.reserve(request)

    async def test_through_windows(self, ledger: Ledger, windows: Windows) -> None:
        """What was carried is spent, so that what is beyond a limit of that is carried on."""
        await spend(ledger, windows.ago(2), 350)
        await change(ledger, AmendmentKind.IMPORT, windows.ago(1), 10)  # whatever asks takes over

        assert (260, 160) == (await booked(ledger, windows.ago(1)), await spent(ledger, windows.now))


class TestLimits:
    """The limit that it goes by is the one of the window before."""

    async def test_granted(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """What was granted to that window was not overspent."""
        await change(ledger, AmendmentKind.GRANT, windows.ago(1), 20)
        await spend(ledger, windows.ago(1), 130)

        assert 10 == await spent(ledger, windows.now)
        assert Reserved(80) == await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))

    async def test_set_by_hand(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A limit that stands in for the configured one does so here."""
        await change(ledger, AmendmentKind.LIMIT, windows.ago(1), 50)
        await spend(ledger, windows.ago(1), 70)

        assert 20 == await spent(ledger, windows.now)
        assert Reserved(20) == await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))

    async def test_set_by_hand_in_this_window(self, ledger: Ledger, windows: Windows) -> None:
        """Another limit from now on makes nothing overspent in hindsight."""
        await spend(ledger, windows.ago(1), 130)
        await change(ledger, AmendmentKind.LIMIT, windows.now, 5)

        assert 30 == await spent(ledger, windows.now)

    async def test_a_limit_of_zero(self, ledger: Ledger, clock: Clock) -> None:
        """Whatever was spent is beyond it."""
        windows = Windows(clock.now_ms(), limit=0)
        await spend(ledger, windows.ago(1), 7)

        assert 7 == await spent(ledger, windows.now)


class TestAfterwards:
    """What happens to either window after one took over from the other."""

    async def carried(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """Overspend by 30, and carry it."""
        await spend(ledger, windows.ago(1), 130)
        await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))
        assert 30 == await booked(ledger, windows.now)

    async def test_booked_late(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """What an answer from the window before costs is overspent there, and so it is here, at once."""
        await self.carried(ledger, windows, ask)
        await spend(ledger, windows.ago(1), 5, name="late")

        assert (135, 35) == (await booked(ledger, windows.ago(1)), await booked(ledger, windows.now))
        assert (await ledger.audit()).ok

    async def test_booked_late_within_the_limit(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """Only what is beyond the limit is carried, also of what comes late."""
        await spend(ledger, windows.ago(1), 90)
        await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))
        await spend(ledger, windows.ago(1), 15, name="late")

        assert (105, 5) == (await booked(ledger, windows.ago(1)), await booked(ledger, windows.now))

    async def test_booked_late_where_nothing_was(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A window that had nothing to carry yet is looked at again."""
        await ledger.reserve(ask("first", Claim(windows.now, LIMIT, 10)))
        await spend(ledger, windows.ago(1), 130)

        assert 30 == await spent(ledger, windows.now)
        assert Reserved(50) == await ledger.reserve(ask("second", Claim(windows.now, LIMIT, 10)))
        assert 30 == await booked(ledger, windows.now)

    async def test_put_right(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """What is taken off the window before is taken off here, too."""
        await self.carried(ledger, windows, ask)
        await change(ledger, AmendmentKind.RESET, a_counter(window=windows.ago(1).window))

        assert (0, 0) == (await booked(ledger, windows.ago(1)), await booked(ledger, windows.now))
        assert (await ledger.audit()).ok

    async def test_through_windows(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A change goes on through every window that took over from another, as far as it matters there."""
        await spend(ledger, windows.ago(3), 350)
        await change(ledger, AmendmentKind.IMPORT, windows.ago(2), 0)
        await change(ledger, AmendmentKind.IMPORT, windows.ago(1), 0)
        await ledger.reserve(ask("r", Claim(windows.now, LIMIT, 10)))
        assert [250, 150, 50] == [await booked(ledger, windows.ago(count)) for count in (2, 1, 0)]

        await spend(ledger, windows.ago(3), 7, name="late")
        assert [257, 157, 57] == [await booked(ledger, windows.ago(count)) for count in (2, 1, 0)]
        assert (await ledger.audit()).ok

    async def test_reset(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """A reset is of what was carried, too."""
        await self.carried(ledger, windows, ask)
        await change(ledger, AmendmentKind.RESET, windows.now)

        assert 0 == await spent(ledger, windows.now)
        assert Reserved(80) == await ledger.reserve(ask("after", Claim(windows.now, LIMIT, 10)))

    async def test_reset_before_anybody_asked(self, ledger: Ledger, windows: Windows, ask: Ask) -> None:
        """It is of what is still to be carried, and that does not come back."""
        await spend(ledger, windows.ago(1), 130)
        await change(ledger, AmendmentKind.RESET, windows.now)

        assert 0 == await spent(ledger, windows.now)
        assert Reserved(90) == await ledger.reserve(ask("after", Claim(windows.now, LIMIT, 10)))
        assert (await ledger.audit()).ok
