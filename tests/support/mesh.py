"""A proxy of a mesh between the scripted upstream and the server, all as the chart configures them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO

import aiohttp
import openai
import pytest

from extauthz.envoy.bootstrap import Document
from tests.support.chart import Json, Rendered, render
from tests.support.envoy import EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import LOOPBACK, eventually
from tests.support.stack import GateProcess, Stack
from tests.support.stage import Exchange, Performance, Stage
from tests.support.upstream import MODELS, PLAY_HEADER, ScriptedUpstream

TYPE = "type.googleapis.com/envoy"

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
async def mesh(values: Callable[[int], Json], proxy: Proxy, version: EnvoyVersion) -> AsyncIterator[Stack]:
    """Run it around the block: the server with the chart's ConfigMap, Envoy with what `proxy` makes of the chart.

    `values` are given the upstream's port.
    """
    async with AsyncExitStack() as running:
        upstream = await running.enter_async_context(ScriptedUpstream())
        chart = render(values(upstream.port))
        config = chart.one("ConfigMap")["data"]["config.yaml"]
        gate = await running.enter_async_context(GateProcess(config, environment=ENVIRONMENT))
        options = options_for(upstream.port, gate.grpc_port)
        places = Places(options.listen.port, options.envoy_admin.port, upstream.port, gate.grpc_port)
        envoy = EnvoyProcess(options, version, lambda _: proxy(chart, places))
        await running.enter_async_context(envoy)
        yield Stack(upstream, gate, envoy)


async def seen(values: Json, proxy: Proxy, version: EnvoyVersion) -> tuple[Performance, Performance]:
    """Send two requests with forged control headers through a proxy before a stage, and give what was seen of them."""
    forged = (("x-extauthz-id", "mine"), ("X-Extauthz-Id", "too"), ("x-extauthz-models", "all"))
    exchange = Exchange((b"{}",), request_headers=forged)
    async with Stage() as stage:
        options = options_for(stage.upstream_port, stage.extauthz_port)
        places = Places(options.listen.port, options.envoy_admin.port, stage.upstream_port, stage.extauthz_port)
        async with EnvoyProcess(options, version, lambda _: proxy(render(values), places)) as envoy:
            first = await stage.perform(envoy.url, exchange)
            second = await stage.perform(envoy.url, exchange)
            await first.usage()
            await second.usage()
    return first, second


def cluster(name: str, port: int) -> Json:
    """Write a cluster of one endpoint on loopback."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def grpc_cluster(name: str, port: int) -> Json:
    """Write the same for gRPC."""
    options = {
        "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    protocol = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return {**cluster(name, port), "typed_extension_protocol_options": protocol}


def address(port: int) -> Json:
    """Write a port on loopback."""
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


async def play(stack: Stack) -> None:
    """Play the story: an exhausted team gets 429 and the free models, a rich one is booked what its answers used."""
    async with stack.openai(BROKE) as broke, stack.openai(RICH) as rich:
        with pytest.raises(openai.RateLimitError) as refused:
            await broke.chat.completions.create(model=PAID, messages=HELLO)
        assert "budget_exceeded" == refused.value.response.json()["error"]["type"]
        assert [FREE] == [model.id async for model in broke.models.list()]
        assert list(MODELS) == [model.id async for model in rich.models.list()]
        await broke.chat.completions.create(model=FREE, messages=HELLO)

        before = (await stack.settled()).spent[BUDGET]
        answer = await rich.chat.completions.with_raw_response.create(model=PAID, messages=HELLO)
        stream = await rich.chat.completions.create(model=PAID, messages=HELLO, stream=True)
        assert [chunk async for chunk in stream]
        metrics = await stack.settled()

    # Twice 10 tokens in and 20 out, as the upstream reported them, of the stream because the meter asked for it.
    assert 2 * COST == metrics.spent[BUDGET] - before
    assert 0 == metrics.held[BUDGET]
    assert "x-extauthz-available-usd" in answer.headers


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
