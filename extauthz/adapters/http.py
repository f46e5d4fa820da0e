"""The HTTP port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps the process alive."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from extauthz.ledger.base import Ledger
from extauthz.survey import Survey, Surveyor, Totals
from extauthz.telemetry.metrics import BUDGETS_MAX, Metrics

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def application(ledger: Ledger, surveyor: Surveyor, metrics: Metrics, ready: Callable[[], bool]) -> web.Application:
    """Make the application. `ready` says whether this process takes requests; the store has no part in that."""

    async def show_metrics(_: web.Request) -> web.Response:
        _show(await surveyor.fresh(), metrics)
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


def _show(survey: Survey, metrics: Metrics) -> None:
    """Show a survey: each of the budgets that are nearest to their limit, and the others together."""
    shown = survey.budgets[:BUDGETS_MAX]
    rest = survey.totals - Totals.of(shown)
    metrics.set_reservations(survey.reservations_open, survey.held, survey.taken_ms)
    metrics.set_standings(
        (surveyed.standing for surveyed in shown),
        hidden=len(survey.budgets) - len(shown) + survey.left_out,
        rest_nanousd={"limit": rest.limit, "spent": rest.spent, "held": rest.held},
    )
