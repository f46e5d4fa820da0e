"""A server in the test's own process whose decisions are explained, made, and watched, with its books at hand."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import grpc
import grpc.aio

from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz._proto.extauthz.diagnostics.v1.diagnostics_pb2_grpc import DiagnosticsStub
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope
from extauthz.domain.money import limit_nanousd, usd
from extauthz.domain.prices import ZERO, Estimate, Prices
from extauthz.domain.reservation import Claim, Hold, Lease
from extauthz.ledger.base import Amendment, AmendmentKind, Ledger, OpenReservation, Reserve, Reserved
from extauthz.ledger.memory import MemoryLedger
from extauthz.server import running
from extauthz.telemetry.log import new_logger
from tests.support.ledger import redis_ledger
from tests.support.processes import LOOPBACK
from tests.support.recorded import HELD, SPENT, configured
from tests.support.stack import Metrics

RESERVATIONS_MAX = 1_000
HOUR_MS = 3_600_000

Amounts = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class House:
    """A running server: its ports, its configuration and its books."""

    config: Snapshot
    gate: grpc.aio.Channel
    admin: grpc.aio.Channel
    admin_port: int
    http_port: int
    books: Ledger

    @property
    def diagnostics(self) -> Any:  # noqa: ANN401 - generated stubs have no types
        """What operators call."""
        return DiagnosticsStub(self.admin)

    async def explain(self, request: CheckRequest) -> messages.ExplainResponse:
        """Ask what a Check would get."""
        return await self.explained(check=request)

    async def explained(self, **request: Any) -> messages.ExplainResponse:  # noqa: ANN401 - the fields of ExplainRequest
        """Ask in the form of ExplainRequest."""
        answer: messages.ExplainResponse = await self.diagnostics.Explain(messages.ExplainRequest(**request))
        return answer

    async def check(self, request: CheckRequest) -> CheckResponse | None:
        """Ask as Envoy does; None when it is left to Envoy."""
        call = AuthorizationStub(self.gate).Check(request)
        if await call.code() is grpc.StatusCode.UNAVAILABLE:
            return None
        answer: CheckResponse = await call
        return answer

    @asynccontextmanager
    async def watching(self, **wanted: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - as above
        """Watch decisions inside the block, from its beginning on."""
        call = self.diagnostics.WatchDecisions(messages.WatchDecisionsRequest(**wanted))
        await call.initial_metadata()
        try:
            yield aiter(call)
        finally:
            call.cancel()

    async def watchers(self) -> int:
        """Count those who watch, by the metrics."""
        url = f"http://{LOOPBACK}:{self.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return int(Metrics(await answer.text()).value("extauthz_watchers"))

    async def open(self) -> dict[str, Amounts]:
        """List what each open reservation holds, in USD by scope and window."""
        return {held.id: amounts_of(held) for held in await self.books.reservations(RESERVATIONS_MAX)}

    async def fill(self) -> None:
        """Write what was spent and what is held before the test."""
        for place, amount in SPENT.items():
            amendment = Amendment(
                str(place), AmendmentKind.IMPORT, self._counter(*place), limit_nanousd(amount), "test"
            )
            assert await self.books.amend(amendment)
        for place, amount in HELD.items():
            counter = self._counter(*place)
            hold = Hold(
                str(place), self.books.now_ms(), (counter,), "m", Prices(ZERO, ZERO), Estimate(0, 0, 0, 0), False
            )
            claim = Claim(counter, None, limit_nanousd(amount))
            reserved = await self.books.reserve(Reserve(hold, "test", (claim,), Lease(HOUR_MS, NOTHING_SPENT)))
            assert isinstance(reserved, Reserved)

    def _counter(self, scope_text: str, window: str) -> Counter:
        scope = Scope.parse(scope_text)
        now_ms = self.books.now_ms()
        windows = (budget.rule.at(now_ms) for budget in self.config.directory.budgets_on(scope))
        return Counter(scope, next(each for each in windows if each.name == window))


@asynccontextmanager
async def a_house(folder: Path, name: str, store: str = "memory", *, more: str = "") -> AsyncIterator[House]:
    """Serve a recorded configuration inside the block, with lines `more` under `extauthz`, and nothing in its books."""
    path = folder / f"{name}.yaml"
    path.write_text(configured(name, store) + more, encoding="utf-8")
    config = load(path, {})
    memory: list[MemoryLedger] = []

    def remembered(clock_ms: Callable[[], int], signing_key: bytes) -> MemoryLedger:
        memory.append(MemoryLedger(clock_ms, signing_key))
        return memory[-1]

    async with AsyncExitStack() as stack:
        stack.enter_context(patch("extauthz.stores.MemoryLedger", remembered))
        ports = await stack.enter_async_context(running(config, new_logger(io.StringIO())))
        gate = await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}"))
        admin = await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.admin}"))
        if memory:
            yield House(config, gate, admin, ports.admin, ports.http, memory[0])
            return
        url, _, tag = store.partition("?tag=")
        books = await stack.enter_async_context(redis_ledger(url, tag=tag))
        yield House(config, gate, admin, ports.admin, ports.http, books)


def amounts_of(held: OpenReservation) -> Amounts:
    """Give what a reservation holds, in USD by scope and window."""
    return {(counter.scope.text, counter.window.name): float(usd(amount)) for counter, amount in held.amounts}


def asked_to_hold(answer: messages.ExplainResponse) -> Amounts:
    """Give what an explanation says that the request will hold: all of it, or what a budget that binds leaves."""
    shadow = answer.decision.decision == "shadow_deny"
    return {
        (row.scope, row.window): min(row.asked_usd, row.available_usd) if row.binds and not shadow else row.asked_usd
        for row in answer.scopes
        if row.asked_usd
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client, or Envoy, sees of a decision; the moments that depend on the clock apart."""

    passed: bool
    reason: str
    status: int = 0
    type: str = ""
    message: str = ""
    models: str = ""
    answered: tuple[str, ...] = ()
    available_usd: float | None = None
    retry_after_s: int = 0


def seen_in(answer: CheckResponse | None) -> Seen:
    """Read the answer of a Check."""
    if answer is None:
        return Seen(passed=False, reason="store_unavailable")
    reason = str(answer.dynamic_metadata["extauthz.reason"])
    if answer.HasField("ok_response"):
        ok = answer.ok_response
        told = {each.header.key: each.header.value for each in (*ok.headers, *ok.response_headers_to_add)}
        available = told.get("x-extauthz-available-usd")
        return Seen(
            passed=True,
            reason=reason,
            models=told.get("x-extauthz-models", ""),
            available_usd=None if available is None else float(available),
        )
    refusal = answer.denied_response
    told = {each.header.key: each.header.value for each in refusal.headers}
    body = json.loads(refusal.body)
    if refusal.status.code == 200:
        return Seen(passed=False, reason=reason, answered=tuple(entry["id"] for entry in body["data"]))
    return Seen(
        passed=False,
        reason=reason,
        status=refusal.status.code,
        type=body["error"]["type"],
        message=body["error"]["message"],
        retry_after_s=int(told.get("retry-after", 0)),
    )


def seen_of(decision: messages.Decision, *, hide_amounts: bool) -> Seen:
    """Tell what a decision that is carried out looks like."""
    shown = decision.HasField("available_usd") and not hide_amounts
    return Seen(
        passed=decision.decision == "allow" and not decision.answered_models,
        reason=decision.reason,
        status=decision.status,
        type=decision.type,
        message=decision.message,
        models=decision.models,
        answered=tuple(decision.answered_models),
        available_usd=decision.available_usd if shown else None,
        retry_after_s=decision.retry_after_seconds,
    )
