"""Several listeners as one."""

from __future__ import annotations

from collections.abc import Sequence

from extauthz.domain.budgets import Measure
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Signal, State
from extauthz.domain.thresholds import Alert
from extauthz.domain.verdict import Decision
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Audit, Ending
from extauthz.ledger.link import Server
from extauthz.telemetry.events import Delivery, Finished, LookupResult, Telemetry


class Listeners(Telemetry):
    """Tells every event to each listener, in order."""

    def __init__(self, *listeners: Telemetry) -> None:
        self._listeners = listeners

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Hear of an answered Check and how long it took; None for a request that could not be read."""
        for listener in self._listeners:
            listener.decided(decision, facts, seconds)

    def failed(self, where: str, error: BaseException) -> None:
        """Hear of a failure of our own."""
        for listener in self._listeners:
            listener.failed(where, error)

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Hear of a signal that ended a reservation, or that changed nothing."""
        for listener in self._listeners:
            listener.ended(how, signal, ending)

    def finished(self, finished: Finished) -> None:
        """Hear more of an ending that a finished stream brought, beside `ended`."""
        for listener in self._listeners:
            listener.finished(finished)

    def usage_absurd(self, model: str, fields: Sequence[str]) -> None:
        """Hear of usage that had to be put right."""
        for listener in self._listeners:
            listener.usage_absurd(model, fields)

    def free_answer_paid(self, asked: str, answered: str | None) -> None:
        """Hear of a request that was exempt as free, and booked because its answer names a paid model."""
        for listener in self._listeners:
            listener.free_answer_paid(asked, answered)

    def hold_rejected(self) -> None:
        """Hear of a hold that was not signed by this store's key."""
        for listener in self._listeners:
            listener.hold_rejected()

    def store_answered(self, verb: str, seconds: float) -> None:
        """Hear of a verb that the store carried out."""
        for listener in self._listeners:
            listener.store_answered(verb, seconds)

    def store_failed(self, verb: str, error: StoreUnavailableError) -> None:
        """Hear of a verb that the store did not answer."""
        for listener in self._listeners:
            listener.store_failed(verb, error)

    def endings_waiting(self, count: int) -> None:
        """Hear how many endings the store has not heard of yet."""
        for listener in self._listeners:
            listener.endings_waiting(count)

    def ending_lost(self, how: State, signal: Signal) -> None:
        """Hear of an ending that there was no room to keep; the lease ends its reservation."""
        for listener in self._listeners:
            listener.ending_lost(how, signal)

    def changed_by_hand(
        self, what: str, subject: str, who: str, amount: int | None = None, measure: Measure = Measure.USD
    ) -> None:
        """Hear that somebody changed something of a running server: what was done, to what, and by whom."""
        for listener in self._listeners:
            listener.changed_by_hand(what, subject, who, amount, measure)

    def audited(self, audit: Audit | None) -> None:
        """Hear what an audit found; None when another server on the store has made one since."""
        for listener in self._listeners:
            listener.audited(audit)

    def settlement_blind(self, *, blind: bool) -> None:
        """Hear whether leases end reservations because no access logs come."""
        for listener in self._listeners:
            listener.settlement_blind(blind=blind)

    def spans_lost(self, count: int, reason: str) -> None:
        """Hear of spans that no collector took, from a thread of its own."""
        for listener in self._listeners:
            listener.spans_lost(count, reason)

    def store_lost(self, reason: str) -> None:
        """Hear that the store does not answer, or not us."""
        for listener in self._listeners:
            listener.store_lost(reason)

    def store_seen(self, server: Server) -> None:
        """Hear how a store is that was found, or looked at again."""
        for listener in self._listeners:
            listener.store_seen(server)

    def store_replayed(self, count: int, lost: int) -> None:
        """Hear that a store that started anew was told so many verbs, and how many of them it had forgotten."""
        for listener in self._listeners:
            listener.store_replayed(count, lost)

    def config_loaded(
        self, loaded_ms: int, *, changed: Sequence[str], waiting: Sequence[str], notices: Sequence[str]
    ) -> None:
        """Hear that another configuration is in force: its changed sections, and settings that wait for a restart."""
        for listener in self._listeners:
            listener.config_loaded(loaded_ms, changed=changed, waiting=waiting, notices=notices)

    def config_refused(self, mistakes: Sequence[str]) -> None:
        """Hear that the files of the configuration are wrong, and that the one in force stays."""
        for listener in self._listeners:
            listener.config_refused(mistakes)

    def keys_fetched(self, issuer: str, count: int) -> None:
        """Hear that an issuer of tokens gave its keys, and how many they are."""
        for listener in self._listeners:
            listener.keys_fetched(issuer, count)

    def keys_missed(self, issuer: str, reason: str) -> None:
        """Hear that an issuer of tokens gave no keys, so that those before have to do."""
        for listener in self._listeners:
            listener.keys_missed(issuer, reason)

    def directory_asked(self, result: LookupResult, count: int) -> None:
        """Hear of so many payers who were looked for in the directory."""
        for listener in self._listeners:
            listener.directory_asked(result, count)

    def directory_fetched(self, seconds: float, entries: int) -> None:
        """Hear that the directory answered, and how many payers are remembered."""
        for listener in self._listeners:
            listener.directory_fetched(seconds, entries)

    def directory_lost(self, reason: str) -> None:
        """Hear that the directory does not answer."""
        for listener in self._listeners:
            listener.directory_lost(reason)

    def directory_seen(self) -> None:
        """Hear that the directory answers: for the first time, or again."""
        for listener in self._listeners:
            listener.directory_seen()

    def directory_unreadable(self, who: str, reason: str) -> None:
        """Hear of a payer of whom the directory says what cannot be read."""
        for listener in self._listeners:
            listener.directory_unreadable(who, reason)

    def config_unchanged(self) -> None:
        """Hear that the files of the configuration were looked at, and say what is in force."""
        for listener in self._listeners:
            listener.config_unchanged()

    def config_unwatched(self, reason: str, poll_s: float) -> None:
        """Hear that changes of the files are noticed only within so many seconds."""
        for listener in self._listeners:
            listener.config_unwatched(reason, poll_s)

    def alerted(self, alert: Alert) -> None:
        """Hear of a threshold that a budget crossed, from the one replica that tells."""
        for listener in self._listeners:
            listener.alerted(alert)

    def alert_delivered(self, delivery: Delivery, host: str, reason: str) -> None:
        """Hear what became of an alert at the webhook's host, and why if it did not get there."""
        for listener in self._listeners:
            listener.alert_delivered(delivery, host, reason)
