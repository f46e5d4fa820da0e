"""A ledger that tells what a reserve would be answered now, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from extauthz.domain.admission import Granted, admit
from extauthz.domain.budgets import Counter, Scope, Spent, Standing
from extauthz.domain.reservation import Claim, Hold, Lease, Note
from extauthz.errors import ExtauthzError
from extauthz.ledger.base import (
    UNNOTED,
    Amendment,
    Audit,
    Balance,
    Ending,
    Expired,
    Ledger,
    OpenReservation,
    Promise,
    Refused,
    Reserve,
    Reserved,
    ReserveResult,
    StaleWindow,
    TooLate,
)

# ruff: noqa: ARG002 - what would change the books is refused, whatever it is about


class PreviewChangesNothingError(ExtauthzError):
    """A preview was told to change the books: it only looks at them."""


class PreviewLedger(Ledger):
    """Answers for one request, from the books of a real ledger, as that would if it came now.

    Whether a reservation of the same id is open, or has ended, no book tells without a verb: it is taken for a new one.
    `asked` is the last reserve, and `seen` how the counter of each of its claims stood: a Standing against the limit
    of the claim, a Balance where it has none.
    """

    def __init__(self, books: Ledger) -> None:
        self._books = books
        self.asked: Reserve | None = None
        self.seen: tuple[Standing | Balance, ...] = ()

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Tell what the books would answer."""
        claims = request.claims
        payers = [counter.scope for counter in request.hold.counters]
        # One that only counts has no limit to stand against: it is asked about with any.
        limits = [(claim.counter, claim.limit or 0) for claim in claims]
        standings = await self._books.standings(limits, payers=payers)
        self.asked, self.seen = request, tuple(map(_seen, claims, standings))
        now_ms = self._books.now_ms()
        if request.not_after_ms is not None and now_ms > request.not_after_ms:
            return TooLate()
        if not all(claim.counter.window.contains(now_ms) for claim in claims):
            return StaleWindow(now_ms)
        match admit(claims, [seen if isinstance(seen, Standing) else None for seen in self.seen]):
            case Granted(available_nanousd):
                return Reserved(available_nanousd)
            case Standing() as refusing:
                return Refused(refusing)

    def now_ms(self) -> int:
        """Tell the store's time."""
        return self._books.now_ms()

    def up(self) -> bool:
        """Tell whether the store answers."""
        return self._books.up()

    def signing_key(self) -> bytes | None:
        """Give the store's key."""
        return self._books.signing_key()

    def heard_ms(self) -> int:
        """Tell when an access log last told of a stream."""
        return self._books.heard_ms()

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against limits."""
        return await self._books.standings(limits, payers=payers)

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List counters."""
        return await self._books.balances(count_max)

    async def open_count(self) -> int:
        """Count the open reservations."""
        return await self._books.open_count()

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List open reservations."""
        return await self._books.reservations(count_max)

    async def audit(self) -> Audit:
        """Compare every counter with what explains it."""
        return await self._books.audit()

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name."""
        return await self._books.promised(name)

    async def promise(self, promise: Promise) -> bool:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def forget(self, name: str) -> None:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def amend(self, amendment: Amendment) -> bool:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Raise PreviewChangesNothingError."""
        raise PreviewChangesNothingError

    async def close(self) -> None:
        """Do nothing: whoever opened the books closes them."""


def _seen(claim: Claim, standing: Standing) -> Standing | Balance:
    if claim.limit is not None:
        return standing
    return Balance(standing.counter, standing.spent, standing.held)
