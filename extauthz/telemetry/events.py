"""The events that are worth telling, and the one protocol that everybody who listens to them implements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from extauthz.domain.reservation import Signal, State
from extauthz.domain.verdict import Decision
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ending
from extauthz.ledger.link import Server


class Telemetry(Protocol):
    """Hears of everything that happens."""

    def decided(self, decision: Decision, seconds: float) -> None:
        """Hear of an answered Check and how long it took."""
        ...

    def failed(self, where: str, error: BaseException) -> None:
        """Hear of a failure of our own."""
        ...

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Hear of a signal that ended a reservation, or that changed nothing."""
        ...

    def usage_absurd(self, model: str, fields: Sequence[str]) -> None:
        """Hear of usage that had to be put right."""
        ...

    def hold_rejected(self) -> None:
        """Hear of a hold that was not signed by this store's key."""
        ...

    def store_answered(self, verb: str, seconds: float) -> None:
        """Hear of a verb that the store carried out."""
        ...

    def store_failed(self, verb: str, error: StoreUnavailableError) -> None:
        """Hear of a verb that the store did not answer."""
        ...

    def endings_waiting(self, count: int) -> None:
        """Hear how many endings the store has not heard of yet."""
        ...

    def ending_lost(self, how: State, signal: Signal) -> None:
        """Hear of an ending that there was no room to keep; the lease ends its reservation."""
        ...

    def settlement_blind(self, *, blind: bool) -> None:
        """Hear whether leases end reservations because no access logs come."""
        ...

    def store_lost(self, reason: str) -> None:
        """Hear that the store does not answer, or not us."""
        ...

    def store_seen(self, server: Server) -> None:
        """Hear how a store is that was found, or looked at again."""
        ...

    def store_replayed(self, count: int, lost: int) -> None:
        """Hear that a store that started anew was told so many verbs, and how many of them it had forgotten."""
        ...
