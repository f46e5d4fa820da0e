"""The events that are worth telling, and the one protocol that everybody who listens to them implements."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from extauthz.domain.reservation import State
from extauthz.domain.verdict import Decision
from extauthz.ledger.base import Ending


class Signal(StrEnum):
    """What told us that a reservation is over."""

    ACCESS_LOG = "access_log"
    CANCELLATION = "cancellation"
    LEASE = "lease"


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

    def store_failed(self, verb: str) -> None:
        """Hear of a verb that the store did not answer."""
        ...
