"""Structured logs on standard error: one JSON line per event, or readable lines on a terminal."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from typing import TextIO

import structlog

from extauthz.domain.reservation import State
from extauthz.domain.verdict import Decision, Defer, Deny
from extauthz.ledger.base import Ending
from extauthz.telemetry.events import Signal, Telemetry
from extauthz.telemetry.lines import LineWriter
from extauthz.telemetry.metrics import Metrics

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

    def __init__(self, metrics: Metrics, log: Logger) -> None:
        self._metrics = metrics
        self._log = log

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

    def store_failed(self, verb: str) -> None:
        """Count and log a verb that the store did not answer."""
        self._metrics.store_errors.labels(verb).inc()
        self._log.error("the store did not answer", verb=verb)
