"""A budget on its way to its end: who is told, through real servers and a real store."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc.aio
import pytest

from extauthz import survey as survey_module
from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.alerts import Alerts
from extauthz.config.load import load
from extauthz.domain.budgets import Budget, Counter
from extauthz.domain.payers import Accounts, Team
from extauthz.domain.thresholds import Alert
from extauthz.domain.windows import WindowRule
from extauthz.ledger.base import Amendment, AmendmentKind
from extauthz.server import running
from extauthz.survey import Surveyor
from extauthz.telemetry.log import new_logger
from tests.support.gate import a_check, an_ending
from tests.support.ledger import redis_ledger
from tests.support.processes import LOOPBACK, eventually
from tests.support.receiver import SECRET_PATH, Receiver
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.stack import Metrics
from tests.support.surveyed import FOREVER, a_configuration, a_scope, spend
from tests.support.witness import Witness

TEAM = Counter(a_scope("team:research"), FOREVER)
REPLICAS = 3

# Each answer costs 0.000225 USD.
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
extauthz:
  listen: {{grpc: "127.0.0.1:0", admin: "127.0.0.1:0", http: "127.0.0.1:0"}}
  drain_seconds: 0
  hide_amounts: {hide}
  teams: {{research: {{max_budget: 0.001, budget_duration: 1mo}}}}
  keys: [{{key: sk-team, team: research}}]
  alerts: {{webhook: {{url: "{url}"}}}}
"""


@pytest.mark.redis
@pytest.mark.parametrize("version", REDIS_VERSIONS, ids=lambda version: version.name)
async def test_one_replica_tells_for_all(version: RedisVersion) -> None:
    """Of several replicas on one Redis that see the same at the same time exactly one tells, also after a reset."""
    configuration = a_configuration(Accounts(teams={"research": Team((Budget(100, WindowRule()),))}))
    sent: list[Alert] = []
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(RedisServer(version))
        ledgers = [
            await stack.enter_async_context(redis_ledger(server.url, tag="alerts-of-replicas")) for _ in range(REPLICAS)
        ]
        replicas = [
            (Surveyor(ledger, configuration, lambda: 0.0), Alerts(ledger, configuration, Witness(), sent.append))
            for ledger in ledgers
        ]

        async def look(surveyor: Surveyor, alerts: Alerts) -> None:
            await alerts.consider(await surveyor.survey())

        async def told() -> list[str]:
            sent.clear()
            for _ in range(2):
                await asyncio.gather(*(look(surveyor, alerts) for surveyor, alerts in replicas))
            return [str(alert.threshold) for alert in sent]

        await spend(ledgers[0], TEAM, 85)
        first = await told()
        await ledgers[1].amend(Amendment("reset", AmendmentKind.RESET, TEAM, None, "test"))
        reset = await told()
        await spend(ledgers[0], TEAM, 100)
        again = await told()

    assert (["80%"], [], ["100%"]) == (first, reset, again)


@dataclass(frozen=True, slots=True)
class House:
    """A server in this process, what it logs, and Envoy's two connections to it."""

    check: AuthorizationStub
    logs: AccessLogServiceStub
    lines: io.StringIO
    http_port: int

    async def answered(self) -> dict[str, str]:
        """Let a request be answered and settled, and give the headers that its answer gets of us."""
        answer: CheckResponse = await self.check.Check(a_check())
        assert 0 == answer.status.code, answer
        stream = self.logs.StreamAccessLogs()
        await stream.write(an_ending(answer, input_tokens=10, output_tokens=20))
        await stream.done_writing()
        assert grpc.StatusCode.OK == await stream.code()
        return {header.header.key: header.header.value for header in answer.ok_response.response_headers_to_add}

    async def count(self, name: str, label: str) -> float:
        """Give one of the server's counters."""
        url = f"http://{LOOPBACK}:{self.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as page:
            return Metrics(await page.text()).value(name, label)

    @property
    def alerts(self) -> list[dict[str, object]]:
        """The lines of the log about thresholds."""
        lines = [json.loads(line) for line in self.lines.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "a budget crossed a threshold"]


@asynccontextmanager
async def serving(folder: Path, receiver: Receiver, *, hide: bool) -> AsyncIterator[House]:
    """Serve inside the block."""
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(url=receiver.url, hide=str(hide).lower()), encoding="utf-8")
    lines = io.StringIO()
    async with (
        running(load(config, {}), new_logger(lines)) as ports,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}") as channel,
    ):
        yield House(AuthorizationStub(channel), AccessLogServiceStub(channel), lines, ports.http)


@pytest.mark.parametrize("hide", [False, True], ids=["amounts", "no amounts"])
async def test_from_the_first_request_to_the_alert(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hide: bool,  # noqa: FBT001 - a column
) -> None:
    """Requests that spend 90 % lead to one alert in log and webhook, and to a header on answers from then on."""
    monkeypatch.setattr(survey_module, "INTERVAL_S", 0.05)
    async with Receiver() as receiver, serving(tmp_path, receiver, hide=hide) as house:
        before = [await house.answered() for _ in range(3)]
        assert [] == receiver.bodies
        before.append(await house.answered())
        await eventually(lambda: receiver.bodies, what="the webhook is called")
        after = await house.answered()
        await eventually(lambda: len(receiver.bodies) > 1, what="the webhook is called for 100 %")
        counted = [
            *[await house.count("extauthz_budget_alerts_total", kind) for kind in ("percentage", "soft")],
            *[await house.count("extauthz_webhooks_total", result) for result in ("failed", "dropped")],
        ]

        async def sent() -> bool:
            return await house.count("extauthz_webhooks_total", "sent") == 2

        await eventually(sent, what="both are counted")

    warning = f"team:research 1mo {'near its limit' if hide else '90% used'}"
    assert [None] * 4 == [headers.get("x-extauthz-warning") for headers in before]
    assert warning == after["x-extauthz-warning"]
    assert [(80, 90), (100, 112)] == [(body["threshold_percent"], body["used_percent"]) for body in receiver.bodies]
    assert {"team:research"} == {body["scope"] for body in receiver.bodies}
    assert [80, 100] == [line["threshold_percent"] for line in house.alerts]
    told = [*receiver.bodies, *house.alerts]
    assert [not hide] * 4 == ["limit_usd" in one and "spent_usd" in one for one in told]
    assert [2, 0, 0, 0] == counted
    assert not any(part in house.lines.getvalue() for part in SECRET_PATH.split("/") if part)
    assert "sk-team" not in house.lines.getvalue()
