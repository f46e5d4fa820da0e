"""A ledger that tells how long each verb took, and which the store did not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from extauthz.domain.budgets import Counter, Scope, Standing
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
        with self._observed("reserve"):
            return await self._store.reserve(request)

    async def settle(self, hold: Hold, cost_nanousd: int, note: Note = UNNOTED) -> Ending:
        """End a reservation with its cost."""
        with self._observed("settle"):
            return await self._store.settle(hold, cost_nanousd, note)

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """End a reservation with no cost."""
        with self._observed("release"):
            return await self._store.release(reservation_id, attempt=attempt, note=note)

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Start the lease anew."""
        with self._observed("renew"):
            return await self._store.renew(hold, lease)

    async def promise(self, promise: Promise) -> bool:
        """Remember a promise."""
        with self._observed("promise"):
            return await self._store.promise(promise)

    async def promised(self, name: str) -> str | None:
        """Give the hold that was promised under a name."""
        with self._observed("promised"):
            return await self._store.promised(name)

    async def forget(self, name: str) -> None:
        """Forget a promise."""
        with self._observed("forget"):
            await self._store.forget(name)

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """End reservations whose lease has run out."""
        with self._observed("expire"):
            return await self._store.expire(count_max)

    def heard_ms(self) -> int:
        """Tell when an access log last told of a stream."""
        return self._store.heard_ms()

    async def amend(self, amendment: Amendment) -> bool:
        """Change the books by hand."""
        with self._observed("amend"):
            return await self._store.amend(amendment)

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell how counters stand against limits."""
        with self._observed("standings"):
            return await self._store.standings(limits, payers=payers)

    async def balances(self, count_max: int) -> tuple[Balance, ...]:
        """List counters."""
        with self._observed("balances"):
            return await self._store.balances(count_max)

    async def open_count(self) -> int:
        """Count the open reservations."""
        with self._observed("open_count"):
            return await self._store.open_count()

    async def reservations(self, count_max: int) -> tuple[OpenReservation, ...]:
        """List open reservations."""
        with self._observed("reservations"):
            return await self._store.reservations(count_max)

    async def audit(self) -> Audit:
        """Compare every counter with what explains it."""
        with self._observed("audit"):
            return await self._store.audit()

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Tell whether this is the first call with `name`."""
        with self._observed("announce"):
            return await self._store.announce(name, ttl_ms)

    async def close(self) -> None:
        """Let go of what the store holds open."""
        await self._store.close()

    @contextmanager
    def _observed(self, verb: str) -> Iterator[None]:
        started_s = self._clock_s()
        try:
            yield
        except StoreUnavailableError as error:
            self._telemetry.store_failed(verb, error)
            raise
        self._telemetry.store_answered(verb, self._clock_s() - started_s)
