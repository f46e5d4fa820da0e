"""A ledger that is too simple to be wrong: what every store must answer, and what it may have forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from extauthz.domain.budgets import NOTHING_SPENT, Counter, Measure, Scope, Spent, Standing
from extauthz.domain.reservation import Claim, Hold, Lease, State
from extauthz.ledger.base import (
    TOMBSTONE_SECONDS,
    AlreadyEnded,
    Amendment,
    AmendmentKind,
    Ending,
    Expired,
    Refused,
    Reserve,
    Reserved,
    StaleWindow,
    TooLate,
)
from tests.support.ledger import START_MS

# How long a store must remember an ending, and a release that came for nothing.
KEPT_MS = TOMBSTONE_SECONDS * 1000
WITHDRAWN_MS = 60_000

# Beyond this, Lua computes to the nano-USD no more.
EXACT_MAX = 2**53


@dataclass(frozen=True)
class Told:
    """What the model knows of one id. `state` is None until it is reserved, and again when an attempt withdrew."""

    hold: Hold
    state: State | None = None
    kept_until_ms: int = 0
    attempt: str = ""
    withdrawn: Mapping[str, int] = field(default_factory=dict)  # attempt → until when that must be remembered
    held: Mapping[Counter, int] = field(default_factory=dict)
    lease_end_ms: int = 0
    expiry: Spent = NOTHING_SPENT

    @property
    def ended(self) -> State | None:
        """How it ended, None when it did not."""
        return None if self.state is State.HELD else self.state


@dataclass(frozen=True)
class Step:
    """What a verb is answered, what is known of its id then, and what it books, of which some was booked before.

    `carries` are counters that take over what was overspent in the windows before.
    """

    answer: object
    told: Told
    booked: Spent = NOTHING_SPENT
    before: Spent = NOTHING_SPENT
    counters: tuple[Counter, ...] = ()
    carries: tuple[Counter, ...] = ()


@dataclass
class Model:
    """A ledger that counts what is held anew each time it is asked."""

    now_ms: int = START_MS
    latest_ms: int = START_MS
    told: dict[str, Told] = field(default_factory=dict)
    spent: defaultdict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    grants: defaultdict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    limits: dict[tuple[Scope, str], int] = field(default_factory=dict)
    # Whose overspend the next window took over: that window, and the limit that it went by.
    carried: dict[Counter, tuple[Counter, int]] = field(default_factory=dict)
    uncertain: set[Counter] = field(default_factory=set)
    amended: set[str] = field(default_factory=set)
    forgets_at_ms: set[int] = field(default_factory=set)

    def held(self, counter: Counter) -> int:
        """Sum up what open reservations hold."""
        return sum(told.held.get(counter, 0) for told in self.told.values())

    def standing(self, counter: Counter, configured: int | None) -> Standing:
        """Tell how a counter stands against a limit, or that which stands in for it, and what was granted on top."""
        limit = self.limits.get((counter.scope, counter.label), configured or 0) + self.grants[counter]
        to_carry = self.to_carry(counter)
        carried = 0 if to_carry is None else to_carry[1]
        return Standing(counter, limit, self.spent[counter] + carried, self.held(counter))

    def to_carry(self, counter: Counter) -> tuple[int, int] | None:
        """Tell by which limit a counter has something to take over from the window before, and how much."""
        before = counter.before
        if before is None or before.counter in self.carried or not self.spent[before.counter]:
            return None
        limit = self.limits.get((counter.scope, counter.label), before.limit) + self.grants[before.counter]
        return limit, max(0, self.spent[before.counter] - limit)

    def carry_over(self, counters: Iterable[Counter]) -> None:
        """Let counters take over what is overspent in the windows before."""
        for counter in counters:
            to_carry = self.to_carry(counter)
            if counter.before is not None and to_carry is not None:
                limit, amount = to_carry
                if self.dropped(counter):
                    self.uncertain.add(counter)
                self.carried[counter.before.counter] = counter, limit
                self.book(counter, amount)

    def book(self, counter: Counter, amount: int) -> None:
        """Add to what is spent, there and in the windows that took over from it; nothing is below 0."""
        before = self.spent[counter]
        self.spent[counter] = max(0, before + amount)
        end_ms = counter.window.end_ms
        if counter in self.carried and end_ms is not None and self.now_ms >= end_ms:
            into, limit = self.carried[counter]
            change = max(0, self.spent[counter] - limit) - max(0, before - limit)
            if change:
                if self.dropped(counter) or max(before, self.spent[counter]) >= EXACT_MAX:
                    self.uncertain.add(into)
                self.book(into, change)

    def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand, once."""
        if amendment.id in self.amended:
            return False
        self.amended.add(amendment.id)
        counter, amount = amendment.counter, amendment.amount
        self.carry_over((counter,))
        match amendment.kind:
            case AmendmentKind.RESET:
                self.book(counter, -self.spent[counter])
            case AmendmentKind.IMPORT:
                self.book(counter, amount or 0)
            case AmendmentKind.GRANT:
                self.grants[counter] += amount or 0
            case AmendmentKind.LIMIT if amount is None:
                self.limits.pop((counter.scope, counter.label), None)
            case AmendmentKind.LIMIT:
                self.limits[counter.scope, counter.label] = amount
        return True

    def reserve(self, request: Reserve, told: Told) -> Step:
        """Hold all claims' amounts or nothing."""
        limited = [
            (claim, self.standing(claim.counter, claim.limit)) for claim in request.claims if claim.limit is not None
        ]
        hold, lease = request.hold, request.lease
        if told.ended or request.attempt in told.withdrawn:
            return Step(AlreadyEnded(told.ended or State.RELEASED), told)
        if told.state is State.HELD:
            return Step(Reserved(least_in_usd(limited, {})), replace(told, attempt=request.attempt))
        too_late = request.not_after_ms is not None and self.now_ms > request.not_after_ms
        if too_late or self.now_ms - hold.reserved_at_ms >= KEPT_MS:
            return Step(TooLate(), told)
        if not all(claim.counter.window.contains(self.now_ms) for claim in request.claims):
            return Step(StaleWindow(self.now_ms), told)
        refusing = [
            standing
            for claim, standing in limited
            if standing.exhausted or standing.available < (claim.amount if claim.whole else 1)
        ]
        if refusing:
            return Step(Refused(binding(refusing)), told, carries=hold.counters)
        held = {counter: self.granted(counter, request.claims) for counter in hold.counters}
        after = Told(hold, State.HELD, 0, request.attempt, told.withdrawn, held)
        return Step(Reserved(least_in_usd(limited, held)), self.leased(after, lease), carries=hold.counters)

    def granted(self, counter: Counter, claims: Iterable[Claim]) -> int:
        """Tell what claims that pass hold on a counter: partial ones the least of what they get, whole ones all."""
        on_it = [(claim, self.standing(counter, claim.limit)) for claim in claims if claim.counter == counter]
        parts = [
            claim.amount if claim.limit is None else min(claim.amount, standing.available)
            for claim, standing in on_it
            if not claim.whole
        ]
        return max(min(parts, default=0), *(claim.amount for claim, _ in on_it if claim.whole), 0)

    def settle(self, hold: Hold, spent: Spent, told: Told) -> Step:
        """Book what was used where it was reserved, once."""
        settled = self.over(told, State.SETTLED)
        match told.state:
            case State.HELD:
                return Step(Ending.FIRST, settled, spent, counters=told.hold.counters)
            case State.EXPIRED:
                corrected = replace(told, state=State.SETTLED)
                return Step(Ending.LATE, corrected, spent, told.expiry, told.hold.counters)
            case None if self.now_ms - hold.reserved_at_ms >= KEPT_MS:
                return Step(Ending.FORGOTTEN, told)
            case None:
                return Step(Ending.UNKNOWN, settled, spent, counters=hold.counters)
            case _:
                return Step(Ending.REPEATED, told)

    def release(self, told: Told) -> Step:
        """End it for good, be it before it began."""
        match told.state:
            case State.HELD:
                return Step(Ending.FIRST, self.over(told, State.RELEASED))
            case None:
                return Step(Ending.UNKNOWN, self.over(told, State.RELEASED, WITHDRAWN_MS))
            case _:
                return Step(Ending.REPEATED, told)

    def withdraw(self, attempt: str, told: Told) -> Step:
        """End one attempt's claim on it."""
        without = replace(told, withdrawn={**told.withdrawn, attempt: self.until(WITHDRAWN_MS)})
        if told.ended or attempt in told.withdrawn:
            return Step(Ending.REPEATED, told)
        if told.state is None:
            return Step(Ending.UNKNOWN, without)
        if told.attempt != attempt:
            return Step(Ending.REPEATED, without)
        return Step(Ending.FIRST, replace(without, state=None, held={}))

    def renew(self, lease: Lease, told: Told) -> Step:
        """Start its lease anew."""
        return Step(True, self.leased(told, lease)) if told.state is State.HELD else Step(False, told)

    def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End what is due, the oldest first."""
        due = sorted((told.lease_end_ms, name) for name, told in self.told.items() if told.state is State.HELD)
        names = [name for end_ms, name in due if end_ms <= self.now_ms][:count_max]
        for name in names:
            told = self.told[name]
            self.take(name, Step(None, self.over(told, State.EXPIRED), told.expiry, counters=told.hold.counters))
        return tuple(Expired(name, booked(self.told[name])) for name in names)

    def leased(self, told: Told, lease: Lease) -> Told:
        """Start a lease."""
        return replace(told, lease_end_ms=self.now_ms + lease.lease_ms, expiry=lease.spent)

    def over(self, told: Told, state: State, kept_ms: int = KEPT_MS) -> Told:
        """End a reservation."""
        return replace(told, state=state, held={}, kept_until_ms=self.until(kept_ms))

    def until(self, kept_ms: int) -> int:
        """Tell when something that is kept for so long may be forgotten."""
        self.forgets_at_ms.add(self.now_ms + kept_ms)
        return self.now_ms + kept_ms

    def take(self, name: str, step: Step) -> None:
        """Let it be so. A correction takes nothing below 0, where a reset took it before."""
        self.told[name] = step.told
        self.carry_over(step.carries)
        for counter in step.counters:
            self.book(counter, step.booked.of(counter.measure) - step.before.of(counter.measure))

    def memories(self, name: str, attempt: str | None = None) -> Iterator[Told]:
        """Give what a store may know of an id: all of it, or all but what it need not remember any more."""
        told = self.told[name]
        aged = told.ended is not None and told.kept_until_ms <= self.latest_ms
        withdrawn = {
            each: until_ms for each, until_ms in told.withdrawn.items() if each != attempt or until_ms > self.latest_ms
        }
        for state in (told.state, None) if aged else (told.state,):
            yield replace(told, state=state)
            yield replace(told, state=state, withdrawn=withdrawn)

    def dropped(self, counter: Counter) -> bool:
        """Tell whether a store need not know any more what was spent on a counter, or cannot tell to the nano-USD."""
        end_ms, before = counter.window.end_ms, counter.before
        inexact = before is not None and self.spent[before.counter] + self.spent[counter] >= EXACT_MAX
        return inexact or counter in self.uncertain or (end_ms is not None and end_ms + KEPT_MS <= self.latest_ms)


def binding(refusing: list[Standing]) -> Standing:
    """Tell which of those that refuse is named: an exhausted one first, then by measure, then by what is left."""
    worst = [standing for standing in refusing if standing.exhausted] or refusing
    for measure in (Measure.USD, Measure.TOKENS, Measure.REQUESTS):
        alike = [standing for standing in worst if standing.counter.measure is measure]
        if alike:
            return min(alike, key=lambda standing: standing.available)
    raise AssertionError("nothing refuses")


def least_in_usd(limited: Iterable[tuple[Claim, Standing]], held: Mapping[Counter, int]) -> int | None:
    """Tell what the tightest limit in USD leaves when so much more is held."""
    in_usd = [standing for _, standing in limited if standing.counter.measure is Measure.USD]
    return min((standing.available - held.get(standing.counter, 0) for standing in in_usd), default=None)


def booked(told: Told) -> Spent:
    """Tell what an expiry booked: only in USD, where all counters are in USD."""
    in_usd = all(counter.measure is Measure.USD for counter in told.hold.counters)
    return Spent(told.expiry.cost_nanousd) if in_usd else told.expiry
