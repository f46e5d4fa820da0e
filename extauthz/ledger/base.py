"""The ledger: five verbs on reservations, and the questions one may ask about counters.

Every verb is one atomic step at the store and idempotent by reservation id. Results are values; the only exception is
StoreUnavailableError, which leaves open whether the verb was carried out. `tests/contract/test_ledger.py` is the exact
meaning of this file and runs over every store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from extauthz.domain.budgets import Counter, Measure, Scope, Spent, Standing
from extauthz.domain.reservation import Claim, Hold, Lease, Note, State
from extauthz.domain.value import value
from extauthz.ledger.amounts import measure_of

# A settle of a reservation that the store does not know is booked when it is younger than this, and leaves its ending
# behind for as long, so that it cannot be booked twice.
TOMBSTONE_SECONDS = 24 * 3600

# Promises are kept for so long at least: the lease of one may end after a day, and is put right for a day after it.
PROMISED_SECONDS = 2 * TOMBSTONE_SECONDS
PROMISES_MAX = 100_000
# A hold of four scopes has some 1,000 bytes.
PROMISE_BYTES_MAX = 16 * 1024

# What an ending says of itself where nobody says more.
UNNOTED = Note()


@value
class Reserve:
    """Ask for a reservation.

    `claims` are on the hold's counters, at least one on each: a settle is booked on all of them. `attempt` names the
    one Check that asks. A retried Check asks again for the same `hold.id` under another attempt and gets the
    reservation that is there. `not_after_ms` (store time) makes a request that was stuck on its way do nothing.
    """

    hold: Hold
    attempt: str
    claims: tuple[Claim, ...]
    lease: Lease
    not_after_ms: int | None = None


@value
class Reserved:
    """The money is held on every counter.

    `available_nanousd` is the least that any limited counter in USD has left, None when none is limited.
    """

    available_nanousd: int | None


@value
class Refused:
    """Nothing is held.

    `standing` is the counter that binds, by domain/admission.py: an exhausted one if there is any, one in USD rather
    than in tokens or requests, and of those the one with the least available. A counter may be told of as exhausted
    for a second after it was.
    """

    standing: Standing


@value
class StaleWindow:
    """A window of the claims does not contain the store's time: compute the claims again with `now_ms`."""

    now_ms: int


@value
class AlreadyEnded:
    """The reservation ended before this reserve arrived; nothing is held."""

    state: State


@value
class TooLate:
    """The store ran this reserve after its `not_after_ms`, or too late to tell if it has ended; nothing is held."""


@dataclass(frozen=True, slots=True)
class Promise:
    """An answer that is still to be made: the name that it will be asked for by, and its hold, as it is signed."""

    name: str
    hold: str


@value
class Settle:
    """End a reservation with what it used, and forget the promise of that name if it had one."""

    hold: Hold
    spent: Spent
    note: Note = UNNOTED
    promised: str | None = None


@value
class Renew:
    """Let a reservation go on under another lease; one that is held no more ends with what the lease books.

    With `promise`, whoever asks for the answer later can end it.
    """

    hold: Hold
    lease: Lease
    note: Note = UNNOTED
    promise: Promise | None = None


@value
class Release:
    """End a reservation with no cost, or only the claim that one attempt has on it; and its promise, if it had one."""

    id: str
    attempt: str | None = None
    note: Note = UNNOTED
    promised: str | None = None


ReserveResult = Reserved | Refused | StaleWindow | AlreadyEnded | TooLate


class Ending(StrEnum):
    """What a settle, a release or a renewal did."""

    FIRST = "first"  # it ended the reservation
    LATE = "late"  # a settle after the lease ran out: the books are right now
    UNKNOWN = "unknown"  # the store did not know it: a settle was booked, a release will stop the reserve
    REPEATED = "repeated"  # it had ended before; nothing changed
    FORGOTTEN = "forgotten"  # too old to tell whether it had ended; nothing changed
    OPEN = "open"  # a renewal: it goes on


@dataclass(frozen=True, slots=True)
class Expired:
    """A reservation that its lease ended, and what was booked for it."""

    id: str
    spent: Spent


class AmendmentKind(StrEnum):
    """What somebody may change in the books by hand."""

    RESET = "reset"  # nothing is spent on the counter any more
    IMPORT = "import"  # the amount is spent on it, too
    GRANT = "grant"  # its limit is higher by the amount, in its window
    LIMIT = "limit"  # the amount is the limit of its scope and label from now on; None: the configured one


@dataclass(frozen=True, slots=True)
class Amendment:
    """A change by hand: `id` is its own, so that a repeated one changes nothing; `who` made it, for the journal.

    `amount` is in the measure of the counter.
    """

    id: str
    kind: AmendmentKind
    counter: Counter
    amount: int | None
    who: str


@dataclass(frozen=True, slots=True)
class Balance:
    """A counter with what was spent and what is held on it, in its measure."""

    counter: Counter
    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class OpenReservation:
    """A reservation that has not ended, with what it holds on each counter, in that counter's measure.

    `attempt` is the Check that has it. `lease_end_ms` is when it will be expired unless something is heard of it; both
    times are the store's.
    """

    id: str
    attempt: str
    model: str
    reserved_at_ms: int
    lease_end_ms: int
    amounts: tuple[tuple[Counter, int], ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that is not what it should be, in its measure.

    `name` is its key, and `of` is `spent` or `held`; or it is the id of a reservation without a lease, of `lease`.
    """

    of: str
    name: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    drifts: tuple[Drift, ...]
    counters_checked: int
    scopes_checked: int
    reservations_open: int
    entries_read: int

    @property
    def ok(self) -> bool:
        """Whether the books are right."""
        return not self.drifts

    @property
    def drift_nanousd(self) -> int:
        """How far the counters in USD are from what they should be, all together."""
        return sum(abs(drift.found - drift.expected) for drift in self.drifts if measure_of(drift.name) is Measure.USD)


def together(audits: Sequence[Audit]) -> Audit:
    """Add up the audits of several shards."""
    return Audit(
        drifts=tuple(drift for audit in audits for drift in audit.drifts),
        counters_checked=sum(audit.counters_checked for audit in audits),
        scopes_checked=sum(audit.scopes_checked for audit in audits),
        reservations_open=sum(audit.reservations_open for audit in audits),
        entries_read=sum(audit.entries_read for audit in audits),
    )


class Ledger(Protocol):
    """What every store must do. Amounts are in the measure of their counter, times Unix milliseconds of its clock."""

    def now_ms(self) -> int:
        """Tell the store's time, as well as this process knows it, without asking the store."""
        ...

    def up(self) -> bool:
        """Tell whether the store answers, as far as this process knows."""
        ...

    def signing_key(self) -> bytes | None:
        """Give the key that holds are signed with, the same for every process on this store.

        None while this process has not reached the store yet.
        """
        ...

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Hold the claims' amounts, all or nothing."""
        ...

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """End a reservation with what it used, which may be below or above what was held.

        It is booked on the counters that were reserved on, on each in its own measure, whether their windows have ended
        or not; on those of `hold` when the store does not know the reservation.
        """
        ...

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation with no cost.

        With `attempt` only that Check's claim on it ends: a reservation that another attempt has taken over since
        stays, and another attempt may still reserve it; a settle that comes all the same is booked as UNKNOWN.
        Without, it ends for good.
        """
        ...

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Start the lease anew; False when the reservation is not held."""
        ...

    async def promise(self, promise: Promise) -> bool:
        """Remember a promise for PROMISED_SECONDS at least, or until it is forgotten; False when it is not remembered.

        That is when another has its name, when it is longer than PROMISE_BYTES_MAX, or when there are PROMISES_MAX.
        No promise is money: the reservation of one that is not remembered ends by its lease.
        """
        ...

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name, as it is signed; None when there is none."""
        ...

    async def forget(self, name: str) -> None:
        """Forget a promise."""
        ...

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End at most `count_max` reservations whose lease has run out, the oldest first."""
        ...

    def heard_ms(self) -> int:
        """Tell when the store last heard of a stream by an access log, as of the last `expire`; 0 for never."""
        ...

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand; False when this was done already."""
        ...

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against their configured limits, in the order asked; amended limits count.

        `payers` are the scopes of the principal that asks: books in shards are found by them. The counters of one
        request stand as they do in one moment; long lists are read in pieces.
        """
        ...

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List at most `count_max` counters of current windows, or with something held, the most spent first.

        Measures take turns, as their amounts cannot be compared: the most spent in USD, that in tokens, that in
        requests, then the second of each. Alike ones come in the order of their keys.
        """
        ...

    async def open_count(self) -> int:
        """Count the open reservations."""
        ...

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List at most `count_max` open reservations, the oldest first."""
        ...

    async def audit(self) -> Audit:
        """Compare every counter with what explains it: spent with the journal, held with the open reservations.

        A store without a journal answers for what is held alone. Nothing has to stand still meanwhile.
        """
        ...

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Tell whether this is the first call with `name`, of all processes on the store, for `ttl_ms`.

        So one of many replicas tells the world what all of them see. An announcement may be forgotten with the store;
        then a second one is the first again.
        """
        ...

    async def close(self) -> None:
        """Let go of what the store holds open."""
        ...
