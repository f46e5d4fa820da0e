"""The ledger in this process's memory: for one replica, and lost with it.

Each verb runs from its first check to its last write without an await, which makes it one atomic step on the event
loop. Its work grows with the scopes of the request and not with what is stored: cleaning up is spread over the verbs, a
bounded piece each. Everything kept has a maximum, and at one the store refuses new work instead of admitting uncounted.
Lists are made in pieces.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from extauthz.domain.admission import admit, least_available
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, Spent, Standing
from extauthz.domain.reservation import TRANSITIONS, Claim, Hold, Lease, Note, Signal, State, Verb
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.amounts import counted
from extauthz.ledger.base import (
    UNNOTED,
    AlreadyEnded,
    Amendment,
    AmendmentKind,
    Audit,
    Balance,
    Drift,
    Ending,
    Expired,
    OpenReservation,
    Promise,
    Refused,
    Reserve,
    Reserved,
    ReserveResult,
    StaleWindow,
    TooLate,
)
from extauthz.ledger.pieces import first, paced
from extauthz.ledger.promises import Promises
from extauthz.ledger.ranking import most_spent_in_turn
from extauthz.ledger.tallies import COUNTERS_MAX, Tallies, Tally
from extauthz.ledger.tombstones import TOMBSTONES_MAX, Tombstone, Tombstones

RESERVATIONS_MAX = 200_000

# Changes by hand that are remembered, so that a repeated one changes nothing.
AMENDMENTS_MAX = 10_000
# Announcements that are remembered; beyond them the oldest may be announced again before its time.
ANNOUNCED_MAX = 10_000

# Renewals and endings leave stale entries in the heap of leases; it is rebuilt when they outnumber the live ones by so
# many.
STALE_LEASES_MAX = 1024


@dataclass(slots=True)
class _Reservation:
    """An open reservation: which Check holds it, how much on which tally, and until when."""

    hold: Hold
    attempt: str
    amounts: tuple[tuple[Tally, int], ...]
    lease_end_ms: int = 0
    expiry: Spent = NOTHING_SPENT


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
        self._tallies = Tallies(counters_max)
        self._tombstones = Tombstones(tombstones_max)
        self._promises = Promises()
        self._heard_ms = 0
        self._limits: dict[tuple[Scope, str], int] = {}
        self._amended: OrderedDict[str, None] = OrderedDict()
        self._announced: OrderedDict[str, int] = OrderedDict()  # name → until when

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
            return Reserved(least_available(self._standings_of(request.claims), {}))
        overdue = request.not_after_ms is not None and now_ms > request.not_after_ms
        if overdue or self._tombstones.forget(hold, now_ms):
            return TooLate()
        if not all(claim.counter.window.contains(now_ms) for claim in request.claims):
            return StaleWindow(now_ms)
        self._tallies.carry_over(hold.counters, self._limits, now_ms)
        admitted = admit(request.claims, self._standings_of(request.claims))
        if isinstance(admitted, Standing):
            return Refused(admitted)
        self._hold(request, admitted.amounts, now_ms)
        return Reserved(admitted.available_nanousd)

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """End a reservation with what it used, on the counters that it was reserved on."""
        now_ms = self._clock_ms()
        self._hear(note, now_ms)
        reservation = self._open.get(hold.id)
        if reservation is not None:
            self._end(reservation, State.SETTLED, spent, now_ms)
            return Ending.FIRST
        name = (hold.id, None)
        tombstone = self._tombstones.get(name, now_ms)
        if tombstone is None:
            if self._tombstones.forget(hold, now_ms):
                return Ending.FORGOTTEN
            self._book(hold.counters, spent, NOTHING_SPENT, now_ms)
            self._tombstones.put(name, Tombstone(State.SETTLED, now_ms, hold.reserved_at_ms), now_ms)
            return Ending.UNKNOWN
        if (tombstone.state, Verb.SETTLE) not in TRANSITIONS:
            return Ending.REPEATED
        self._book(tombstone.counters, spent, tombstone.booked, now_ms)
        self._tombstones.amend(name, replace(tombstone, state=State.SETTLED, booked=NOTHING_SPENT, counters=()))
        return Ending.LATE

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation, or with `attempt` that Check's claim on it, with no cost."""
        now_ms = self._clock_ms()
        self._hear(note, now_ms)
        reservation = self._open.get(reservation_id)
        if reservation is not None and attempt in (None, reservation.attempt):
            self._end(reservation, State.RELEASED, NOTHING_SPENT, now_ms, attempt=attempt)
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

    async def promise(self, promise: Promise) -> bool:
        """Remember a promise, and tell whether it is."""
        return self._promises.put(promise, self._clock_ms())

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name."""
        return self._promises.get(name, self._clock_ms())

    async def forget(self, name: str) -> None:
        """Forget a promise."""
        self._promises.drop(name)

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End at most `count_max` reservations whose lease has run out, the oldest first."""
        now_ms = self._clock_ms()
        expired: list[Expired] = []
        while self._lease_ends and self._lease_ends[0][0] <= now_ms and len(expired) < count_max:
            end_ms, reservation_id = heapq.heappop(self._lease_ends)
            reservation = self._open.get(reservation_id)
            if reservation is not None and reservation.lease_end_ms == end_ms:
                booked = counted(reservation.expiry, (tally.counter for tally, _ in reservation.amounts))
                self._end(reservation, State.EXPIRED, booked, now_ms)
                expired.append(Expired(reservation_id, booked))
        return tuple(expired)

    def heard_ms(self) -> int:
        """Tell when an access log last told of a stream."""
        return self._heard_ms

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand; False when this was done already."""
        if amendment.id in self._amended:
            return False
        counter, amount = amendment.counter, amendment.amount
        # First: a reset is of what is carried over, too, and a limit is one of this window.
        self._tallies.carry_over((counter,), self._limits, self._clock_ms())
        budget = (counter.scope, counter.label)
        match amendment.kind, amount:
            case AmendmentKind.LIMIT, None:
                self._limits.pop(budget, None)
            case AmendmentKind.LIMIT, int(limit):
                self._limits[budget] = limit
            case kind, _:
                self._amend_tally(kind, counter, amount or 0)
        self._amended[amendment.id] = None
        if len(self._amended) > AMENDMENTS_MAX:
            self._amended.popitem(last=False)
        return True

    def _amend_tally(self, kind: AmendmentKind, counter: Counter, amount: int) -> None:
        now_ms = self._clock_ms()
        (tally,) = self._tallies.take((counter,), now_ms)
        match kind:
            case AmendmentKind.RESET:
                tally.book(-tally.spent, now_ms)
            case AmendmentKind.IMPORT:
                tally.book(amount, now_ms)
            case AmendmentKind.GRANT | AmendmentKind.LIMIT:
                tally.granted += amount
        self._tallies.drop_unused(tally)

    async def standings(
        self,
        limits: Sequence[tuple[Counter, int]],
        *,
        payers: Sequence[Scope] = (),  # noqa: ARG002 - all books are here
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against limits, in the order asked."""
        return tuple([self._standing(counter, limit) async for piece in paced(limits) for counter, limit in piece])

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List at most `count_max` counters of current windows, or with something held, the most spent first."""
        now_ms = self._clock_ms()
        balances: dict[str, Balance] = {}
        async for piece in paced([*self._tallies.all()]):
            balances |= {
                tally.counter.key: Balance(tally.counter, tally.spent, tally.held)
                for tally in piece
                if tally.reservations or tally.counter.window.contains(now_ms)
            }
        rows = [(key, found.spent, found.held) for key, found in balances.items()]
        return tuple(balances[key] for key, _, _ in await most_spent_in_turn(rows, count_max))

    async def open_count(self) -> int:
        """Count the open reservations."""
        return len(self._open)

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List at most `count_max` open reservations, the oldest first."""
        oldest = await first(
            [*self._open.values()], count_max, key=lambda held: (held.hold.reserved_at_ms, held.hold.id)
        )
        return tuple(
            OpenReservation(
                id=held.hold.id,
                attempt=held.attempt,
                model=held.hold.model,
                reserved_at_ms=held.hold.reserved_at_ms,
                lease_end_ms=held.lease_end_ms,
                amounts=tuple((tally.counter, amount) for tally, amount in held.amounts),
            )
            for held in oldest
        )

    async def audit(self) -> Audit:
        """Compare what every counter holds with the open reservations, which must all have leases, in one moment."""
        reservations = [(held.hold.id, held.lease_end_ms, held.amounts) for held in self._open.values()]
        found = {tally.counter.key: tally.held for tally in self._tallies.all() if tally.held}
        counters = {tally.counter.key for tally in self._tallies.all() if tally.spent} | found.keys()
        leases = {*self._lease_ends}
        # What was read up to here is of one moment; the rest takes its time.
        expected = defaultdict[str, int](int)
        drifts: list[Drift] = []
        async for piece in paced(reservations):
            for id_, lease_end_ms, amounts in piece:
                for tally, amount in amounts:
                    expected[tally.counter.key] += amount
                if (lease_end_ms, id_) not in leases:
                    drifts.append(Drift("lease", id_, 0, 0))
        counters |= expected.keys()
        drifts += (
            Drift("held", key, expected[key], found.get(key, 0))
            for key in counters
            if expected[key] != found.get(key, 0)
        )
        return Audit(
            drifts=tuple(drifts),
            counters_checked=len(counters),
            scopes_checked=len({key.partition("|")[0] for key in counters}),
            reservations_open=len(reservations),
            entries_read=0,
        )

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Tell whether this is the first call with `name` for `ttl_ms`."""
        now_ms = self._clock_ms()
        if self._announced.get(name, now_ms) > now_ms:
            return False
        self._announced.pop(name, None)
        self._announced[name] = now_ms + ttl_ms
        if len(self._announced) > ANNOUNCED_MAX:
            self._announced.popitem(last=False)
        return True

    async def close(self) -> None:
        """Do nothing: memory needs no closing."""

    def _hear(self, note: Note, now_ms: int) -> None:
        if note.signal is Signal.ACCESS_LOG:
            self._heard_ms = now_ms

    def _standing(self, counter: Counter, limit: int) -> Standing:
        limit = self._limits.get((counter.scope, counter.label), limit)
        to_carry = self._tallies.to_carry(counter, self._limits)
        carried = 0 if to_carry is None else to_carry.amount
        tally = self._tallies.get(counter)
        if tally is None:
            return Standing(counter, limit, spent=carried, held=0)
        return Standing(counter, limit + tally.granted, tally.spent + carried, tally.held)

    def _standings_of(self, claims: Iterable[Claim]) -> list[Standing | None]:
        return [None if claim.limit is None else self._standing(claim.counter, claim.limit) for claim in claims]

    def _hold(self, request: Reserve, granted: Mapping[Counter, int], now_ms: int) -> None:
        if len(self._open) >= self._reservations_max:
            raise StoreUnavailableError(
                f"the memory store holds {self._reservations_max} open reservations already: "
                "see that endings arrive (access logs), shorten lease_seconds, or raise its maximum"
            )
        tallies = self._tallies.take(granted, now_ms)
        amounts = tuple(zip(tallies, granted.values(), strict=True))
        for tally, amount in amounts:
            tally.held += amount
            tally.reservations += 1
            tally.touched_ms = now_ms
        reservation = _Reservation(request.hold, request.attempt, amounts)
        self._open[request.hold.id] = reservation
        self._start_lease(reservation, request.lease, now_ms)

    def _start_lease(self, reservation: _Reservation, lease: Lease, now_ms: int) -> None:
        reservation.lease_end_ms = now_ms + lease.lease_ms
        reservation.expiry = lease.spent
        heapq.heappush(self._lease_ends, (reservation.lease_end_ms, reservation.hold.id))
        if len(self._lease_ends) > 2 * len(self._open) + STALE_LEASES_MAX:
            self._lease_ends = [(held.lease_end_ms, held.hold.id) for held in self._open.values()]
            heapq.heapify(self._lease_ends)

    def _end(
        self, reservation: _Reservation, state: State, spent: Spent, now_ms: int, *, attempt: str | None = None
    ) -> None:
        hold = reservation.hold
        del self._open[hold.id]
        for tally, amount in reservation.amounts:
            tally.held -= amount
            tally.reservations -= 1
            tally.book(spent.of(tally.counter.measure), now_ms)
            self._tallies.drop_unused(tally)
        tombstone = Tombstone(state, now_ms, hold.reserved_at_ms)
        if state is State.EXPIRED:
            counters = tuple(tally.counter for tally, _ in reservation.amounts)
            tombstone = replace(tombstone, booked=spent, counters=counters)
        self._tombstones.put((hold.id, attempt), tombstone, now_ms)

    def _book(self, counters: Iterable[Counter], spent: Spent, before: Spent, now_ms: int) -> None:
        """Book what was spent, of which some was booked before."""
        for tally in self._tallies.take(counters, now_ms):
            measure = tally.counter.measure
            tally.book(spent.of(measure) - before.of(measure), now_ms)
