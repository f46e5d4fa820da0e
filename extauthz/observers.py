"""All who hear of what a server does: metrics, logs, traces, and those whom operators ask."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from extauthz.config.snapshot import Snapshot
from extauthz.errors import ExtraMissingError
from extauthz.telemetry.decision_log import DecisionLog
from extauthz.telemetry.decisions import DecisionFeed
from extauthz.telemetry.events import Telemetry
from extauthz.telemetry.latencies import Latencies
from extauthz.telemetry.listeners import Listeners
from extauthz.telemetry.log import Logger, Reporter
from extauthz.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Observers:
    """Those who are asked afterwards, and `telemetry`, which tells all of them."""

    telemetry: Telemetry
    metrics: Metrics
    feed: DecisionFeed
    latencies: Latencies


@asynccontextmanager
async def observing(
    configuration: Callable[[], Snapshot], log: Logger, unix_ms: Callable[[], int]
) -> AsyncIterator[Observers]:
    """Give all who hear of what happens inside the block. Raises ExtraMissingError where traces cannot be made."""
    metrics = Metrics()
    reporter = Reporter(metrics, log)
    decision_log = DecisionLog(log, lambda: configuration().settings.log.allowed_share, random.random, time.monotonic)
    feed = DecisionFeed(unix_ms, random.random, metrics.watchers.set)
    latencies = Latencies()
    async with AsyncExitStack() as stack:
        stack.callback(decision_log.tell_left_out)
        listeners: list[Telemetry] = [reporter, decision_log, feed, latencies]
        if configuration().settings.tracing:
            listeners.append(await stack.enter_async_context(_traced(configuration, reporter)))
        yield Observers(Listeners(*listeners), metrics, feed, latencies)


@asynccontextmanager
async def _traced(configuration: Callable[[], Snapshot], reporter: Reporter) -> AsyncIterator[Telemetry]:
    try:
        from extauthz.telemetry.tracing import Tracing  # noqa: PLC0415 - needs the extra `tracing`
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            f"tracing is on, and {error.name} is missing: pip install 'extauthz[tracing]', or write tracing: false"
        ) from error
    tracing = Tracing(lambda: configuration().catalog, time.time_ns, reporter.spans_lost)
    try:
        yield tracing
    finally:
        await tracing.close()
