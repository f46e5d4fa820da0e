"""The ledger in this process's memory: for one replica, and lost with it.

Each verb runs from its first check to its last write without an await, which makes it one atomic step on the event
loop. Its work grows with the scopes of the request and not with what is stored: cleaning up is spread over the verbs, a
bounded piece each. Everything kept has a maximum, and at one the store refuses new work instead of admitting uncounted.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from extauthz.domain.budgets import Counter, Scope, Standing
from extauthz.domain.reservation import TRANSITIONS, Claim, Hold, Lease, Note, Signal, State, Verb
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import (
    UNNOTED,
    AlreadyEnded,
    Amendment,
    AmendmentKind,
    Balance,
    Ending,
    Expired,
    Refused,
    Reserve,
    Reserved,
    ReserveResult,
    StaleWindow,
    TooLate,
)
from extauthz.ledger.tombstones import RETENTION_MS, TOMBSTONES_MAX, Tombstone, Tombstones

RESERVATIONS_MAX = 200_000
COUNTERS_MAX = 500_000

# How much cleaning up one verb does. It adds the counters of one principal, so that they shrink faster than they grow.
COUNTERS_EXAMINED_MAX = 64

# Changes by hand that are remembered, so that a repeated one changes nothing.
AMENDMENTS_MAX = 10_000

# Renewals and endings leave stale entries in the heap of leases; it is rebuilt when they outnumber the live ones by so
# many.
STALE_LEASES_MAX = 1024


@dataclass(slots=True)
class _Tally:
    """A counter in use. `touched_ms` is when a reservation on it last began or ended."""

    counter: Counter
    touched_ms: int
    spent_nanousd: int = 0
    held_nanousd: int = 0
    granted_nanousd: int = 0
    reservations: int = 0

    def book(self, cost_nanousd: int, now_ms: int) -> None:
        """Add to spent; a negative cost puts right what an expiry booked too much."""
        self.spent_nanousd = max(0, self.spent_nanousd + cost_nanousd)
        self.touched_ms = now_ms


class _Tallies:
    """The counters in use, by key.

    One whose window has ended is dropped RETENTION_MS after that, or after the last ending on it: from then on nothing
    that is still booked can concern it. When the maximum is reached they go earlier, but never with a reservation on.
    """

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._by_key: dict[str, _Tally] = {}
        self._due: list[tuple[int, str]] = []  # a heap, with one entry for each tally whose window ends

    def get(self, counter: Counter) -> _Tally | None:
        return self._by_key.get(counter.key)

    def all(self) -> Iterable[_Tally]:
        return self._by_key.values()

    def take(self, counters: Iterable[Counter], now_ms: int) -> list[_Tally]:
        """Give the tally of each counter, new ones where there is none yet. Raises StoreUnavailableError when full."""
        wanted = {counter.key: counter for counter in counters}
        missing = [key for key in wanted if key not in self._by_key]
        if missing:
            self._make_room(len(missing), now_ms, spared=wanted)
        for key in missing:
            self._by_key[key] = _Tally(wanted[key], touched_ms=now_ms)
            end_ms = wanted[key].window.end_ms
            if end_ms is not None:
                heapq.heappush(self._due, (max(end_ms, now_ms) + RETENTION_MS, key))
        return [self._by_key[key] for key in wanted]

    def drop_unused(self, tally: _Tally) -> None:
        """Forget a lifetime counter on which nothing happened; no window's end would ever do so."""
        used = tally.reservations or tally.spent_nanousd or tally.granted_nanousd
        if tally.counter.window.end_ms is None and not used:
            del self._by_key[tally.counter.key]

    def _make_room(self, count: int, now_ms: int, spared: Mapping[str, Counter]) -> None:
        for _ in range(COUNTERS_EXAMINED_MAX):
            full = len(self._by_key) + count > self._count_max
            # What has ended is due within RETENTION_MS from now, what has not is due later.
            due_until_ms = now_ms + RETENTION_MS if full else now_ms
            if not self._due or self._due[0][0] > due_until_ms:
                break
            key = self._due[0][1]
            tally = self._by_key[key]
            if tally.reservations or key in spared or tally.touched_ms + RETENTION_MS > due_until_ms:
                heapq.heapreplace(self._due, (now_ms + RETENTION_MS, key))
            else:
                heapq.heappop(self._due)
                del self._by_key[key]
        if len(self._by_key) + count > self._count_max:
            raise StoreUnavailableError(
                f"the memory store counts on {self._count_max} counters already, one per scope and window: "
                "use longer windows or fewer end users, or raise its maximum"
            )


@dataclass(slots=True)
class _Reservation:
    """An open reservation: which Check holds it, how much on which tally, and until when."""

    hold: Hold
    attempt: str
    amounts: tuple[tuple[_Tally, int], ...]
    lease_end_ms: int = 0
    expiry_cost_nanousd: int = 0


class MemoryLedger:
    """A Ledger in memory. `clock_ms` gives Unix milliseconds; the maxima count entries.

    Raises StoreUnavailableError from `reserve` and `settle` when a maximum is reached; they did nothing then.
    """

    def __init__(
        self,
        clock_ms: Callable[[], int],
        signing_key: bytes,
        *,
        tombstones_max: int = TOMBSTONES_MAX,
        reservations_max: int = RESERVATIONS_MAX,
        counters_max: int = COUNTERS_MAX,
    ) -> None:
        self._clock_ms = clock_ms
        self._signing_key = signing_key
        self._reservations_max = reservations_max
        self._open: dict[str, _Reservation] = {}
        self._lease_ends: list[tuple[int, str]] = []  # a heap
        self._tallies = _Tallies(counters_max)
        self._tombstones = Tombstones(tombstones_max)
        self._heard_ms = 0
        self._limits: dict[tuple[Scope, str], int] = {}
        self._amended: OrderedDict[str, None] = OrderedDict()

    def now_ms(self) -> int:
        """Tell the time."""
        return self._clock_ms()

    def up(self) -> bool:
        """Tell that memory is always there."""
        return True

    def signing_key(self) -> bytes:
        """Give the key that holds are signed with."""
        return self._signing_key

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Hold the claims' amounts, all or nothing."""
        now_ms = self._clock_ms()
        hold = request.hold
        for name in ((hold.id, None), (hold.id, request.attempt)):
            tombstone = self._tombstones.get(name, now_ms)
            if tombstone is not None:
                return AlreadyEnded(tombstone.state)
        reservation = self._open.get(hold.id)
        if reservation is not None:
            reservation.attempt = request.attempt
            return Reserved(self._least_available(request.claims))
        overdue = request.not_after_ms is not None and now_ms > request.not_after_ms
        if overdue or self._tombstones.forget(hold, now_ms):
            return TooLate()
        if not all(claim.counter.window.contains(now_ms) for claim in request.claims):
            return StaleWindow(now_ms)
        refusals = [standing for claim in request.claims if (standing := self._refusal(claim)) is not None]
        if refusals:
            return Refused(min(refusals, key=lambda standing: (not standing.exhausted, standing.available_nanousd)))
        self._hold(request, now_ms)
        return Reserved(self._least_available(request.claims))

    async def settle(self, hold: Hold, cost_nanousd: int, note: Note = UNNOTED) -> Ending:
        """End a reservation with its cost, on the counters that it was reserved on."""
        now_ms = self._clock_ms()
        self._hear(note, now_ms)
        reservation = self._open.get(hold.id)
        if reservation is not None:
            self._end(reservation, State.SETTLED, cost_nanousd, now_ms)
            return Ending.FIRST
        name = (hold.id, None)
        tombstone = self._tombstones.get(name, now_ms)
        if tombstone is None:
            if self._tombstones.forget(hold, now_ms):
                return Ending.FORGOTTEN
            self._book(hold.counters, cost_nanousd, now_ms)
            self._tombstones.put(name, Tombstone(State.SETTLED, now_ms, hold.reserved_at_ms), now_ms)
            return Ending.UNKNOWN
        if (tombstone.state, Verb.SETTLE) not in TRANSITIONS:
            return Ending.REPEATED
        self._book(tombstone.counters, cost_nanousd - tombstone.booked_nanousd, now_ms)
        self._tombstones.amend(name, replace(tombstone, state=State.SETTLED, booked_nanousd=0, counters=()))
        return Ending.LATE

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation, or with `attempt` that Check's claim on it, with no cost."""
        now_ms = self._clock_ms()
        self._hear(note, now_ms)
        reservation = self._open.get(reservation_id)
        if reservation is not None and attempt in (None, reservation.attempt):
            self._end(reservation, State.RELEASED, 0, now_ms, attempt=attempt)
            return Ending.FIRST
        names = ((reservation_id, None), (reservation_id, attempt))
        if any(self._tombstones.get(name, now_ms) is not None for name in names):
            return Ending.REPEATED
        self._tombstones.put_early((reservation_id, attempt), Tombstone(State.RELEASED, now_ms, now_ms))
        # An open reservation belongs to a later attempt, which ended this one's claim by taking it over.
        return Ending.UNKNOWN if reservation is None else Ending.REPEATED

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Start the lease anew; False when the reservation is not held."""
        self._hear(UNNOTED, self._clock_ms())
        reservation = self._open.get(hold.id)
        if reservation is None:
            return False
        self._start_lease(reservation, lease, self._clock_ms())
        return True

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End at most `count_max` reservations whose lease has run out, the oldest first."""
        now_ms = self._clock_ms()
        expired: list[Expired] = []
        while self._lease_ends and self._lease_ends[0][0] <= now_ms and len(expired) < count_max:
            end_ms, reservation_id = heapq.heappop(self._lease_ends)
            reservation = self._open.get(reservation_id)
            if reservation is not None and reservation.lease_end_ms == end_ms:
                self._end(reservation, State.EXPIRED, reservation.expiry_cost_nanousd, now_ms)
                expired.append(Expired(reservation_id, reservation.expiry_cost_nanousd))
        return tuple(expired)

    def heard_ms(self) -> int:
        """Tell when an access log last told of a stream."""
        return self._heard_ms

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand; False when this was done already."""
        if amendment.id in self._amended:
            return False
        self._amended[amendment.id] = None
        if len(self._amended) > AMENDMENTS_MAX:
            self._amended.popitem(last=False)
        counter, amount_nanousd = amendment.counter, amendment.amount_nanousd
        budget = (counter.scope, counter.window.name)
        match amendment.kind, amount_nanousd:
            case AmendmentKind.LIMIT, None:
                self._limits.pop(budget, None)
            case AmendmentKind.LIMIT, int(limit_nanousd):
                self._limits[budget] = limit_nanousd
            case kind, _:
                self._amend_tally(kind, counter, amount_nanousd or 0)
        return True

    def _amend_tally(self, kind: AmendmentKind, counter: Counter, amount_nanousd: int) -> None:
        now_ms = self._clock_ms()
        (tally,) = self._tallies.take((counter,), now_ms)
        match kind:
            case AmendmentKind.RESET:
                tally.book(-tally.spent_nanousd, now_ms)
            case AmendmentKind.IMPORT:
                tally.book(amount_nanousd, now_ms)
            case AmendmentKind.GRANT | AmendmentKind.LIMIT:
                tally.granted_nanousd += amount_nanousd
        self._tallies.drop_unused(tally)

    async def standings(
        self,
        limits: Sequence[tuple[Counter, int]],
        *,
        payers: Sequence[Scope] = (),  # noqa: ARG002 - all books are here
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against limits, in the order asked."""
        return tuple(self._standing(counter, limit_nanousd) for counter, limit_nanousd in limits)

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List at most `count_max` counters of current windows, or with money held, the most spent first."""
        now_ms = self._clock_ms()
        listed = (t for t in self._tallies.all() if t.reservations or t.counter.window.contains(now_ms))
        largest = heapq.nlargest(count_max, listed, key=lambda t: (t.spent_nanousd, t.held_nanousd))
        return tuple(Balance(t.counter, t.spent_nanousd, t.held_nanousd) for t in largest)

    async def open_count(self) -> int:
        """Count the open reservations."""
        return len(self._open)

    async def close(self) -> None:
        """Do nothing: memory needs no closing."""

    def _hear(self, note: Note, now_ms: int) -> None:
        if note.signal is Signal.ACCESS_LOG:
            self._heard_ms = now_ms

    def _standing(self, counter: Counter, limit_nanousd: int) -> Standing:
        limit_nanousd = self._limits.get((counter.scope, counter.window.name), limit_nanousd)
        tally = self._tallies.get(counter)
        if tally is None:
            return Standing(counter, limit_nanousd, spent_nanousd=0, held_nanousd=0)
        return Standing(counter, limit_nanousd + tally.granted_nanousd, tally.spent_nanousd, tally.held_nanousd)

    def _refusal(self, claim: Claim) -> Standing | None:
        """Give the standing that refuses a claim, None when it passes."""
        if claim.limit_nanousd is None:
            return None
        standing = self._standing(claim.counter, claim.limit_nanousd)
        needed_nanousd = claim.amount_nanousd if claim.whole else 1
        return standing if standing.exhausted or standing.available_nanousd < needed_nanousd else None

    def _available(self, claim: Claim) -> int | None:
        if claim.limit_nanousd is None:
            return None
        return self._standing(claim.counter, claim.limit_nanousd).available_nanousd

    def _least_available(self, claims: Iterable[Claim]) -> int | None:
        return min((available for claim in claims if (available := self._available(claim)) is not None), default=None)

    def _hold(self, request: Reserve, now_ms: int) -> None:
        if len(self._open) >= self._reservations_max:
            raise StoreUnavailableError(
                f"the memory store holds {self._reservations_max} open reservations already: "
                "see that endings arrive (access logs), shorten lease_seconds, or raise its maximum"
            )
        granted = self._granted(request.claims)
        tallies = self._tallies.take((claim.counter for claim in request.claims), now_ms)
        amounts = tuple((tally, granted[tally.counter.key]) for tally in tallies)
        for tally, amount_nanousd in amounts:
            tally.held_nanousd += amount_nanousd
            tally.reservations += 1
            tally.touched_ms = now_ms
        reservation = _Reservation(request.hold, request.attempt, amounts)
        self._open[request.hold.id] = reservation
        self._start_lease(reservation, request.lease, now_ms)

    def _granted(self, claims: Iterable[Claim]) -> dict[str, int]:
        """Give what passing claims hold on each counter, once where several of them name the same."""
        granted: dict[str, int] = {}
        # Partial claims share what the tightest limit leaves; after that whole ones get all that they asked for.
        for claim in sorted(claims, key=lambda claim: claim.whole):
            available_nanousd = self._available(claim)
            amount_nanousd = claim.amount_nanousd
            if available_nanousd is not None:
                amount_nanousd = min(amount_nanousd, available_nanousd)
            key = claim.counter.key
            choose = max if claim.whole else min
            granted[key] = choose(granted.get(key, amount_nanousd), amount_nanousd)
        return granted

    def _start_lease(self, reservation: _Reservation, lease: Lease, now_ms: int) -> None:
        reservation.lease_end_ms = now_ms + lease.lease_ms
        reservation.expiry_cost_nanousd = lease.cost_nanousd
        heapq.heappush(self._lease_ends, (reservation.lease_end_ms, reservation.hold.id))
        if len(self._lease_ends) > 2 * len(self._open) + STALE_LEASES_MAX:
            self._lease_ends = [(held.lease_end_ms, held.hold.id) for held in self._open.values()]
            heapq.heapify(self._lease_ends)

    def _end(
        self, reservation: _Reservation, state: State, cost_nanousd: int, now_ms: int, *, attempt: str | None = None
    ) -> None:
        hold = reservation.hold
        del self._open[hold.id]
        for tally, amount_nanousd in reservation.amounts:
            tally.held_nanousd -= amount_nanousd
            tally.reservations -= 1
            tally.book(cost_nanousd, now_ms)
            self._tallies.drop_unused(tally)
        tombstone = Tombstone(state, now_ms, hold.reserved_at_ms)
        if state is State.EXPIRED:
            counters = tuple(tally.counter for tally, _ in reservation.amounts)
            tombstone = replace(tombstone, booked_nanousd=cost_nanousd, counters=counters)
        self._tombstones.put((hold.id, attempt), tombstone, now_ms)

    def _book(self, counters: Iterable[Counter], cost_nanousd: int, now_ms: int) -> None:
        for tally in self._tallies.take(counters, now_ms):
            tally.book(cost_nanousd, now_ms)
