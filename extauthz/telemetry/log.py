"""Structured logs on standard error: one JSON line per event, or readable lines on a terminal."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import structlog

from extauthz.domain.address import Address
from extauthz.domain.reservation import Signal, State
from extauthz.domain.verdict import Decision, Defer, Deny
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ending
from extauthz.ledger.link import Server
from extauthz.telemetry.events import Telemetry
from extauthz.telemetry.lines import LineWriter
from extauthz.telemetry.metrics import Metrics

# While a store is away each request fails; one line in so many seconds says so.
STORE_LOG_S = 10.0

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
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        cache_logger_on_first_use=False,
    )
    return logger


class Reporter(Telemetry):
    """Writes events into the log and counts them in the metrics."""

    def __init__(self, metrics: Metrics, log: Logger, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._store_logged_s = -STORE_LOG_S
        self._blind = False
        self._store_away = True
        self._servers: dict[Address, Server] = {}  # one, or one for each node that has shards

    def decided(self, decision: Decision, seconds: float) -> None:
        """Count every decision; log refusals."""
        self._metrics.decided(decision, seconds)
        match decision.verdict:
            case Deny(reason=reason, status=status, scope=scope):
                self._log.info(
                    "denied",
                    reason=reason,
                    status=status,
                    scope=scope,
                    principal=decision.principal,
                    model=decision.entry,
                    route_class=decision.route_class,
                )
            case Defer(reason):
                self._log.warning("deferred to Envoy", reason=reason, principal=decision.principal)
            case _:
                pass

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

    def hold_rejected(self) -> None:
        """Count and log a hold without a valid signature."""
        self._metrics.holds_rejected.inc()
        self._log.warning("a hold without a valid signature was ignored")

    def store_answered(self, verb: str, seconds: float) -> None:
        """Time a verb."""
        self._metrics.store_seconds.labels(verb).observe(seconds)

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

    def settlement_blind(self, *, blind: bool) -> None:
        """Show and log whether settlement is blind."""
        self._metrics.settlement_blind.set(blind)
        if blind and not self._blind:
            self._log.error(
                "reservations end by their leases and no access log was heard of for minutes: the books are estimates; "
                "send Envoy's access logs here, or write on_expiry: charge"
            )
        self._blind = blind

    def store_lost(self, reason: str) -> None:
        """Show and log that the store is away."""
        self._store_away = True
        self._metrics.store_up.set(0)
        self._log.error("the store is away", reason=reason)

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
