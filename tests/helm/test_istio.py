"""What the chart makes for Istio: each object strictly decoded, and the patched proxies running in real Envoys.

istiod is not here; tests/support/istio.py does to a proxy's configuration what it does.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from pathlib import Path

import openai
import pytest
import pytest_asyncio
import yaml

from extauthz.domain.address import Address
from extauthz.envoy.bootstrap import BootstrapOptions, Document, bootstrap, meter_source
from tests.support.chart import CI, ChartError, Json, Rendered, needs_helm, notes, render
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.istio import (
    GATED_HOST,
    MODELS_ROUTE,
    OTHER_HOST,
    Context,
    gateway,
    manager,
    patched,
    sidecar,
    with_provider,
)
from tests.support.mesh import (
    BROKE,
    BUDGET,
    CONFIG,
    FREE,
    HELLO,
    PAID,
    REQUEST,
    RICH,
    Places,
    ask,
    mesh,
    outlived,
    play,
    seen,
)
from tests.support.meshcheck import mistakes, needs_meshcheck
from tests.support.processes import Process
from tests.support.stack import Stack
from tests.support.upstream import PLAY_HEADER, Head, Play

pytestmark = [needs_helm, pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

POOL = "envoy.filters.http.ext_proc"
OURS = ("extauthz.id", "extauthz.check", "extauthz.prune", "extauthz.meter")
CHARGING: Json = {**CONFIG, "extauthz": {**CONFIG["extauthz"], "on_expiry": "charge"}}
WITH_PREFIX: Json = {**CONFIG, "extauthz": {**CONFIG["extauthz"], "api_prefixes": ["/llm/v1"]}}

MESHES = [path for path in CI if re.match("istio|envoy-gateway", path.name)]
EXPIRIES = ("extauthz_reservations_ended_total", "expired", "lease")

HOST = "gate-extauthz.llm-budget.svc.cluster.local"
ISTIO: Json = {"enabled": True, "checkTimeout": "10s"}
# Any ports will do where nothing listens.
PLACES = Places(8080, 15000, 4000, 9191)


def values(istio: Json, **others: Json) -> Json:
    """Give the values of a small release."""
    return {"replicas": 1, "config": CONFIG, "istio": {**ISTIO, **istio}, **others}


def filters(**settings: Json) -> Json:
    """Give what stands under `istio:` with these settings of the EnvoyFilter."""
    return {"envoyFilter": settings}


def as_gateway(chart: Rendered, places: Places) -> Document:
    """Give the gateway with the chart's filters."""
    patches = chart.one("EnvoyFilter")
    document: Document = patched(gateway(places, HOST), patches, Context.GATEWAY, port=8080)
    return document


def as_sidecar(chart: Rendered, places: Places) -> Document:
    """Give the upstream's sidecar with the chart's filters."""
    patches = chart.one("EnvoyFilter")
    document: Document = patched(sidecar(places, HOST), patches, Context.SIDECAR_INBOUND, port=places.upstream)
    return document


GATEWAY = filters(discoveryRoutes=[MODELS_ROUTE])
SCOPED = filters(discoveryRoutes=[MODELS_ROUTE], hosts=[GATED_HOST], port=8080)
DIRECT = filters()
PROXIES: Mapping[str, Json] = {"gateway": GATEWAY, "one host": SCOPED, "no discovery routes": DIRECT, "sidecar": None}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def version(request: pytest.FixtureRequest) -> EnvoyVersion:
    """Give each version of Envoy in turn."""
    version: EnvoyVersion = request.param
    return version


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> str:
    """Name each kind of proxy in turn."""
    name: str = request.param
    return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(proxy: str, version: EnvoyVersion) -> AsyncIterator[Stack]:
    """Run each kind of proxy with the chart's filters."""
    settings = PROXIES[proxy]
    if settings is not None:
        running = mesh(lambda _: values(settings), as_gateway, version)
    else:
        running = mesh(lambda port: values({"context": "SIDECAR_INBOUND", **filters(port=port)}), as_sidecar, version)
    async with running as stack:
        yield stack


async def test_the_story(stack: Stack) -> None:
    """An exhausted team gets 429 and the free models, and pays nothing; a rich one is booked what its answers used."""
    await play(stack)


async def test_where_the_pruned_list_comes_from(stack: Stack, proxy: str) -> None:
    """On routes of model lists it is the upstream's own; elsewhere the server writes it alone."""
    before = len(stack.upstream.requests)
    async with stack.openai(BROKE) as broke:
        assert [FREE] == [model.id async for model in broke.models.list()]

    assert (0 if proxy == "no discovery routes" else 1) == len(stack.upstream.requests) - before


async def test_nothing_of_ours_is_forged_or_leaks(stack: Stack) -> None:
    """The upstream gets no x-extauthz-* header, whoever wrote it, and the client none of the upstream's."""
    stack.upstream.plays["forges"] = lambda _: Play(
        (Head(headers=(("x-extauthz-reservation", "forged"), ("x-extauthz-warning", "forged"))), b"{}")
    )
    headers = {"x-extauthz-id": "mine", "x-extauthz-models": "all", PLAY_HEADER: "forges"}
    status, answer, _ = await ask(stack, "/v1/chat/completions", headers, body=json.dumps(REQUEST).encode())

    assert 200 == status
    assert "forged" not in answer.values()
    assert not [name for name, _ in stack.upstream.requests[-1].headers if name.startswith("x-extauthz-")]


async def test_a_living_stream_outlives_its_lease(stack: Stack) -> None:
    """Envoy tells of a stream that goes on: its money stays held until the client leaves, and is settled then."""
    before = await stack.gate.metrics()
    await outlived(stack)
    metrics = await stack.settled()

    assert before.value(*EXPIRIES) == metrics.value(*EXPIRIES)
    assert 0 == metrics.held[BUDGET]


async def test_a_long_body_reaches_the_upstream(stack: Stack) -> None:
    """A body of more than the Check sees is no 413: there is room for what is looked at, and the rest passes."""
    body = json.dumps({**REQUEST, "messages": [{"role": "user", "content": "x" * 3 * 1024 * 1024}]}).encode()
    status, _, _ = await ask(stack, "/v1/chat/completions", {}, body=body)
    await stack.settled()

    assert 200 == status
    assert len(body) == len(stack.upstream.requests[-1].body)


async def test_the_check_sees_envoys_own_id(version: EnvoyVersion) -> None:
    """The Check gets one id, Envoy's own and new each time, which the access log has as well; no forged header."""
    performances = await seen(values(GATEWAY), as_gateway, version)
    ids = [performance.seen_by_check("x-extauthz-id") for performance in performances]

    assert [1, 1] == [len(found) for found in ids]
    assert not {"mine", "too"} & {*ids[0], *ids[1]}
    assert ids[0] != ids[1]
    for performance, found in zip(performances, ids, strict=True):
        assert performance.ended is not None
        assert found == [performance.ended.request.request_headers["x-extauthz-id"]]
        assert [] == performance.seen_by_check("x-extauthz-models")


async def test_only_named_hosts_are_gated(version: EnvoyVersion) -> None:
    """On a gateway for many hosts the others are not asked about, and nothing is metered there."""
    async with mesh(lambda _: values(SCOPED), as_gateway, version) as stack:
        gated = await ask(stack, "/v1/models", {"authorization": "Bearer nobody"})
        other = await ask(stack, "/v1/models", {"authorization": "Bearer nobody", "host": OTHER_HOST})
        (passed,) = stack.upstream.requests

    assert (401, 200) == (gated[0], other[0])
    assert OTHER_HOST == passed.header("host")


async def test_custom_is_refused_pruned_and_charged(version: EnvoyVersion) -> None:
    """By Istio's own provider: 429, a list from the catalog, and what was held is charged when the lease ends."""
    settings = values({"mode": "custom"}, config=CHARGING)
    provider = yaml.safe_load(_block(notes(settings), "extensionProviders:"))["extensionProviders"][0]

    def proxy(_: Rendered, places: Places) -> Document:
        document: Document = with_provider(gateway(places, HOST), provider)
        return document

    async with mesh(lambda _: settings, proxy, version) as stack, stack.openai(BROKE) as broke:
        with pytest.raises(openai.RateLimitError):
            await broke.chat.completions.create(model=PAID, messages=HELLO)
        assert [FREE] == [model.id async for model in broke.models.list()]
        assert [] == list(stack.upstream.requests)
        async with stack.openai(RICH) as rich:
            await rich.chat.completions.create(model=PAID, messages=HELLO)
        held = (await stack.gate.metrics()).held[BUDGET]
        metrics = await stack.settled()

    assert held == metrics.spent[BUDGET] > 0
    assert provider["name"] == render(settings).one("AuthorizationPolicy")["spec"]["provider"]["name"]


# ------------------------------------------------------------------------------------------------ without a proxy


@pytest.mark.parametrize("ours", ["extauthz.id", "extauthz.check", "extauthz.prune", "extauthz.meter"])
async def test_the_filters_are_those_of_envoy_config(ours: str) -> None:
    """Each filter says what `extauthz envoy-config` says, but for its name and where the server is."""
    theirs = {"extauthz.id": "envoy.filters.http.header_mutation", "extauthz.check": "envoy.filters.http.ext_authz"}
    options = BootstrapOptions(listen=Address("0.0.0.0", 8080), upstream=Address("llm", 4000), check_timeout_s=10)
    expected = _filters(bootstrap(options))[theirs.get(ours, ours)]
    found = _filters(as_gateway(render(values(GATEWAY)), PLACES))[ours]
    service = {"cluster_name": f"outbound|9191||{HOST}", "authority": HOST}
    if "grpc_service" in expected["typed_config"]:
        expected["typed_config"]["grpc_service"]["envoy_grpc"] = service

    assert {**expected, "name": ours} == found


@pytest.mark.parametrize("following", ["envoy.filters.http.router", POOL])
async def test_filters_stand_in_the_order_of_envoy_config(following: str) -> None:
    """They stand together before the filter that is named, the router or an InferencePool's, and take nobody's name."""
    names = list(_filters(as_gateway(render(values(filters(insertBefore=following))), PLACES)))
    first = names.index(OURS[0])

    assert [*OURS, following] == names[first : first + len(OURS) + 1]
    assert len(names) == len(set(names))


async def test_the_access_log_is_that_of_envoy_config() -> None:
    """The access log says what `extauthz envoy-config` says, beside Istio's own."""
    options = BootstrapOptions(listen=Address("0.0.0.0", 8080), upstream=Address("llm", 4000), heartbeat_seconds=0.5)
    expected = manager(bootstrap(options))
    found = manager(as_gateway(render(values(GATEWAY)), PLACES))
    (own,) = expected["access_log"]
    own["typed_config"]["common_config"]["grpc_service"]["envoy_grpc"] = {
        "cluster_name": f"outbound|9191||{HOST}",
        "authority": HOST,
    }

    assert [own] == found["access_log"][1:]
    assert expected["access_log_options"] == found["access_log_options"]


@pytest.mark.parametrize(
    "istio",
    [
        pytest.param(GATEWAY, id="gateway"),
        pytest.param(SCOPED, id="one host"),
        pytest.param(filters(meter=False), id="no meter"),
        pytest.param({**filters(insertBefore=POOL), "failOpen": True}, id="fails open"),
        pytest.param({"context": "SIDECAR_INBOUND", **filters(port=4000)}, id="sidecar"),
    ],
)
async def test_envoy_accepts_every_variant(version: EnvoyVersion, istio: Json, tmp_path: Path) -> None:
    """Every variant passes Envoy's own validation, without a word about anything deprecated."""
    chart = render(values(istio, config=WITH_PREFIX))
    proxy = as_sidecar if istio.get("context") == "SIDECAR_INBOUND" else as_gateway
    config = tmp_path / "envoy.yaml"
    config.write_text(yaml.safe_dump(proxy(chart, PLACES)), encoding="utf-8")

    async with Process(version.program, "--mode", "validate", "-c", config) as process:
        code = await process.wait()

        assert 0 == code, process.output
        assert "deprecated" not in process.output.lower()


@needs_meshcheck
@pytest.mark.parametrize("istio", [GATEWAY, SCOPED, {"context": "SIDECAR_INBOUND", **filters(port=4000)}], ids=str)
async def test_istio_knows_every_field(istio: Json) -> None:
    """All objects decode strictly into the types of Istio's own API."""
    objects = _of_istio(render(values(istio)))

    assert {"EnvoyFilter", "AuthorizationPolicy", "PeerAuthentication", "DestinationRule"} == {
        entry["kind"] for entry in objects
    }
    assert "" == mistakes(objects)


@needs_meshcheck
@pytest.mark.parametrize("path", MESHES, ids=lambda path: path.name.removesuffix("-values.yaml"))
async def test_meshes_know_every_field_of_ci(path: Path) -> None:
    """So do those of every file of ci/ that is for a mesh."""
    objects = [entry for entry in render(files=[path]).objects if entry["apiVersion"].partition("/")[0].count(".") > 1]

    assert [entry for entry in objects if re.search("istio|envoyproxy", entry["apiVersion"])]
    assert "" == mistakes(entry for entry in objects if re.search("istio|gateway", entry["apiVersion"]))


@needs_meshcheck
async def test_istio_knows_every_field_of_custom() -> None:
    """So do the AuthorizationPolicy and the MeshConfig of mode custom."""
    settings = values({"mode": "custom"}, config=CHARGING)
    mesh_config = yaml.safe_load(_block(notes(settings), "extensionProviders:"))

    assert "" == mistakes([*_of_istio(render(settings)), {"kind": "MeshConfig", "spec": mesh_config}])


@needs_meshcheck
async def test_a_field_that_istio_does_not_know_is_seen() -> None:
    """A misspelt field is a mistake, not something to pass over."""
    policy = deepcopy(render(values(GATEWAY)).one("AuthorizationPolicy", "-callers"))
    policy["spec"]["rules"][0]["from"][0]["source"]["notPrincipal"] = ["nobody"]

    assert "notPrincipal" in mistakes([policy])


async def test_only_the_proxies_reach_the_grpc_port() -> None:
    """Everybody else is denied at 9191, and plain text everywhere but at the metrics."""
    chart = render(values(GATEWAY))
    policy, peers = chart.one("AuthorizationPolicy", "-callers"), chart.one("PeerAuthentication")
    (rule,) = policy["spec"]["rules"]
    labels = chart.one("Deployment")["spec"]["template"]["metadata"]["labels"]

    assert "DENY" == policy["spec"]["action"]
    assert [{"operation": {"ports": ["9191"]}}] == rule["to"]
    assert [{"source": {"notPrincipals": ["cluster.local/ns/istio-ingress/sa/istio-ingress"]}}] == rule["from"]
    assert "STRICT" == peers["spec"]["mtls"]["mode"]
    assert {"9193": {"mode": "PERMISSIVE"}} == peers["spec"]["portLevelMtls"]
    for entry in (policy, peers):
        assert entry["spec"]["selector"]["matchLabels"].items() <= labels.items()


async def test_the_meter_is_the_product_s() -> None:
    """The chart's copy is the very program that the tests of the meter run."""
    assert (
        meter_source()
        == _filters(as_gateway(render(values(GATEWAY)), PLACES))["extauthz.meter"]["typed_config"][
            "default_source_code"
        ]["inline_string"]
    )


@pytest.mark.parametrize(
    ("istio", "others", "words"),
    [
        pytest.param({"mode": "custom"}, {}, "on_expiry", id="custom books nothing"),
        pytest.param(
            {}, {"grpc": {"trust": "token", "token": {"existingSecret": "t"}}}, "the mesh encrypts", id="token"
        ),
        pytest.param({}, {"grpc": {"trust": "tls", "tls": {"existingSecret": "t"}}}, "the mesh encrypts", id="TLS"),
        pytest.param({"context": "SIDECAR_INBOUND"}, {}, "istio.envoyFilter.port", id="every port of a sidecar"),
        pytest.param(
            {"context": "SIDECAR_INBOUND", **filters(port=4000, hosts=["a:80"])},
            {},
            "are of gateways",
            id="hosts of a sidecar",
        ),
        pytest.param({"principals": []}, {}, "istio.principals", id="nobody may ask"),
        pytest.param({"selector": {"istio": None}}, {}, "istio.selector", id="every proxy"),
        pytest.param({"checkTimeout": "500ms"}, {}, "checkTimeout", id="a duration that Envoy does not read"),
        pytest.param({"checkTimeOut": "1s"}, {}, "checkTimeOut", id="a misspelt value"),
    ],
)
async def test_impossible_values_are_refused(istio: Json, others: Json, words: str) -> None:
    """What cannot work, or would leave the books or the port open, fails before anything is installed."""
    with pytest.raises(ChartError, match=words):
        render({"replicas": 1, "istio": {"enabled": True, **istio}, **others})


@pytest.mark.parametrize("mode", ["envoyFilter", "custom"])
async def test_nothing_is_rendered_unless_asked_for(mode: str) -> None:
    """Off by default; and with `ifInstalled` only where the cluster knows Istio."""
    wanted = values({"mode": mode}, config=CHARGING, customResources="ifInstalled")
    known = [f"--api-versions={group}" for group in ("security.istio.io/v1", "networking.istio.io/v1")]
    known.append("--api-versions=networking.istio.io/v1alpha3")

    assert [] == _of_istio(render({"replicas": 1}))
    assert [] == _of_istio(render(wanted))
    assert len(_of_istio(render({**wanted, "customResources": "always"}))) == len(
        _of_istio(render(wanted, arguments=known))
    )


async def test_notes_say_what_custom_cannot_do() -> None:
    """Who chooses the provider reads that books are estimates; who fails open reads that it is dangerous."""
    text = notes(values({"mode": "custom", "failOpen": True}, config=CHARGING))

    assert "Books are estimates" in text
    assert "DANGER: istio.failOpen" in text


def _filters(document: Document) -> dict[str, Json]:
    return {entry["name"]: entry for entry in manager(document)["http_filters"]}


def _of_istio(chart: Rendered) -> list[Json]:
    return [entry for entry in chart.objects if ".istio.io/" in entry["apiVersion"]]


def _block(text: str, first: str) -> str:
    """Cut a block of YAML out of a text: the line that ends in `first`, and those that are indented more."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == first)
    indent = len(lines[start]) - len(lines[start].lstrip())
    rest = itertools.takewhile(lambda line: line.startswith(" " * (indent + 1)), lines[start + 1 :])
    return textwrap.dedent("\n".join([lines[start], *rest]))
