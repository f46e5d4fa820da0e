"""The HTTP port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps the process alive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Counter
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ledger
from extauthz.telemetry.metrics import BUDGETS_MAX, Metrics

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def application(
    ledger: Ledger, snapshot: Callable[[], Snapshot], metrics: Metrics, ready: Callable[[], bool]
) -> web.Application:
    """Make the application. `ready` says whether this process takes requests; the store has no part in that."""

    async def show_metrics(_: web.Request) -> web.Response:
        with suppress(StoreUnavailableError):  # what this process counts itself is worth showing all the same
            await _refresh(ledger, snapshot(), metrics)
        return web.Response(body=metrics.text(), headers={"content-type": METRICS_CONTENT_TYPE})

    async def show_health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def show_readiness(request: web.Request) -> web.Response:
        text = "ready\n" if ready() else "draining\n"
        if "verbose" in request.query:
            text += f"store {'up' if ledger.up() else 'away'}\n"
        return web.Response(status=200 if ready() else 503, text=text)

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", show_metrics),
            web.get("/healthz", show_health),
            web.get("/readyz", show_readiness),
        ]
    )
    return app


async def _refresh(ledger: Ledger, config: Snapshot, metrics: Metrics) -> None:
    """Read the books for one scrape: the budgets most spent, then those that nobody has used yet."""
    metrics.reservations_open.set(await ledger.open_count())
    balances = await ledger.balances(BUDGETS_MAX)
    directory = config.directory
    scopes = dict.fromkeys([*(balance.counter.scope for balance in balances), *directory.budgeted()])
    now_ms = ledger.now_ms()
    limits = [
        (Counter(scope, budget.rule.at(now_ms)), budget.limit_nanousd)
        for scope in scopes
        for budget in directory.budgets_on(scope)
    ]
    metrics.set_standings(await ledger.standings(limits[:BUDGETS_MAX]), hidden=max(0, len(limits) - BUDGETS_MAX))
