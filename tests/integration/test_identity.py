"""Credentials through a real Envoy: tokens, client certificates, and the headers of a filter before ours."""

from __future__ import annotations

import json
import re
import ssl
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
import yaml

from extauthz.envoy.bootstrap import Document
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.issuers import IssuerServer, claims, encoded, key_set, public_jwk, signed
from tests.support.processes import eventually
from tests.support.spiffe import Mesh
from tests.support.stack import Stack, patient, stack

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "identity.md").read_text(encoding="utf-8")
GATEWAY = "spiffe://mesh/ns/edge/sa/gateway"
CHAT = "/v1/chat/completions"

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
extauthz:
  MORE
  teams: {research: {max_budget: 100}, kitchen: {max_budget: 100}}
  users: {ana: {max_budget: 100}}
  keys: [{key: sk-kitchen, team: kitchen}]
"""


def configured(more: str) -> str:
    """Write a configuration with more lines in it."""
    return CONFIG.replace("  MORE", textwrap.indent(textwrap.dedent(more).strip(), "  "))


async def ask(
    house: Stack, headers: Mapping[str, str] | None = None, *, context: ssl.SSLContext | None = None, path: str = CHAT
) -> int:
    """Send a chat, and give the status; `context` is what the client connects with by TLS."""
    url = house.url if context is None else house.url.replace("http://", "https://")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}{path}", json=body, headers=headers, ssl=context or True) as answer,
    ):
        await answer.read()
        return answer.status


async def charged(house: Stack, before: Mapping[tuple[str, ...], int]) -> set[str]:
    """Tell which budgets have paid since."""
    metrics = await house.settled()
    return {scope for (scope, *_), spent in metrics.spent.items() if spent > before.get((scope, "lifetime"), 0)}


def manager_of(document: Document) -> Any:  # noqa: ANN401 - a document of any depth
    """Find the HTTP connection manager in a bootstrap."""
    listener = cast("Any", document)["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


class TestTokens:
    """Tokens in the headers that Envoy hands on."""

    async def test_who_gets_in(self) -> None:
        """A good token pays and goes no further than Envoy; forged ones are 401, and so is the same one expired."""
        async with IssuerServer() as issuer:
            config = configured(f"""
                jwt:
                  - {{issuer: "{issuer.name}", audience: extauthz, jwks_url: "{issuer.url}", claims: {{teams: groups}}}}
                upstream_auth: {{default: remove}}
            """)
            async with stack(config, options=patient) as house:
                await eventually(lambda: issuer.fetches, what="the keys are fetched")
                good = claims(issuer.name, groups=["research"])
                assert 200 == await ask(house, {"authorization": f"Bearer {signed(good)}"})
                assert {"team:research"} <= await charged(house, {})
                forged = {
                    "none": f"{encoded({'alg': 'none'})}.{encoded(good)}.",
                    "another key": signed(good, number=7),
                    "expired": signed(good | {"exp": 1}),
                    "another audience": signed(good | {"aud": "x"}),
                    "huge": signed(good | {"more": "x" * 20_000}),
                    "twice": f"{signed(good)},{signed(good)}",
                }
                statuses = {
                    name: await ask(house, {"authorization": f"Bearer {token}"}) for name, token in forged.items()
                }

                assert dict.fromkeys(forged, 401) | {"twice": 400} == statuses
                [received] = house.upstream.requests
                assert received.header("authorization") is None


@dataclass(frozen=True, slots=True)
class Meshed:
    """A house whose Envoy takes clients with certificates alone."""

    house: Stack
    mesh: Mesh


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=str)
async def meshed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Meshed]:
    """Give a house in a mesh, where the gateway at the edge is a trusted hop."""
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    cert, key = mesh.issue("server", uri="spiffe://mesh/ns/llm/sa/envoy")

    def edit(document: Document) -> Document:
        chain = cast("Any", document)["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": {
                    "tls_certificates": [
                        {"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}
                    ],
                    "validation_context": {"trusted_ca": {"filename": str(mesh.ca)}},
                },
            },
        }
        manager_of(document)["forward_client_cert_details"] = "APPEND_FORWARD"
        manager_of(document)["set_current_client_cert_details"] = {"uri": True}
        return document

    config = configured("""
        mtls:
          principals:
            - {principal: "spiffe://mesh/ns/{namespace}/sa/{name}", team: "{namespace}"}
            - {principal: "CN={name}", user: "{name}"}
          xfcc_from: [spiffe://mesh/ns/edge/sa/gateway]
    """)
    async with stack(config, version=request.param, options=patient, edit=edit) as house:
        yield Meshed(house, mesh)


RESEARCH, KITCHEN = "spiffe://mesh/ns/research/sa/notebook", "spiffe://mesh/ns/kitchen/sa/cook"


class TestCertificates:
    """Client certificates, as Envoy tells of them."""

    @pytest.mark.parametrize(
        ("name", "uri", "headers", "status", "scope"),
        [
            pytest.param("notebook", RESEARCH, {}, 200, "team:research", id="a workload"),
            pytest.param("ana", None, {}, 200, "user:ana", id="a person"),
            pytest.param("stranger", "spiffe://mesh/ns/garden/sa/x", {}, 401, None, id="not listed"),
            pytest.param("nobody", "spiffe://mesh/other", {}, 401, None, id="not mapped"),
            pytest.param(
                "notebook",
                RESEARCH,
                {"x-forwarded-client-cert": f"URI={KITCHEN}"},
                200,
                "team:research",
                id="forged XFCC",
            ),
            pytest.param(
                "cook", KITCHEN, {"authorization": "Bearer sk-kitchen"}, 200, "team:kitchen", id="and its key"
            ),
            pytest.param(
                "notebook", RESEARCH, {"authorization": "Bearer sk-kitchen"}, 400, None, id="and another's key"
            ),
            pytest.param("notebook", RESEARCH, {"authorization": "Bearer sk-x"}, 401, None, id="and an unknown key"),
            pytest.param(
                "gateway",
                GATEWAY,
                {"x-forwarded-client-cert": f"Hash=ab;URI={KITCHEN}"},
                200,
                "team:kitchen",
                id="by a hop",
            ),
            pytest.param(
                "gateway",
                GATEWAY,
                {"x-forwarded-client-cert": f"URI={RESEARCH},Hash=ab;URI={KITCHEN}"},
                200,
                "team:kitchen",
                id="by a hop, after what its client wrote",
            ),
            pytest.param("gateway", GATEWAY, {}, 401, None, id="the hop itself"),
        ],
    )
    async def test_who_pays(
        self, meshed: Meshed, name: str, uri: str | None, headers: dict[str, str], status: int, scope: str | None
    ) -> None:
        """Whoever the certificate names pays; a header counts only from a trusted hop, and only what that wrote."""
        before = (await meshed.house.settled()).spent

        assert status == await ask(meshed.house, headers, context=meshed.mesh.context(name, uri=uri))
        assert ({scope} if scope else set()) == await charged(meshed.house, before) - {"global"}


def snippet(name: str) -> Any:  # noqa: ANN401 - a document of any depth
    """Give a piece of Envoy's configuration that the documentation shows."""
    blocks = re.findall(r"^ +```yaml\n(.*?)^ +```", DOCUMENT, re.MULTILINE | re.DOTALL)
    [found] = [yaml.safe_load(textwrap.dedent(block)) for block in blocks if f"{name}:" in block]
    return found[name]


def with_earlier_filter(*, stripped: bool, told: bool) -> Callable[[Document], Document]:
    """Put Envoy's own jwt_authn before our filter; do, or leave out, what the documentation asks for."""

    def edit(document: Document) -> Document:
        manager = manager_of(document)
        provider = {
            "issuer": "https://issuer.example",
            "audiences": ["gateway"],
            "local_jwks": {"inline_string": key_set(public_jwk("RSA-2048", kid="k1")).decode()},
            "claim_to_headers": [{"header_name": "x-auth-user", "claim_name": "sub"}],
        }
        any_or_none = {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}
        manager["http_filters"].insert(
            0,
            {
                "name": "envoy.filters.http.jwt_authn",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                    "providers": {"p": provider},
                    "rules": [{"match": {"prefix": "/"}, "requires": any_or_none}],
                },
            },
        )
        if stripped:
            manager["early_header_mutation_extensions"] = snippet("early_header_mutation_extensions")
        if told:
            [host] = manager["route_config"]["virtual_hosts"]
            for filter_name, own in snippet("typed_per_filter_config").items():
                there = host["typed_per_filter_config"][filter_name]["check_settings"]["context_extensions"]
                there |= own["check_settings"]["context_extensions"]
        return document

    return edit


TRUSTING = configured("trusted_headers: {user: x-auth-user, team: x-auth-team}")


class TestTrustedHeaders:
    """Headers of Envoy's jwt_authn, which stands before our filter."""

    @pytest.mark.parametrize("version", ENVOY_VERSIONS, ids=str)
    async def test_they_count_where_the_route_says_so(self, version: EnvoyVersion) -> None:
        """Whom the filter names pays; what clients write themselves is gone before anybody sees it."""
        token = signed(claims("https://issuer.example", aud="gateway"))
        edit = with_earlier_filter(stripped=True, told=True)
        async with stack(TRUSTING, version=version, options=patient, edit=edit) as house:
            assert 200 == await ask(house, {"authorization": f"Bearer {token}"})
            assert {"user:ana"} == await charged(house, {}) - {"global"}
            assert 401 == await ask(house, {"x-auth-user": "ana"})
            assert 401 == await ask(house, {"x-auth-team": "research"})
            before = (await house.settled()).spent
            mixed = {"authorization": f"Bearer {token}", "x-auth-user": "ben", "x-auth-team": "research"}
            assert 200 == await ask(house, mixed)
            assert {"user:ana"} == await charged(house, before) - {"global"}

    async def test_they_are_nothing_elsewhere(self) -> None:
        """On a route without the word, whoever writes them, they name nobody."""
        token = signed(claims("https://issuer.example", aud="gateway"))
        async with stack(TRUSTING, options=patient, edit=with_earlier_filter(stripped=False, told=False)) as house:
            assert 401 == await ask(house, {"authorization": f"Bearer {token}"})
            assert 401 == await ask(house, {"x-auth-user": "ana"})


class TestAnonymous:
    """Requests without any credential."""

    async def test_they_share_a_budget(self) -> None:
        """Who sends nothing is let through until the common budget is exhausted, and is told so then."""
        config = configured("anonymous: {max_budget: 0.0001}\nother: authenticate")
        async with stack(config, options=patient) as house:
            assert 200 == await ask(house)
            assert {"anonymous"} == await charged(house, {}) - {"global"}
            async with aiohttp.ClientSession() as session:
                body = {"model": "gpt-4o", "messages": []}
                async with session.post(f"{house.url}{CHAT}", json=body) as answer:
                    error = json.loads(await answer.text())["error"]
            assert "budget_exceeded" == error["type"]
            assert "Anonymous" in error["message"]
            assert 401 == await ask(house, {"authorization": "Bearer sk-nobody"})
            assert 401 == await ask(house, path="/spend/logs")
            assert 200 == await ask(house, {"authorization": "Bearer sk-kitchen"})
