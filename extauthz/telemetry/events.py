"""The events that are worth telling, and the one base of everybody who listens to them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from extauthz.domain.budgets import Measure, Spent
from extauthz.domain.prices import Usage
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Hold, Signal, State
from extauthz.domain.thresholds import Alert
from extauthz.domain.value import value
from extauthz.domain.verdict import Decision
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Audit, Ending
from extauthz.ledger.link import Server


@value
class Finished:
    """A finished stream whose reservation ended by it: as `how`, with what was `spent`, and what that `ending` did.

    `usage` is what the answer said that it used. `trace` is the request's place in a trace (domain/trace.py).
    """

    hold: Hold
    how: State
    ending: Ending
    spent: Spent
    usage: Usage | None
    trace: str | None


class Delivery(StrEnum):
    """What became of an alert on its way to the webhook."""

    SENT = "sent"
    FAILED = "failed"  # refused, or not taken however often it was tried
    DROPPED = "dropped"  # there was no room for it to wait


class LookupResult(StrEnum):
    """What came of looking for a payer in a directory."""

    HIT = "hit"  # what is remembered was young enough
    FETCHED = "fetched"
    ABSENT = "absent"
    STALE = "stale"  # what is remembered has to do, for the directory does not answer
    UNAVAILABLE = "unavailable"


class Telemetry:
    """Hears of everything that happens. What a listener does not override it does not care about."""

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Hear of an answered Check and how long it took; None for a request that could not be read."""

    def failed(self, where: str, error: BaseException) -> None:
        """Hear of a failure of our own."""

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Hear of a signal that ended a reservation, or that changed nothing."""

    def finished(self, finished: Finished) -> None:
        """Hear more of an ending that a finished stream brought, beside `ended`."""

    def usage_absurd(self, model: str, fields: Sequence[str]) -> None:
        """Hear of usage that had to be put right."""

    def free_answer_paid(self, asked: str, answered: str | None) -> None:
        """Hear of a request that was exempt as free, and booked because its answer names a paid model."""

    def hold_rejected(self) -> None:
        """Hear of a hold that was not signed by this store's key."""

    def store_answered(self, verb: str, seconds: float) -> None:
        """Hear of a verb that the store carried out."""

    def store_failed(self, verb: str, error: StoreUnavailableError) -> None:
        """Hear of a verb that the store did not answer."""

    def endings_waiting(self, count: int) -> None:
        """Hear how many endings the store has not heard of yet."""

    def ending_lost(self, how: State, signal: Signal) -> None:
        """Hear of an ending that there was no room to keep; the lease ends its reservation."""

    def changed_by_hand(
        self, what: str, subject: str, who: str, amount: int | None = None, measure: Measure = Measure.USD
    ) -> None:
        """Hear that somebody changed something of a running server: what was done, to what, and by whom.

        An amount is in the unit of its measure.
        """

    def audited(self, audit: Audit | None) -> None:
        """Hear what an audit found; None when another server on the store has made one since."""

    def settlement_blind(self, *, blind: bool) -> None:
        """Hear whether leases end reservations because no access logs come."""

    def spans_lost(self, count: int, reason: str) -> None:
        """Hear of spans that no collector took, from a thread of its own."""

    def store_lost(self, reason: str) -> None:
        """Hear that the store does not answer, or not us."""

    def store_seen(self, server: Server) -> None:
        """Hear how a store is that was found, or looked at again."""

    def store_replayed(self, count: int, lost: int) -> None:
        """Hear that a store that started anew was told so many verbs, and how many of them it had forgotten."""

    def config_loaded(
        self, loaded_ms: int, *, changed: Sequence[str], waiting: Sequence[str], notices: Sequence[str]
    ) -> None:
        """Hear that another configuration is in force: its changed sections, and settings that wait for a restart."""

    def config_refused(self, mistakes: Sequence[str]) -> None:
        """Hear that the files of the configuration are wrong, and that the one in force stays."""

    def keys_fetched(self, issuer: str, count: int) -> None:
        """Hear that an issuer of tokens gave its keys, and how many they are."""

    def keys_missed(self, issuer: str, reason: str) -> None:
        """Hear that an issuer of tokens gave no keys, so that those before have to do."""

    def directory_asked(self, result: LookupResult, count: int) -> None:
        """Hear of so many payers who were looked for in the directory."""

    def directory_fetched(self, seconds: float, entries: int) -> None:
        """Hear that the directory answered, and how many payers are remembered."""

    def directory_lost(self, reason: str) -> None:
        """Hear that the directory does not answer."""

    def directory_seen(self) -> None:
        """Hear that the directory answers: for the first time, or again."""

    def directory_unreadable(self, who: str, reason: str) -> None:
        """Hear of a payer of whom the directory says what cannot be read."""

    def config_unchanged(self) -> None:
        """Hear that the files of the configuration were looked at, and say what is in force."""

    def config_unwatched(self, reason: str, poll_s: float) -> None:
        """Hear that changes of the files are noticed only within so many seconds."""

    def alerted(self, alert: Alert) -> None:
        """Hear of a threshold that a budget crossed, from the one replica that tells."""

    def alert_delivered(self, delivery: Delivery, host: str, reason: str) -> None:
        """Hear what became of an alert at the webhook's host, and why if it did not get there."""
