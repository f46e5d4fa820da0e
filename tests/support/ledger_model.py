"""A ledger that is too simple to be wrong: what every store must answer, and what it may have forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from extauthz.domain.budgets import Counter, Scope, Standing
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
    expiry_cost: int = 0

    @property
    def ended(self) -> State | None:
        """How it ended, None when it did not."""
        return None if self.state is State.HELD else self.state


@dataclass(frozen=True)
class Step:
    """What a verb is answered, what is known of its id then, and what it books."""

    answer: object
    told: Told
    booked: int = 0
    counters: tuple[Counter, ...] = ()


@dataclass
class Model:
    """A ledger that counts what is held anew each time it is asked."""

    now_ms: int = START_MS
    latest_ms: int = START_MS
    told: dict[str, Told] = field(default_factory=dict)
    spent: defaultdict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    grants: defaultdict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    limits: dict[tuple[Scope, str], int] = field(default_factory=dict)
    amended: set[str] = field(default_factory=set)
    forgets_at_ms: set[int] = field(default_factory=set)

    def held(self, counter: Counter) -> int:
        """Sum up what open reservations hold."""
        return sum(told.held.get(counter, 0) for told in self.told.values())

    def standing(self, counter: Counter, configured: int | None) -> Standing:
        """Tell how a counter stands against a limit, or that which stands in for it, and what was granted on top."""
        limit = self.limits.get((counter.scope, counter.window.name), configured or 0) + self.grants[counter]
        return Standing(counter, limit, self.spent[counter], self.held(counter))

    def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand, once."""
        if amendment.id in self.amended:
            return False
        self.amended.add(amendment.id)
        counter, amount = amendment.counter, amendment.amount
        match amendment.kind:
            case AmendmentKind.RESET:
                self.spent[counter] = 0
            case AmendmentKind.IMPORT:
                self.spent[counter] += amount or 0
            case AmendmentKind.GRANT:
                self.grants[counter] += amount or 0
            case AmendmentKind.LIMIT if amount is None:
                self.limits.pop((counter.scope, counter.window.name), None)
            case AmendmentKind.LIMIT:
                self.limits[counter.scope, counter.window.name] = amount
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
            least = min((standing.available for _, standing in limited), default=None)
            return Step(Reserved(least), replace(told, attempt=request.attempt))
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
            binding = min(refusing, key=lambda standing: (not standing.exhausted, standing.available))
            return Step(Refused(binding), told)
        held = {counter: self.granted(counter, request.claims) for counter in hold.counters}
        least = min((standing.available - held[standing.counter] for _, standing in limited), default=None)
        after = Told(hold, State.HELD, 0, request.attempt, told.withdrawn, held)
        return Step(Reserved(least), self.leased(after, lease))

    def granted(self, counter: Counter, claims: Iterable[Claim]) -> int:
        """Tell what claims that pass hold on a counter: partial ones the least of what they get, whole ones all."""
        on_it = [(claim, self.standing(counter, claim.limit)) for claim in claims if claim.counter == counter]
        parts = [
            claim.amount if claim.limit is None else min(claim.amount, standing.available)
            for claim, standing in on_it
            if not claim.whole
        ]
        return max(min(parts, default=0), *(claim.amount for claim, _ in on_it if claim.whole), 0)

    def settle(self, hold: Hold, cost: int, told: Told) -> Step:
        """Book the cost where it was reserved, once."""
        settled = self.over(told, State.SETTLED)
        match told.state:
            case State.HELD:
                return Step(Ending.FIRST, settled, cost, told.hold.counters)
            case State.EXPIRED:
                corrected = replace(told, state=State.SETTLED)
                return Step(Ending.LATE, corrected, cost - told.expiry_cost, told.hold.counters)
            case None if self.now_ms - hold.reserved_at_ms >= KEPT_MS:
                return Step(Ending.FORGOTTEN, told)
            case None:
                return Step(Ending.UNKNOWN, settled, cost, hold.counters)
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
            self.take(name, Step(None, self.over(told, State.EXPIRED), told.expiry_cost, told.hold.counters))
        return tuple(Expired(name, self.told[name].expiry_cost) for name in names)

    def leased(self, told: Told, lease: Lease) -> Told:
        """Start a lease."""
        return replace(told, lease_end_ms=self.now_ms + lease.lease_ms, expiry_cost=lease.cost_nanousd)

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
        for counter in step.counters:
            self.spent[counter] = max(0, self.spent[counter] + step.booked)

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
        """Tell whether a store need not know any more what was spent on a counter."""
        end_ms = counter.window.end_ms
        return end_ms is not None and end_ms + KEPT_MS <= self.latest_ms
