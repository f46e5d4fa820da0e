"""A proxy of a mesh between the scripted upstream and the server, all as the chart configures them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO

import aiohttp

from extauthz.envoy.bootstrap import Document
from tests.support.chart import Json, Rendered, render
from tests.support.envoy import EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import eventually
from tests.support.stack import GateProcess, Stack
from tests.support.upstream import PLAY_HEADER, ScriptedUpstream

PAID, FREE = "gpt-4o", "local-llama"
BROKE, RICH = "sk-broke", "sk-rich"
LEASE_SECONDS = 2
BUDGET = ("team:rich", "lifetime")
# Of an answer with 10 tokens in and 20 out, in nano-USD.
COST = 10 * 2_500 + 20 * 10_000
REQUEST: Json = {"model": PAID, "messages": [{"role": "user", "content": "Hello."}]}
HELLO = REQUEST["messages"]
RENEWALS = ("extauthz_store_duration_seconds_count", "renew")

ENVIRONMENT = {"BROKE": BROKE, "RICH": RICH}

# What a team needs to try everything: an exhausted budget, and one that is not.
CONFIG: Json = {
    "model_list": [
        {
            "model_name": PAID,
            "litellm_params": {
                "model": "openai/gpt-4o",
                "input_cost_per_token": 0.0000025,
                "output_cost_per_token": 0.00001,
            },
        },
        {
            "model_name": FREE,
            "litellm_params": {"model": "openai/llama", "input_cost_per_token": 0, "output_cost_per_token": 0},
        },
    ],
    "general_settings": {"budget_exceeded_models_policy": "free_only"},
    "extauthz": {
        "lease_seconds": LEASE_SECONDS,
        "teams": {"broke": {"max_budget": 0.0}, "rich": {"max_budget": 100}},
        "keys": [{"key": f"os.environ/{name}", "team": team} for name, team in (("BROKE", "broke"), ("RICH", "rich"))],
    },
}


@dataclass(frozen=True, slots=True)
class Places:
    """The ports on loopback that a proxy's configuration is made of."""

    listen: int
    admin: int
    upstream: int
    extauthz: int


Proxy = Callable[[Rendered, Places], Document]


@asynccontextmanager
async def mesh(
    values: Callable[[int], Json],
    proxy: Proxy,
    version: EnvoyVersion,
    *,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """Run it around the block: the server with the chart's ConfigMap, Envoy with what `proxy` makes of the chart.

    `values` are given the upstream's port.
    """
    async with AsyncExitStack() as running:
        upstream = await running.enter_async_context(ScriptedUpstream())
        chart = render(values(upstream.port))
        config = chart.one("ConfigMap")["data"]["config.yaml"]
        gate = await running.enter_async_context(
            GateProcess(config, environment={**ENVIRONMENT, **(environment or {})})
        )
        options = options_for(upstream.port, gate.grpc_port)
        places = Places(options.listen.port, options.envoy_admin.port, upstream.port, gate.grpc_port)
        envoy = EnvoyProcess(options, version, lambda _: proxy(chart, places), environment=environment)
        await running.enter_async_context(envoy)
        yield Stack(upstream, gate, envoy)


async def ask(
    stack: Stack, path: str, headers: Mapping[str, str], *, body: bytes | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """Send a plain request as the rich team, unless `headers` say otherwise; give status, headers and body."""
    sent = {"authorization": f"Bearer {RICH}", "content-type": "application/json", **headers}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, stack.url + path, headers=sent, data=None if body is None else BytesIO(body)) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def outlived(stack: Stack) -> None:
    """Keep a stream that stands still open for longer than its lease, see that its money stays held, and leave."""
    async with stack.openai(RICH) as rich:
        stream = await rich.chat.completions.create(
            model=PAID, messages=HELLO, stream=True, extra_headers={PLAY_HEADER: "stalls"}
        )
        await anext(aiter(stream))
        before = await stack.gate.metrics()

        async def renewed() -> bool:
            metrics = await stack.gate.metrics()
            # There are four signs of life in a lease.
            return metrics.value(*RENEWALS) - before.value(*RENEWALS) > 4

        await eventually(renewed, what="the lease was renewed more often than it lasts")
        assert 1 == (await stack.gate.metrics()).open
        await stream.close()
