"""A preview answers what the ledger would, on every store, and changes nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

import pytest

from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, ScopeKind, Spent, Standing
from extauthz.domain.reservation import Claim, Lease
from extauthz.domain.windows import LIFETIME, Window
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import (
    Amendment,
    AmendmentKind,
    Balance,
    Ledger,
    Promise,
    Refused,
    Reserve,
    Reserved,
    ReserveResult,
    StaleWindow,
    TooLate,
)
from extauthz.ledger.preview import PreviewChangesNothingError, PreviewLedger
from tests.support.ledger import LEASE, Clock, a_counter, a_reserve

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUESTS = 80
LONG = Lease(600_000, NOTHING_SPENT)
TEAM, OTHER_TEAM = a_counter("research"), a_counter("support")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a ledger tells of its books."""

    balances: tuple[Balance, ...]
    open_count: int


async def kept(ledger: Ledger) -> Kept:
    """Look at the books."""
    return Kept(await ledger.balances(1000), await ledger.open_count())


class Story:
    """Requests and changes by hand, as a seed has them, on a few counters of a few payers."""

    def __init__(self, seed: int, now_ms: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = now_ms
        self.numbers = count()
        day = Window("1d", now_ms - 40_000_000, now_ms + 46_400_000)
        over = Window("1s", now_ms - 2000, now_ms - 1000)
        life = Window(LIFETIME, 0, None)
        self.organizations = [Scope(ScopeKind.ORGANIZATION, (name,)) for name in ("acme", "apex", "aero")]
        users = [Scope(ScopeKind.USER, (name,)) for name in ("ana", "bo")]
        self.counters = [Counter(scope, window) for scope in users for window in (life, day)]
        self.stale = Counter(users[0], over)
        self.windows = (life, day)

    def request(self) -> Reserve:
        """Ask for some money of one organization and of some of its users, twice of one counter at times."""
        organization = Counter(self.chance.choice(self.organizations), self.chance.choice(self.windows))
        counters = [organization, *self.chance.choices(self.counters, k=self.chance.randrange(4))]
        if self.chance.random() < 0.05:
            counters.append(self.stale)
        claims = tuple(self.claim(counter) for counter in counters)
        name = f"r{next(self.numbers)}"
        return a_reserve(name, *claims, reserved_at_ms=self.now_ms, lease=LONG)

    def claim(self, counter: Counter) -> Claim:
        """Ask one counter."""
        return Claim(
            counter,
            limit=self.chance.choice([None, None, 0, 150, 300, 300, 600, 600]),
            amount=self.chance.choice([0, 1, 20, 70, 150]),
            whole=self.chance.random() < 0.3,
        )

    def amendment(self) -> Amendment:
        """Change something by hand."""
        kind = self.chance.choice([*AmendmentKind])
        amount = None if kind is AmendmentKind.RESET else self.chance.randrange(100)
        counter = self.chance.choice(self.counters)
        return Amendment(f"a{next(self.numbers)}", kind, counter, amount, "ops")


def same(answer: ReserveResult, expected: ReserveResult) -> bool:
    """Tell whether two answers are alike; of a stale window, some moments apart."""
    if isinstance(answer, StaleWindow) and isinstance(expected, StaleWindow):
        return abs(answer.now_ms - expected.now_ms) < 60_000
    return answer == expected


class TestSameAnswer:
    """The preview of a request is what the ledger then answers."""

    @pytest.mark.parametrize("seed", range(4))
    async def test_any_books(self, ledger: Ledger, clock: Clock, seed: int) -> None:
        """Whatever was spent, held, granted and amended, each request is answered as its preview was."""
        story, preview = Story(seed, clock.now_ms()), PreviewLedger(ledger)
        kinds: set[type[ReserveResult]] = set()
        for _ in range(REQUESTS):
            request = story.request()
            before = await kept(ledger)
            previewed = await preview.reserve(request)

            assert before == await kept(ledger)

            answer = await ledger.reserve(request)
            kinds.add(type(answer))

            assert same(previewed, answer), f"{request}: previewed {previewed}, answered {answer}"

            if isinstance(answer, Reserved) and story.chance.random() < 0.7:
                await ledger.settle(request.hold, Spent(story.chance.randrange(60)))
            if story.chance.random() < 0.2:
                await ledger.amend(story.amendment())
        assert {Reserved, Refused} <= kinds

    async def test_too_late(self, ledger: Ledger, clock: Clock) -> None:
        """A request whose time is over is previewed so, whatever else is wrong with it."""
        request = a_reserve(
            "r", Claim(TEAM, 0, 1), reserved_at_ms=clock.now_ms(), not_after_ms=clock.now_ms() - 1000, lease=LEASE
        )

        assert TooLate() == await PreviewLedger(ledger).reserve(request) == await ledger.reserve(request)

    async def test_a_window_that_is_over(self, ledger: Ledger, clock: Clock) -> None:
        """Claims on another time's window are told the store's time."""
        now_ms = clock.now_ms()
        counter = a_counter(window=Window("1s", now_ms - 5000, now_ms - 4000))
        request = a_reserve("r", Claim(counter, 100, 1), reserved_at_ms=now_ms)
        preview = PreviewLedger(ledger)

        result = await preview.reserve(request)

        assert isinstance(result, StaleWindow)
        assert abs(result.now_ms - now_ms) < 5000
        assert isinstance(await ledger.reserve(request), StaleWindow)


class TestExplanation:
    """A preview remembers what it was asked, and what it saw."""

    async def test_seen(self, ledger: Ledger, clock: Clock) -> None:
        """Each claim's counter as it stood, in their order: against its limit, or as a balance where it has none."""
        earlier = a_reserve("earlier", Claim(TEAM, None, 30), Claim(OTHER_TEAM, None, 7), reserved_at_ms=clock.now_ms())
        settled = a_reserve("settled", Claim(TEAM, None, 1), reserved_at_ms=clock.now_ms())
        for request in (earlier, settled):
            await ledger.reserve(request)
        await ledger.settle(settled.hold, Spent(5))
        await ledger.amend(Amendment("a", AmendmentKind.GRANT, TEAM, 100, "ops"))
        claims = Claim(TEAM, 50, 20), Claim(OTHER_TEAM, None, 20), Claim(TEAM, 60, 20)
        request = a_reserve("r", *claims, reserved_at_ms=clock.now_ms())
        preview = PreviewLedger(ledger)

        assert (None, ()) == (preview.asked, preview.seen)
        assert Reserved(95) == await preview.reserve(request)
        assert request == preview.asked
        assert (Standing(TEAM, 150, 5, 30), Balance(OTHER_TEAM, 0, 7), Standing(TEAM, 160, 5, 30)) == preview.seen

    async def test_without_claims(self, ledger: Ledger, clock: Clock) -> None:
        """A request that nothing is counted for passes, and nothing was seen."""
        preview = PreviewLedger(ledger)

        assert Reserved(None) == await preview.reserve(a_reserve("r", reserved_at_ms=clock.now_ms()))
        assert () == preview.seen


class TestChangesNothing:
    """What only looks goes through, what would change something does not."""

    async def test_questions(self, ledger: Ledger, clock: Clock) -> None:
        """Questions are answered as by the ledger."""
        await ledger.reserve(a_reserve("r", Claim(TEAM, 100, 20), reserved_at_ms=clock.now_ms(), lease=LONG))
        preview = PreviewLedger(ledger)

        assert await ledger.standings([(TEAM, 9)]) == await preview.standings([(TEAM, 9)], payers=[TEAM.scope])
        assert await kept(ledger) == await kept(preview)
        assert await ledger.reservations(9) == await preview.reservations(9)
        assert await ledger.audit() == await preview.audit()
        assert (ledger.up(), ledger.heard_ms(), ledger.signing_key()) == (
            preview.up(),
            preview.heard_ms(),
            preview.signing_key(),
        )
        assert abs(ledger.now_ms() - preview.now_ms()) < 5000
        await preview.close()
        assert ledger.up()

    async def test_verbs(self, ledger: Ledger, clock: Clock) -> None:
        """Verbs raise by name, and the books stay as they are, also for a reservation that is open."""
        request = a_reserve("r", Claim(TEAM, 100, 20), reserved_at_ms=clock.now_ms(), lease=LONG)
        await ledger.reserve(request)
        preview = PreviewLedger(ledger)
        before = await kept(ledger)
        verbs: Sequence[Callable[[], Awaitable[object]]] = (
            lambda: preview.settle(request.hold, Spent(5)),
            lambda: preview.release("r"),
            lambda: preview.renew(request.hold, LONG),
            lambda: preview.promise(Promise("a name", "a hold")),
            lambda: preview.forget("a name"),
            lambda: preview.expire(10),
            lambda: preview.amend(Amendment("a", AmendmentKind.RESET, TEAM, None, "ops")),
            lambda: preview.announce("something", 1000),
        )
        for verb in verbs:
            with pytest.raises(PreviewChangesNothingError, match="it only looks at them"):
                await verb()

        assert before == await kept(ledger)

    async def test_a_store_that_is_away(self, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the books there is no answer, as without a preview."""

        async def away(*_: object, **__: object) -> tuple[Standing, ...]:
            raise StoreUnavailableError

        monkeypatch.setattr(ledger, "standings", away)
        with pytest.raises(StoreUnavailableError):
            await PreviewLedger(ledger).reserve(a_reserve("r", Claim(TEAM, 1, 1), reserved_at_ms=clock.now_ms()))
