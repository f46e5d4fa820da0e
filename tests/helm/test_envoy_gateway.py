"""What the chart makes for Envoy Gateway: each policy strictly decoded, and what comes of them running in real Envoys.

The controller is not here; tests/support/envoy_gateway.py makes of the policies what it makes of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from copy import deepcopy

import lupa.luajit21 as luajit  # type: ignore[import-untyped]
import openai
import pytest
import pytest_asyncio
import yaml

from extauthz.demo import answers
from extauthz.envoy.bootstrap import meter_source
from tests.support.chart import NAMESPACE, ChartError, Json, Rendered, needs_helm, notes, render
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.envoy_gateway import BACKENDS, GATEWAY, MODELS_ROUTE, translated
from tests.support.mesh import (
    BROKE,
    BUDGET,
    CONFIG,
    COST,
    FREE,
    HELLO,
    PAID,
    REQUEST,
    RICH,
    ask,
    mesh,
    outlived,
    play,
    seen,
)
from tests.support.meshcheck import mistakes, needs_meshcheck
from tests.support.stack import Stack
from tests.support.upstream import PLAY_HEADER, chunks

pytestmark = [needs_helm, pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

HEARTBEATS: Json = {"heartbeats": {"enabled": True, "gateway": GATEWAY, "listeners": ["llm/llm/http"]}}
MODELS_TARGET = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": MODELS_ROUTE}
LONG_LEASE: Json = {**CONFIG, "extauthz": {**CONFIG["extauthz"], "lease_seconds": 900}}
EXPIRIES = ("extauthz_reservations_ended_total", "expired", "lease")
GROUPS = ("gateway.envoyproxy.io", "gateway.networking.k8s.io")


def values(gateway: Json, **others: Json) -> Json:
    """Give the values of a small release."""
    own = {"enabled": True, "namespace": GATEWAY, "checkTimeout": "10s"}
    return {"replicas": 1, "config": CONFIG, "envoyGateway": {**own, **gateway}, **others}


FULL = values({**HEARTBEATS, "discoveryTargetRefs": [MODELS_TARGET], "clientTrafficPolicy": {"enabled": True}})
# Nothing that an operator may have to say himself, or that the controller must be told to allow.
LEAST = values({}, config=LONG_LEASE)
SETTINGS = {"full": FULL, "least": LEAST}


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> str:
    """Name each way to install in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> EnvoyVersion:
    """Give each version of Envoy in turn."""
    version: EnvoyVersion = request.param
    return version


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(setting: str, version: EnvoyVersion) -> AsyncIterator[Stack]:
    """Run a Gateway's Envoy, as the chart's policies make it."""
    async with mesh(lambda _: SETTINGS[setting], translated, version) as stack:
        yield stack


async def test_the_story(stack: Stack) -> None:
    """An exhausted team gets 429 and the free models, and pays nothing; a rich one is booked what its answers used."""
    await play(stack)


async def test_where_the_pruned_list_comes_from(stack: Stack, setting: str) -> None:
    """On routes of model lists it is the upstream's own; elsewhere the server writes it alone."""
    before = len(stack.upstream.requests)
    async with stack.openai(BROKE) as broke:
        assert [FREE] == [model.id async for model in broke.models.list()]

    assert {"full": 1, "least": 0}[setting] == len(stack.upstream.requests) - before


async def test_a_client_that_leaves_pays_for_what_it_sent(stack: Stack) -> None:
    """A request that ends before its answer began is booked at its input, and holds nothing any more."""
    before = (await stack.gate.metrics()).spent[BUDGET]
    async with stack.openai(RICH) as rich:
        with pytest.raises(openai.APITimeoutError):
            await rich.with_options(timeout=0.5).chat.completions.create(
                model=PAID, messages=HELLO, stream=True, extra_headers={PLAY_HEADER: "hangs"}
            )
        metrics = await stack.settled()

    assert 0 < metrics.spent[BUDGET] - before < COST
    assert 0 == metrics.held[BUDGET]


async def test_a_large_body_is_checked_whole(stack: Stack) -> None:
    """A body up to max_request_bytes passes Envoy Gateway's small buffers; a larger one is 413."""
    sizes = (900 * 1024, 3 * 1024 * 1024)
    bodies = [json.dumps({**REQUEST, "messages": [{"role": "user", "content": "x" * size}]}) for size in sizes]
    statuses = [(await ask(stack, "/v1/chat/completions", {}, body=body.encode()))[0] for body in bodies]
    await stack.settled()

    assert [200, 413] == statuses


async def test_with_the_client_traffic_policy(version: EnvoyVersion) -> None:
    """The upstream gets no control header of a client's, model lists may be long, and a model's id may have a slash."""
    names = [f"open/model-{number}" for number in range(2000)]
    async with mesh(lambda _: FULL, translated, version) as stack:
        stack.upstream.plays["long"] = chunks(answers.to_bytes(answers.model_list(names)))
        forged = {"x-extauthz-id": "mine", "x-extauthz-models": "all"}
        status, _, _ = await ask(stack, "/v1/chat/completions", forged, body=json.dumps(REQUEST).encode())
        received = stack.upstream.requests[-1]
        long, _, body = await ask(stack, "/v1/models", {"authorization": f"Bearer {BROKE}", PLAY_HEADER: "long"})
        await ask(stack, "/v1/models/open%2Fmodel-1", {})
        escaped = stack.upstream.requests[-1]

    assert (200, 200) == (status, long)
    assert not [name for name, _ in received.headers if name.startswith("x-extauthz-")]
    assert [] == json.loads(body)["data"]
    assert "/v1/models/open%2Fmodel-1" == escaped.path


async def test_the_check_sees_envoys_own_id(version: EnvoyVersion) -> None:
    """The Check gets one id, Envoy's own and new each time, which the access log has as well; no forged header."""
    performances = await seen(FULL, translated, version)
    ids = [performance.seen_by_check("x-extauthz-id") for performance in performances]

    assert [1, 1] == [len(found) for found in ids]
    assert not {"mine", "too"} & {*ids[0], *ids[1]}
    assert ids[0] != ids[1]
    for performance, found in zip(performances, ids, strict=True):
        assert performance.ended is not None
        assert found == [performance.ended.request.request_headers["x-extauthz-id"]]
        assert [] == performance.seen_by_check("x-extauthz-models")


async def test_a_living_stream_outlives_its_lease(version: EnvoyVersion) -> None:
    """With heartbeats a stream's money stays held until the client leaves, and is settled then."""
    async with mesh(lambda _: FULL, translated, version) as stack:
        await outlived(stack)
        metrics = await stack.settled()

    assert 0 == metrics.value(*EXPIRIES)
    assert 0 == metrics.held[BUDGET]


# ------------------------------------------------------------------------------------------------ without a proxy


@needs_meshcheck
@pytest.mark.parametrize("setting", SETTINGS)
async def test_envoy_gateway_knows_every_field(setting: str) -> None:
    """All objects decode strictly into the types of Envoy Gateway's own API."""
    assert "" == mistakes(_of_gateway(render(SETTINGS[setting])))


@needs_meshcheck
async def test_a_field_that_envoy_gateway_does_not_know_is_seen() -> None:
    """A misspelt field is a mistake, not something to pass over."""
    policy = deepcopy(render(LEAST).one("SecurityPolicy"))
    policy["spec"]["extAuth"]["statusOnErrors"] = 503

    assert "statusOnErrors" in mistakes([policy])


async def test_the_meter_is_the_product_s_and_passes_the_controllers_check() -> None:
    """The controller writes a call of each handler behind a script and runs it: that must still be Lua."""
    (lua,) = render(LEAST).one("EnvoyExtensionPolicy")["spec"]["lua"]
    load = luajit.LuaRuntime().eval("loadstring")

    assert meter_source() == lua["inline"]
    for handler in ("envoy_on_request", "envoy_on_response"):
        script, mistake = load(f"{lua['inline']}\n{handler}(StreamHandle)"), None
        assert not isinstance(script, tuple), mistake


async def test_every_reference_across_namespaces_is_granted() -> None:
    """Policies stand where their targets do, and reach the Service by one grant; in one namespace none is needed."""
    chart = render(FULL)
    grant = chart.one("ReferenceGrant")
    kinds = {entry["kind"] for entry in chart.objects if "backendRefs" in json.dumps(entry)}

    assert NAMESPACE == grant["metadata"]["namespace"]
    assert {(GROUPS[0], kind, GATEWAY) for kind in kinds} == {
        (source["group"], source["kind"], source["namespace"]) for source in grant["spec"]["from"]
    }
    assert [{"group": "", "kind": "Service", "name": BACKENDS[0]["name"]}] == grant["spec"]["to"]
    assert BACKENDS[0]["name"] in [service["metadata"]["name"] for service in chart.of("Service")]
    assert [] == render({**LEAST, "envoyGateway": {**LEAST["envoyGateway"], "namespace": NAMESPACE}}).of(
        "ReferenceGrant"
    )


async def test_an_envoy_proxy_keeps_what_else_it_says() -> None:
    """The access log comes beside those of envoyProxy.spec, the order of filters beside the rest."""
    own = {"telemetry": {"accessLog": {"settings": [{"sinks": [{"type": "File", "file": {"path": "/dev/stdout"}}]}]}}}
    order = [{"name": "envoy.filters.http.ext_authz", "after": "envoy.filters.http.jwt_authn"}]
    spec = render(values({"envoyProxy": {"spec": own, "filterOrder": order}}, config=LONG_LEASE)).one("EnvoyProxy")[
        "spec"
    ]

    assert ["File", "ALS"] == [s["sinks"][0]["type"] for s in spec["telemetry"]["accessLog"]["settings"]]
    assert order == spec["filterOrder"]


@pytest.mark.parametrize(
    ("gateway", "others", "words"),
    [
        pytest.param({}, {}, "lease_seconds to 900", id="no heartbeats and a short lease"),
        pytest.param(
            {}, {"grpc": {"trust": "token", "token": {"existingSecret": "t"}}}, "cannot send a token", id="token"
        ),
        pytest.param({"targetRefs": []}, {}, "nothing is gated", id="no target"),
        pytest.param({"discoveryTargetRefs": [{**MODELS_TARGET, "kind": "Gateway"}]}, {}, "name HTTPRoutes", id="kind"),
        pytest.param({"heartbeats": {"enabled": True}}, {}, "NAMESPACE/GATEWAY/LISTENER", id="no listeners"),
        pytest.param(
            {"targetRefs": [MODELS_TARGET], "clientTrafficPolicy": {"enabled": True}, **HEARTBEATS},
            {},
            "belongs to Gateways",
            id="a policy of clients for a route",
        ),
        pytest.param({"checkTimeout": "0.5s"}, {}, "checkTimeout", id="a duration that Kubernetes does not read"),
        pytest.param({"targets": []}, {}, "targets", id="a misspelt value"),
    ],
)
async def test_impossible_values_are_refused(gateway: Json, others: Json, words: str) -> None:
    """What cannot work, or would leave the books or the port open, fails before anything is installed."""
    with pytest.raises(ChartError, match=words):
        render(values(gateway, **others))


async def test_nothing_is_rendered_unless_asked_for() -> None:
    """Off by default; and with `ifInstalled` only where the cluster knows Envoy Gateway."""
    wanted = {**FULL, "customResources": "ifInstalled"}
    known = ["--api-versions=gateway.envoyproxy.io/v1alpha1"]

    assert [] == _of_gateway(render({"replicas": 1}))
    assert [] == _of_gateway(render(wanted))
    assert len(_of_gateway(render(FULL))) == len(_of_gateway(render(wanted, arguments=known)))


@needs_meshcheck
async def test_notes_print_the_access_log_for_an_envoy_proxy_of_yours() -> None:
    """Where the chart makes no EnvoyProxy, what NOTES prints fits into one."""
    text = notes(values({"envoyProxy": {"enabled": False}, "failOpen": True}, config=LONG_LEASE))
    block = text[text.index("  spec:\n    telemetry:") :].partition("\nenvoyGateway.")[0]
    proxy = {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy", **yaml.safe_load(block)}

    assert "" == mistakes([proxy])
    assert "DANGER: envoyGateway.failOpen" in text


def _of_gateway(chart: Rendered) -> list[Json]:
    return [entry for entry in chart.objects if entry["apiVersion"].startswith(GROUPS)]
