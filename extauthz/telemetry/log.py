"""Structured logs on standard error: one JSON line per event, or readable lines on a terminal."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import structlog
from structlog.processors import NAME_TO_LEVEL

from extauthz.domain.address import Address
from extauthz.domain.budgets import Measure
from extauthz.domain.measures import amount_text
from extauthz.domain.money import usd, usd_text
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Signal, State
from extauthz.domain.thresholds import Alert
from extauthz.domain.verdict import Decision
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Audit, Ending
from extauthz.ledger.link import Server
from extauthz.telemetry.events import Delivery, LookupResult, Telemetry
from extauthz.telemetry.lines import LineWriter
from extauthz.telemetry.metrics import Metrics

# While a store is away each request fails; one line in so many seconds says so.
STORE_LOG_S = 10.0

# While a collector is away each batch of spans is lost; one line in so many seconds says so.
SPANS_LOG_S = 60.0

Logger = structlog.typing.FilteringBoundLogger


def new_logger(stream: TextIO = sys.stderr) -> Logger:
    """Make a logger that writes to `stream`, without ever waiting for it or failing with it."""
    writer = LineWriter(stream)
    atexit.register(writer.close)
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    )
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(writer),  # type: ignore[arg-type]  # write and flush are all that it calls
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),  # Verbosity says how much of it
        cache_logger_on_first_use=False,
    )
    return logger


class Verbosity:
    """How much is logged, from `least` on; it may change at any moment.

    `configured` tells what the configuration in force says, and `chosen` stands in for it once somebody chose.
    """

    def __init__(self, configured: Callable[[], str]) -> None:
        self._configured = configured
        self.chosen: str | None = None

    @property
    def least(self) -> str:
        """The level of the lines that are just written."""
        return self.chosen or self._configured()

    def applied_to(self, log: Logger) -> Logger:
        """Give a logger that writes to another one what is worth it."""
        logger: Logger = structlog.wrap_logger(
            log,
            processors=[self._pass],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
            cache_logger_on_first_use=False,
        )
        return logger

    def _pass(self, _: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if NAME_TO_LEVEL[method] < NAME_TO_LEVEL[self.least]:
            raise structlog.DropEvent
        return event


class Reporter(Telemetry):
    """Writes events into the log and counts them in the metrics."""

    def __init__(self, metrics: Metrics, log: Logger, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._store_logged_s = -STORE_LOG_S
        self._spans_logged_s = -SPANS_LOG_S
        self._blind = False
        self._store_away = True
        self._config_mistakes: Sequence[str] = ()  # of the files, while they are wrong
        self._keys: dict[str, int | None] = {}  # how many keys an issuer gave last, None while it gives none
        self._servers: dict[Address, Server] = {}  # one, or one for each node that has shards

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:  # noqa: ARG002
        """Count every decision; the lines about them are DecisionLog's."""
        self._metrics.decided(decision, seconds)

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log a failure of our own. Its text is ours: values of requests do not get into exceptions."""
        self._metrics.failures.labels(where).inc()
        self._log.error("failed", where=where, exc_info=error)

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Count an ending; log spend that could not be booked."""
        self._metrics.ended(how, signal, ending)
        if ending is Ending.FORGOTTEN:
            self._log.error("a settlement came too late to be booked", how=how, signal=signal)

    def usage_absurd(self, model: str, fields: Sequence[str]) -> None:
        """Count and log usage that had to be put right."""
        for field in fields:
            self._metrics.usage_absurd.labels(field).inc()
        self._log.warning("the upstream reported absurd usage", model=model, fields=list(fields))

    def free_answer_paid(self, asked: str, answered: str | None) -> None:
        """Count and log a free model's request that a paid one answered."""
        self._metrics.free_answers_paid.inc()
        self._log.warning("a request for a free model was answered by a paid one", model=asked, answered=answered)

    def hold_rejected(self) -> None:
        """Count and log a hold without a valid signature."""
        self._metrics.holds_rejected.inc()
        self._log.warning("a hold without a valid signature was ignored")

    def store_answered(self, verb: str, seconds: float) -> None:
        """Time a verb."""
        self._metrics.store_answered(verb, seconds)

    def store_failed(self, verb: str, error: StoreUnavailableError) -> None:
        """Count a verb that the store did not answer, and log one of them now and then."""
        self._metrics.store_errors.labels(verb).inc()
        now_s = self._clock_s()
        if now_s - self._store_logged_s >= STORE_LOG_S:
            self._store_logged_s = now_s
            self._log.error("the store did not answer", verb=verb, reason=str(error))

    def endings_waiting(self, count: int) -> None:
        """Show how many endings wait for the store."""
        self._metrics.endings_waiting.set(count)

    def ending_lost(self, how: State, signal: Signal) -> None:
        """Count an ending that was not kept."""
        self._metrics.endings_lost.labels(how, signal).inc()

    def changed_by_hand(
        self, what: str, subject: str, who: str, amount: int | None = None, measure: Measure = Measure.USD
    ) -> None:
        """Log who changed what."""
        name = "amount_usd" if measure is Measure.USD else f"amount_{measure}"
        amounts = {name: None if amount is None else amount_text(amount, measure)}
        self._log.info("changed by hand", what=what, subject=subject, who=who, **amounts)

    def audited(self, audit: Audit | None) -> None:
        """Show how far the books are from what explains them, and log that they are wrong."""
        self._metrics.audit_drift.set(0 if audit is None else float(usd(audit.drift_nanousd)))
        if audit is not None and not audit.ok:
            self._log.error(
                "the books are wrong: `extauthz audit` shows where, and `extauthz audit --rebuild` puts them right",
                drift_usd=usd_text(audit.drift_nanousd),
                drifts=len(audit.drifts),
            )

    def settlement_blind(self, *, blind: bool) -> None:
        """Show and log whether settlement is blind."""
        self._metrics.settlement_blind.set(blind)
        if blind and not self._blind:
            self._log.error(
                "reservations end by their leases and no access log was heard of for minutes: the books are estimates; "
                "send Envoy's access logs here, or write on_expiry: charge"
            )
        self._blind = blind

    def spans_lost(self, count: int, reason: str) -> None:
        """Count spans that no collector took, and log it now and then."""
        self._metrics.spans_lost.inc(count)
        now_s = self._clock_s()
        if now_s - self._spans_logged_s >= SPANS_LOG_S:
            self._spans_logged_s = now_s
            self._log.warning("traces get nowhere", reason=reason)

    def store_lost(self, reason: str) -> None:
        """Show and log that the store is away."""
        self._store_away = True
        self._metrics.store_up.set(0)
        self._log.error("the store is away", reason=reason)

    def directory_asked(self, result: LookupResult, count: int) -> None:
        """Count payers who were looked for."""
        self._metrics.directory.lookups.labels(result).inc(count)

    def directory_fetched(self, seconds: float, entries: int) -> None:
        """Show that the directory answered."""
        self._metrics.directory.fetched(seconds, entries)

    def directory_lost(self, reason: str) -> None:
        """Show and log that the directory is away."""
        self._metrics.directory.up.set(0)
        self._log.error("the directory is away", reason=reason)

    def directory_seen(self) -> None:
        """Show and log that the directory is there."""
        self._metrics.directory.up.set(1)
        self._log.info("the directory is there")

    def directory_unreadable(self, who: str, reason: str) -> None:
        """Log whose record is wrong."""
        self._log.warning("the directory says what cannot be read", payer=who, reason=reason)

    def store_seen(self, server: Server) -> None:
        """Show how the store is, and log what is new or dangerous about it."""
        before = self._servers.get(server.address)
        self._servers[server.address] = server
        self._metrics.store_seen(server)
        if self._store_away:
            self._store_away = False
            self._log.info("the store is there", address=str(server.address), version=server.version)
        known = before if before is not None and before.run_id == server.run_id else None
        if not server.persistent and (known is None or known.persistent):
            self._log.warning("the store writes nothing to disk: a restart loses the books; set appendonly yes")
        if server.may_evict and (known is None or not known.may_evict):
            self._log.error(
                "the store throws keys away when its memory is full, and budgets with them: "
                "set maxmemory-policy noeviction",
                policy=server.maxmemory_policy,
            )
        if known is not None and server.evicted > known.evicted:
            self._log.error("the store has thrown keys away: the books may be wrong", count=server.evicted)

    def store_replayed(self, count: int, lost: int) -> None:
        """Count and log what a store that started anew was told."""
        self._metrics.store_replayed.inc(lost)
        self._log.warning("the store started anew and was told the last seconds", told=count, forgotten=lost)

    def config_loaded(
        self, loaded_ms: int, *, changed: Sequence[str], waiting: Sequence[str], notices: Sequence[str]
    ) -> None:
        """Count a reload, and log in which sections the files differ from before, never what they say."""
        self._metrics.config_reloads.labels("loaded").inc()
        self._metrics.config_loaded.set(loaded_ms / 1000)
        self._metrics.config_reload_failed.set(0)
        self._config_mistakes = ()
        self._log.info("the configuration was loaded", changed=list(changed), notices=list(notices))
        if waiting:
            self._log.warning("settings wait for a restart, and stay as they are until then", settings=list(waiting))

    def config_refused(self, mistakes: Sequence[str]) -> None:
        """Count and show that the files are wrong, and log the same mistakes once."""
        self._metrics.config_reloads.labels("refused").inc()
        self._metrics.config_reload_failed.set(1)
        if mistakes != self._config_mistakes:
            self._log.error("the configuration was refused, and the one before stays", mistakes=list(mistakes))
        self._config_mistakes = mistakes

    def keys_fetched(self, issuer: str, count: int) -> None:
        """Count and show that an issuer gave its keys; log it when that is new."""
        self._metrics.keys_fetched(issuer)
        if self._keys.get(issuer) != count:
            self._log.info("the issuer's keys are there", issuer=issuer, keys=count)
        self._keys[issuer] = count

    def keys_missed(self, issuer: str, reason: str) -> None:
        """Count that an issuer gave no keys; log it once until it does."""
        self._metrics.key_fetches.labels(issuer, "missed").inc()
        if issuer not in self._keys or self._keys[issuer] is not None:
            self._log.error("an issuer's keys could not be fetched", issuer=issuer, reason=reason)
        self._keys[issuer] = None

    def config_unchanged(self) -> None:
        """Count a look that found nothing new; log that files that were wrong are right again."""
        self._metrics.config_reloads.labels("unchanged").inc()
        self._metrics.config_reload_failed.set(0)
        if self._config_mistakes:
            self._log.info("the files of the configuration are right again, and say what is in force")
        self._config_mistakes = ()

    def config_unwatched(self, reason: str, poll_s: float) -> None:
        """Log that changes are noticed late."""
        self._log.warning("folders of the configuration cannot be watched", reason=reason, looked_at_every_s=poll_s)

    def alerted(self, alert: Alert) -> None:
        """Count and log a threshold that a budget crossed."""
        self._metrics.budget_alerts.labels(alert.threshold.kind).inc()
        self._log.warning("a budget crossed a threshold", **alert.fields())

    def alert_delivered(self, delivery: Delivery, host: str, reason: str) -> None:
        """Count an alert that was on its way to the webhook; log one that did not get there."""
        self._metrics.webhooks.labels(delivery).inc()
        if delivery is not Delivery.SENT:
            self._log.error("an alert did not get to the webhook", result=delivery, host=host, reason=reason)
