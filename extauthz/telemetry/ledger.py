"""A ledger that tells how long each verb took, and which the store did not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from extauthz.domain.budgets import Counter, Scope, Spent, Standing
from extauthz.domain.reservation import Hold, Lease, Note
from extauthz.errors import StoreUnavailableError
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
    Reserve,
    ReserveResult,
)
from extauthz.telemetry.events import Telemetry

Answer = TypeVar("Answer")


class ObservedLedger(Ledger):
    """Passes every verb on to a store."""

    def __init__(self, store: Ledger, telemetry: Telemetry, clock_s: Callable[[], float]) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock_s = clock_s

    def now_ms(self) -> int:
        """Tell the store's time."""
        return self._store.now_ms()

    def up(self) -> bool:
        """Tell whether the store answers."""
        return self._store.up()

    def signing_key(self) -> bytes | None:
        """Give the store's key."""
        return self._store.signing_key()

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Hold the claims' amounts, all or nothing."""
        return await self._observed("reserve", self._store.reserve(request))

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """End a reservation with what it used."""
        return await self._observed("settle", self._store.settle(hold, spent, note))

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation with no cost."""
        return await self._observed("release", self._store.release(reservation_id, attempt=attempt, note=note))

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Start the lease anew."""
        return await self._observed("renew", self._store.renew(hold, lease))

    async def promise(self, promise: Promise) -> bool:
        """Remember a promise."""
        return await self._observed("promise", self._store.promise(promise))

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name."""
        return await self._observed("promised", self._store.promised(name))

    async def forget(self, name: str) -> None:
        """Forget a promise."""
        await self._observed("forget", self._store.forget(name))

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End reservations whose lease has run out."""
        return await self._observed("expire", self._store.expire(count_max))

    def heard_ms(self) -> int:
        """Tell when an access log last told of a stream."""
        return self._store.heard_ms()

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand."""
        return await self._observed("amend", self._store.amend(amendment))

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against limits."""
        return await self._observed("standings", self._store.standings(limits, payers=payers))

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List counters."""
        return await self._observed("balances", self._store.balances(count_max))

    async def open_count(self) -> int:
        """Count the open reservations."""
        return await self._observed("open_count", self._store.open_count())

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List open reservations."""
        return await self._observed("reservations", self._store.reservations(count_max))

    async def audit(self) -> Audit:
        """Compare every counter with what explains it."""
        return await self._observed("audit", self._store.audit())

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Tell whether this is the first call with `name`."""
        return await self._observed("announce", self._store.announce(name, ttl_ms))

    async def close(self) -> None:
        """Let go of what the store holds open."""
        await self._store.close()

    async def _observed(self, verb: str, carried_out: Awaitable[Answer]) -> Answer:
        started_s = self._clock_s()
        try:
            answer = await carried_out
        except StoreUnavailableError as error:
            self._telemetry.store_failed(verb, error)
            raise
        self._telemetry.store_answered(verb, self._clock_s() - started_s)
        return answer
