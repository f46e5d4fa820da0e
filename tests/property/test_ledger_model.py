"""Any story of signals, told to the memory ledger and to a model that is too simple to be wrong."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from extauthz.domain.budgets import Counter
from extauthz.domain.reservation import TRANSITIONS, Claim, Hold, Lease, State, Verb
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.ledger.base import AlreadyEnded, Ending, Expired, Refused, Reserve, Reserved, ReserveResult
from extauthz.ledger.memory import MemoryLedger
from tests.support.ledger import SIGNING_KEY, ManualClock, a_counter, a_hold, balance

Answer = TypeVar("Answer")

NAMES = st.sampled_from(["a", "b", "c", "d"])
ATTEMPTS = st.sampled_from(["first", "second"])
COSTS = st.integers(0, 60)
LEASES = st.builds(Lease, st.integers(1_000, 8_000), COSTS)


@dataclass
class Told:
    """What the model knows of one id. `state` is None until it is reserved, and again when an attempt withdrew."""

    hold: Hold
    state: State | None = None
    attempt: str | None = None
    withdrawn: set[str | None] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    booked: int = 0
    lease: Lease = field(default_factory=lambda: Lease(0, 0))
    renewed_at_ms: int = 0


@dataclass
class Model:
    """A ledger that counts everything anew each time it is asked."""

    told: dict[str, Told] = field(default_factory=dict)

    def balance(self, counter: Counter) -> tuple[int, int]:
        """Give spent and held: the sum of what was booked, and of what open reservations hold."""
        on_it = [told for told in self.told.values() if counter in told.hold.counters]
        return sum(told.booked for told in on_it), sum(told.held.get(counter.key, 0) for told in on_it)

    def reserve(self, told: Told, request: Reserve, now_ms: int) -> type[ReserveResult] | AlreadyEnded:
        """Tell how a reserve must be answered."""
        if told.state not in {None, State.HELD}:
            return AlreadyEnded(told.state)
        if request.attempt in told.withdrawn:
            return AlreadyEnded(State.RELEASED)
        if told.state is None:
            held = {}
            for claim in request.claims:
                spent, taken = self.balance(claim.counter)
                limit = 10**9 if claim.limit_nanousd is None else claim.limit_nanousd
                available = limit - spent - taken
                if spent >= limit or available < (claim.amount_nanousd if claim.whole else 1):
                    return Refused
                held[claim.counter.key] = min(claim.amount_nanousd, available)
            told.hold, told.state, told.held = request.hold, State.HELD, held
            told.lease, told.renewed_at_ms = request.lease, now_ms
        told.attempt = request.attempt
        return Reserved

    def end(self, told: Told, verb: Verb, booked: int) -> Ending:
        """End a reservation as the table says."""
        before = told.state
        if before is not None and (before, verb) not in TRANSITIONS:
            return Ending.REPEATED
        told.state = TRANSITIONS[before or State.HELD, verb]
        told.held, told.booked = {}, booked
        return {None: Ending.UNKNOWN, State.HELD: Ending.FIRST}.get(before, Ending.LATE)

    def withdraw(self, told: Told, attempt: str) -> Ending:
        """End one attempt's claim on a reservation."""
        if told.state not in {None, State.HELD} or attempt in told.withdrawn:
            return Ending.REPEATED
        told.withdrawn.add(attempt)
        if told.state is None:
            return Ending.UNKNOWN
        if told.attempt != attempt:
            return Ending.REPEATED
        told.state, told.held = None, {}
        return Ending.FIRST

    def expire(self, count_max: int, now_ms: int) -> tuple[Expired, ...]:
        """End what is due, the oldest first."""
        due = [
            (told.renewed_at_ms + told.lease.lease_ms, name)
            for name, told in self.told.items()
            if told.state is State.HELD and told.renewed_at_ms + told.lease.lease_ms <= now_ms
        ]
        names = [name for _, name in sorted(due)[:count_max]]
        for name in names:
            self.end(self.told[name], Verb.EXPIRE, self.told[name].lease.cost_nanousd)
        return tuple(Expired(name, self.told[name].booked) for name in names)


class LedgerStory(RuleBasedStateMachine):
    """Signals in any order and any number, with time passing in between, over two counters and a window of 10 s."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.ledger = MemoryLedger(self.clock.now_ms, SIGNING_KEY)
        self.model = Model()
        self.window = WindowRule(Duration(10, Unit.SECOND))
        self.counters_seen: set[Counter] = set()

    def ask(self, verb: Coroutine[object, None, Answer]) -> Answer:
        """Carry out one verb, in a single step: that it never waits is what makes it atomic."""
        try:
            verb.send(None)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        raise AssertionError("the verb waited for something")

    def told(self, name: str) -> Told:
        """Give what the model knows of an id; one never heard of gets a hold on the counters of now."""
        now_ms = self.clock.now_ms()
        counters = (a_counter("limited"), a_counter("unlimited"), a_counter("windowed", self.window.at(now_ms)))
        self.counters_seen.update(counters)
        hold = a_hold(name, counters, reserved_at_ms=now_ms)
        return self.model.told.setdefault(name, Told(hold))

    @rule(name=NAMES, attempt=ATTEMPTS, amount=COSTS, whole=st.booleans(), lease=LEASES)
    def reserve(self, name: str, attempt: str, amount: int, *, whole: bool, lease: Lease) -> None:
        """Reserve, for the first time or again."""
        told = self.told(name)
        windowed = a_counter("windowed", self.window.at(self.clock.now_ms()))
        claims = (
            Claim(a_counter("limited"), 200, amount, whole=whole),
            Claim(a_counter("unlimited"), None, amount),
            Claim(windowed, 100, amount, whole=whole),
        )
        hold = a_hold(name, tuple(claim.counter for claim in claims), reserved_at_ms=self.clock.now_ms())
        request = Reserve(hold, attempt, claims, lease)
        expected = self.model.reserve(told, request, self.clock.now_ms())

        result = self.ask(self.ledger.reserve(request))

        assert expected == (result if isinstance(result, AlreadyEnded) else type(result))

    @rule(name=NAMES, cost=COSTS)
    def settle(self, name: str, cost: int) -> None:
        """Settle, whether anybody waits for it or not."""
        told = self.told(name)

        assert self.model.end(told, Verb.SETTLE, cost) == self.ask(self.ledger.settle(told.hold, cost))

    @rule(name=NAMES)
    def release(self, name: str) -> None:
        """Release for good."""
        told = self.told(name)

        assert self.model.end(told, Verb.RELEASE, told.booked) == self.ask(self.ledger.release(name))

    @rule(name=NAMES, attempt=ATTEMPTS)
    def release_attempt(self, name: str, attempt: str) -> None:
        """Release what one attempt has, as its cancellation does."""
        told = self.told(name)

        assert self.model.withdraw(told, attempt) == self.ask(self.ledger.release(name, attempt=attempt))

    @rule(name=NAMES, lease=LEASES)
    def renew(self, name: str, lease: Lease) -> None:
        """Renew, as a stream that lives does."""
        told = self.told(name)
        if told.state is State.HELD:
            told.lease, told.renewed_at_ms = lease, self.clock.now_ms()

        assert (told.state is State.HELD) == self.ask(self.ledger.renew(told.hold, lease))

    @rule(duration_ms=st.integers(0, 10_000), count_max=st.integers(0, 4))
    def expire(self, duration_ms: int, count_max: int) -> None:
        """Let time pass, and expire some of what is due then."""
        self.ask(self.clock.advance(duration_ms))

        assert self.model.expire(count_max, self.clock.now_ms()) == self.ask(self.ledger.expire(count_max))

    @invariant()
    def the_books_are_right(self) -> None:
        """On every counter, held is the sum of open reservations and spent the sum of what was booked."""
        for counter in self.counters_seen:
            told = self.ask(balance(self.ledger, counter))

            assert self.model.balance(counter) == (told.spent_nanousd, told.held_nanousd)

    @invariant()
    def open_reservations_are_counted(self) -> None:
        """Open is what is held and has not ended."""
        open_count = sum(told.state is State.HELD for told in self.model.told.values())

        assert open_count == self.ask(self.ledger.open_count())


TestLedgerStory = LedgerStory.TestCase
TestLedgerStory.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
