"""Any story of signals, told to every ledger and to a model that is too simple to be wrong.

Ledgers on Redis run their own scripts on real servers; only the time is the test's (tests/support/store_clock.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from extauthz.domain.budgets import Budget, Counter, Filter, FilterKind, Measure, Scope, ScopeKind, Spent
from extauthz.domain.reservation import Claim, Hold, Lease, State
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.ledger.base import Amendment, AmendmentKind, Refused, Reserve, Reserved, StaleWindow
from tests.support.driven_stores import Running, Servers, Store, Verb, in_memory, servers_on_a_loop
from tests.support.ledger import START_MS, a_hold
from tests.support.ledger_model import EXACT_MAX, KEPT_MS, WITHDRAWN_MS, Model, Step, Told
from tests.support.redis import REDIS_VERSIONS, RedisServer
from tests.support.redis_cluster import Cluster
from tests.support.redis_sentinel import Sentinels
from tests.support.stack import NANOUSD_PER_USD

# Lua writes numbers with 14 digits where it is not watched, and computes exactly up to 2^53.
FOURTEEN_DIGITS = 100_001 * NANOUSD_PER_USD
LARGEST = 8_999_999 * NANOUSD_PER_USD

# Of which id a verb tells: of one in these states, or of any, how many of them ago.
Which = tuple[tuple[State | None, ...], int]
OPEN, EXPIRED, UNKNOWN, ANY = (State.HELD,), (State.EXPIRED,), (None,), (None, *State)
WHICH = st.tuples(st.sampled_from([OPEN, OPEN, EXPIRED, UNKNOWN, ANY]), st.integers(1, 3))
TIMES = st.just(1) | st.integers(1, 3)
ATTEMPTS = st.sampled_from(["first", "second"])
SMALL = st.integers(0, 60)
LARGE = st.sampled_from([FOURTEEN_DIGITS, LARGEST]).flatmap(lambda amount: st.integers(amount - 60, amount + 60))
AMOUNTS = SMALL | SMALL | SMALL | SMALL | SMALL | LARGE
LIMITS = st.sampled_from([None, None, None, LARGEST + 300, LARGEST + 300, FOURTEEN_DIGITS + 300, 300, 0])
USED = st.builds(Spent, AMOUNTS, AMOUNTS, st.integers(0, 2))
LEASES = st.builds(Lease, st.integers(1_000, 8_000) | st.just(2 * KEPT_MS), USED)
SHORT, DAILY = WindowRule(Duration(10, Unit.SECOND)), WindowRule(Duration(1, Unit.DAY))
# Budgets of three teams, some beside each other on one scope; a model may well be called as a measure is. Two of them
# roll over.
BUDGETS = {
    "usd": ("lasting", Budget(0, WindowRule())),
    "tokens": ("lasting", Budget(0, WindowRule(), measure=Measure.TOKENS)),
    "short": ("short", Budget(40, SHORT, rollover=True)),
    "requests": (
        "short",
        Budget(1, SHORT, measure=Measure.REQUESTS, only=Filter(FilterKind.MODEL, "a|b/tokens"), rollover=True),
    ),
    "daily": ("daily", Budget(0, DAILY, only=Filter(FilterKind.PROVIDER, "tokens"))),
}
KINDS = st.sampled_from(list(BUDGETS))
# Counter, limit, amount, whole. One counter may come more than once, as where a payer has two budgets.
Asked = tuple[str, int | None, int, bool]
CLAIMS = st.lists(st.tuples(KINDS, LIMITS, AMOUNTS, st.booleans()), min_size=1, max_size=4)
RESET = st.tuples(st.just(AmendmentKind.RESET), st.none())
AMENDMENTS = (
    RESET
    | RESET
    | st.tuples(st.just(AmendmentKind.IMPORT), AMOUNTS)
    | st.tuples(st.just(AmendmentKind.GRANT), SMALL)
    | st.tuples(st.just(AmendmentKind.LIMIT), st.none() | st.sampled_from([0, 200, LARGEST + 300]))
)
# How far the clock jumps; None is to the end of the short window.
JUMPS_MS = (
    st.integers(0, 4_000)
    | st.integers(0, 12_000)
    | st.none()
    | st.integers(-5_000, -1)
    | st.sampled_from([WITHDRAWN_MS // 2, WITHDRAWN_MS - 1, WITHDRAWN_MS])
    | st.sampled_from([KEPT_MS // 8, KEPT_MS // 4, KEPT_MS - 1, KEPT_MS])
    | st.integers(1, 2 * KEPT_MS)
)


class LedgerStory(RuleBasedStateMachine):
    """Signals in any order and any number, while the clock jumps and windows roll."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.ledger = store.ledger
        self.model = Model()
        self.asked: dict[str, list[Reserve]] = defaultdict(list)
        self.asked_on: tuple[Counter, ...] = ()
        self.amendments: list[Amendment] = []
        self.seen: set[Counter] = set()

    def tell(
        self,
        name: str,
        verb: Callable[[], Verb],
        expect: Callable[[Told], Step],
        *,
        times: int = 1,
        attempt: str | None = None,
    ) -> None:
        """Carry out a verb so many times at once, and see each answered as the model says."""
        for answer in self.store.ask(*(verb() for _ in range(times))):
            self.hear(name, answer, expect, attempt)

    def hear(self, name: str, answer: object, expect: Callable[[Told], Step], attempt: str | None = None) -> None:
        """See one verb answered as the model says."""
        steps = [expect(told) for told in self.model.memories(name, attempt)]
        step = next((step for step in steps if self.same(step.answer, answer)), None)
        assert step is not None, f"{answer} instead of {steps[0].answer}"
        self.model.take(name, step)

    def same(self, expected: object, answer: object) -> bool:
        """Tell whether an answer is as expected: to the nano-USD, unless a counter is beyond doubles or dropped."""
        if expected == answer:
            return True
        if not isinstance(answer, Refused | Reserved | StaleWindow) or type(expected) is not type(answer):
            return False
        standings = [self.model.standing(counter, 0) for counter in self.asked_on]
        return isinstance(answer, StaleWindow) or any(
            standing.spent + standing.held >= EXACT_MAX or self.model.dropped(standing.counter)
            for standing in standings
        )

    def new_id(self) -> str:
        """Give an id that nobody has heard of, with a hold on the counters of now."""
        name, now_ms = f"r{len(self.model.told):02}", self.model.now_ms
        counters = tuple(counter_at(kind, now_ms) for kind in BUDGETS)
        self.seen.update(counters)
        self.model.told[name] = Told(a_hold(name, counters, reserved_at_ms=now_ms))
        self.model.until(KEPT_MS)  # it is too old to be settled then
        return name

    def id(self, which: Which) -> str:
        """Give one of the ids in those states, of any where there is none, and a new one at last."""
        states, ago = which
        names = [name for name, told in self.model.told.items() if told.state in states] or list(self.model.told)
        return names[-min(ago, len(names))] if names else self.new_id()

    def hold(self, name: str, number: int) -> Hold:
        """Give one of the holds of an id that may travel."""
        holds = [self.model.told[name].hold, *(request.hold for request in self.asked[name])]
        return holds[-min(number, len(holds) - 1)]

    def request(
        self, name: str, asked: Sequence[Asked], lease: Lease, *, attempt: str = "first", patience_ms: int | None = None
    ) -> Reserve:
        """Make a reserve on the windows of now."""
        now_ms = self.model.now_ms
        self.model.until(KEPT_MS)
        claims = tuple(
            Claim(counter_at(kind, now_ms), limit, amount, whole=whole) for kind, limit, amount, whole in asked
        )
        hold = a_hold(name, tuple(dict.fromkeys(claim.counter for claim in claims)), reserved_at_ms=now_ms)
        request = Reserve(hold, attempt, claims, lease, None if patience_ms is None else now_ms + patience_ms)
        self.asked[name].append(request)
        self.seen.update(hold.counters)
        return request

    def send(self, *requests: Reserve) -> None:
        """Let reserves arrive at the same time."""
        for request, answer in zip(
            requests, self.store.ask(*(self.ledger.reserve(request) for request in requests)), strict=True
        ):
            self.asked_on = request.hold.counters
            self.hear(request.hold.id, answer, partial(self.model.reserve, request), request.attempt)

    @initialize(amount=SMALL, lease=LEASES)
    def begin(self, amount: int, lease: Lease) -> None:
        """Hold money for some requests, so that there is something to end."""
        self.reserve(3, [(kind, None, amount, False) for kind in BUDGETS], lease, None)

    @rule(count=st.integers(1, 3), asked=CLAIMS, lease=LEASES, patience_ms=st.none() | st.integers(0, 5_000))
    def reserve(self, count: int, asked: Sequence[Asked], lease: Lease, patience_ms: int | None) -> None:
        """Reserve for so many new requests."""
        self.send(*(self.request(self.new_id(), asked, lease, patience_ms=patience_ms) for _ in range(count)))

    @rule(which=WHICH, asked=CLAIMS, lease=LEASES, attempt=ATTEMPTS)
    def reserve_again(self, which: Which, asked: Sequence[Asked], lease: Lease, attempt: str) -> None:
        """Reserve for a request whose Check is retried, perhaps in the next window."""
        self.send(self.request(self.id(which), asked, lease, attempt=attempt))

    @rule(which=WHICH, number=st.integers(0, 2), times=TIMES)
    def reserve_late(self, which: Which, number: int, times: int) -> None:
        """Let a reserve arrive that was sent at some time."""
        asked = self.asked[self.id(which)]
        if asked:
            self.send(*[asked[-min(number, len(asked) - 1)]] * times)

    @rule(which=WHICH, number=st.integers(0, 2), spent=USED, times=TIMES)
    def settle(self, which: Which, number: int, spent: Spent, times: int) -> None:
        """Settle by any of its holds, whether anybody waits for it or not."""
        name = self.id(which)
        hold = self.hold(name, number)
        self.tell(
            name,
            lambda: self.ledger.settle(hold, spent),
            partial(self.model.settle, hold, spent),
            times=times,
        )

    @rule(which=WHICH, attempt=st.none() | ATTEMPTS, times=TIMES)
    def release(self, which: Which, attempt: str | None, times: int) -> None:
        """Release for good, or what one attempt has, as its cancellation does."""
        name = self.id(which)
        expect = self.model.release if attempt is None else partial(self.model.withdraw, attempt)
        self.tell(name, lambda: self.ledger.release(name, attempt=attempt), expect, times=times, attempt=attempt)

    @rule(which=WHICH, lease=LEASES)
    def renew(self, which: Which, lease: Lease) -> None:
        """Renew, as a stream that lives does."""
        name = self.id(which)
        hold = self.hold(name, 0)
        self.tell(name, lambda: self.ledger.renew(hold, lease), partial(self.model.renew, lease))

    @rule(kinds=st.sets(KINDS, min_size=1), change=AMENDMENTS, again=st.booleans())
    def amend(self, kinds: set[str], change: tuple[AmendmentKind, int | None], *, again: bool) -> None:
        """Change counters by hand, or repeat all changes that were made, which changes nothing."""
        kind_of_change, amount = change
        counters = [counter_at(kind, self.model.now_ms) for kind in sorted(kinds)]
        new = [
            Amendment(f"{len(self.amendments)} on {counter.key}", kind_of_change, counter, amount, "somebody")
            for counter in counters
        ]
        told = [*self.amendments, *new] if again and self.model.latest_ms - START_MS < KEPT_MS else new
        self.amendments += new
        self.seen.update(counters)

        assert [self.model.amend(each) for each in told] == self.store.ask(*map(self.ledger.amend, told))

    @rule(
        jump_ms=JUMPS_MS,
        times=st.just(1) | st.integers(1, 6),
        counts=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    )
    def wait(self, jump_ms: int | None, times: int, counts: Sequence[int]) -> None:
        """Let the clock jump, and then some replicas expire some of what is due; and so on.

        It does not jump back to before something was forgotten.
        """
        for _ in range(times):
            now_ms = self.model.now_ms
            end_ms = SHORT.at(now_ms).end_ms or now_ms
            then_ms = end_ms if jump_ms is None else now_ms + jump_ms
            if any(then_ms < forgotten_ms <= now_ms for forgotten_ms in self.model.forgets_at_ms):
                return
            self.model.now_ms, self.model.latest_ms = then_ms, max(self.model.latest_ms, then_ms)
            self.store.tell_time(then_ms)

            assert [self.model.expire(each) for each in counts] == self.store.ask(*map(self.ledger.expire, counts))

    @invariant()
    def the_books_are_right(self) -> None:
        """On every counter, held is the sum of open reservations and spent the sum of what was booked."""
        limits = [(counter, 0) for counter in self.seen]
        open_count, standings = self.store.ask(self.ledger.open_count(), self.ledger.standings(limits))

        assert sum(told.state is State.HELD for told in self.model.told.values()) == open_count
        assert isinstance(standings, tuple)
        for standing in standings:
            assert standing.spent >= 0
            assert self.model.held(standing.counter) == standing.held
            if not self.model.dropped(standing.counter):
                assert self.model.standing(standing.counter, 0) == standing

    @invariant()
    def the_store_agrees_with_itself(self) -> None:
        """See that what is kept twice is the same twice."""
        self.store.audit(lambda counter: not self.model.dropped(counter))


def counter_at(kind: str, now_ms: int) -> Counter:
    """Give one of the counters as it is called at a time."""
    team, budget = BUDGETS[kind]
    return budget.counter(Scope(ScopeKind.TEAM, (team,)), budget.rule.at(now_ms))


# The servers of each store on Redis, and how many stories it is told.
STORIES_IN_MEMORY = 200
STORES: dict[str, tuple[Callable[[], AbstractAsyncContextManager[Running]], int]] = {
    **{version.name: (partial(RedisServer, version, appendonly=False), 60) for version in REDIS_VERSIONS},
    "Sentinel": (Sentinels, 10),
    "Cluster": (partial(Cluster, appendonly=False), 20),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Run the servers of the stores."""
    with servers_on_a_loop() as running:
        yield running


# To find the shortest story that fails takes hypothesis up to five minutes.
patient = pytest.mark.timeout(600)


@patient
def test_any_story_in_memory_goes_as_the_model_says() -> None:
    """Whatever happens in whatever order: answers and balances are as they must be."""
    run_stories(in_memory, STORIES_IN_MEMORY)


@patient
@pytest.mark.redis
@pytest.mark.parametrize("store", STORES)
def test_any_story_on_redis_goes_as_the_model_says(servers: Servers, store: str) -> None:
    """So they are there, and what stands in the store agrees with itself."""
    start, stories = STORES[store]
    run_stories(servers.start(start()), stories)


def run_stories(opened: Callable[[], AbstractContextManager[Store]], count: int) -> None:
    """Tell so many stories, each to an empty store."""

    class Story(LedgerStory):
        def __init__(self) -> None:
            self.opening = opened()
            super().__init__(self.opening.__enter__())

        def teardown(self) -> None:
            self.opening.__exit__(None, None, None)

    run_state_machine_as_test(
        Story, settings=settings(max_examples=count, stateful_step_count=40, deadline=None, print_blob=True)
    )
