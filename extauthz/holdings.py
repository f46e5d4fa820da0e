"""Open reservations as operators see and end them: who holds what, since when."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.domain.budgets import Scope
from extauthz.domain.reservation import Note, Signal, State, public_id
from extauthz.errors import AbsentError, UnclearError
from extauthz.ledger.base import Ending, Ledger, OpenReservation
from extauthz.ledger.pieces import paced
from extauthz.telemetry.events import Telemetry

LISTED = 100
LISTED_MAX = 1000

# The oldest reservations, among which those that are asked for are looked for.
EXAMINED_MAX = 50_000


@dataclass(frozen=True, slots=True)
class ReservationQuery:
    """Which reservations are asked for: those that hold money of a scope, of a model, of at least that age in ms."""

    scope: Scope | None = None
    model: str = ""
    age_ms_min: int = 0
    count_max: int = LISTED

    def wants(self, reservation: OpenReservation, now_ms: int) -> bool:
        """Tell whether a reservation is asked for."""
        return (
            (not self.model or reservation.model == self.model)
            and now_ms - reservation.reserved_at_ms >= self.age_ms_min
            and (
                self.scope is None
                or any(counter.scope == self.scope and amount > 0 for counter, amount in reservation.amounts)
            )
        )


@dataclass(frozen=True, slots=True)
class Holdings:
    """Open reservations, the oldest first, at the store's time `now_ms`; `open` is how many there are in all."""

    reservations: tuple[OpenReservation, ...]
    open: int
    now_ms: int


class Custody:
    """Shows open reservations, and ends one."""

    def __init__(self, ledger: Ledger, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._telemetry = telemetry

    async def find(self, query: ReservationQuery) -> Holdings:
        """List the reservations that are asked for, out of the EXAMINED_MAX oldest."""
        now_ms = self._ledger.now_ms()
        found: list[OpenReservation] = []
        async for piece in paced(await self._ledger.reservations(EXAMINED_MAX)):
            found += (reservation for reservation in piece if query.wants(reservation, now_ms))
            if len(found) >= query.count_max:
                break
        return Holdings(tuple(found[: query.count_max]), await self._ledger.open_count(), now_ms)

    async def release(self, name: str, who: str) -> bool:
        """End an open reservation with no cost, by its id or by what the client saw of it; False when it ended first.

        An answer that ends later is booked all the same.

        Raises UnclearError without a name, and AbsentError when no open reservation has it.
        """
        if not name:
            raise UnclearError("`id` is empty: send the id of a reservation, or what x-extauthz-reservation says of it")
        found = await self._named(name)
        if found is None:
            raise AbsentError(
                f"no reservation that is open has the id {name[:64]!r}: it has ended, or never was; "
                "ListReservations shows those that are open"
            )
        # The claim of its Check alone, not for good: what is then answered all the same is not given away.
        ending = await self._ledger.release(found.id, attempt=found.attempt, note=Note(Signal.OPERATOR))
        self._telemetry.ended(State.RELEASED, Signal.OPERATOR, ending)
        released = ending is Ending.FIRST
        if released:
            self._telemetry.changed_by_hand("release", public_id(found.id), who)
        return released

    async def _named(self, name: str) -> OpenReservation | None:
        # Only what is open is released: a release of anything else would stop a reserve that is still to come.
        async for piece in paced(await self._ledger.reservations(EXAMINED_MAX)):
            for reservation in piece:
                if name in (reservation.id, public_id(reservation.id)):
                    return reservation
        return None
