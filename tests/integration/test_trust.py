"""How Envoy and the server prove themselves to each other: token, TLS and client certificates, through a real Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from extauthz.envoy.bootstrap import BootstrapOptions, ClientCertificate
from tests.support.envoy import ENVOY_VERSIONS, NEWEST_ENVOY, EnvoyProcess, EnvoyVersion, options_for
from tests.support.gate import FREE, KEY, TOKEN, Wire, configured
from tests.support.stack import GateProcess
from tests.support.tls import Certificates
from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.envoy

ENCRYPTED = Wire("TLS", "auto", tls=True)
PROVEN = Wire("mTLS", "auto", tls=True, client_ca=True)


@asynccontextmanager
async def house(wire: Wire, certificates: Certificates, token: str | None = None) -> AsyncIterator[BootstrapOptions]:
    """Start upstream and server; give the options of an Envoy between them that knows nothing of trust yet."""
    config = configured(wire, certificates, token=token)
    async with ScriptedUpstream() as upstream, GateProcess(config) as gate:
        yield options_for(upstream.port, gate.grpc_port)


async def status_through(options: BootstrapOptions, version: EnvoyVersion = NEWEST_ENVOY) -> int:
    """Start an Envoy and give the status of a chat with a free model through it."""
    async with EnvoyProcess(options, version) as envoy, aiohttp.ClientSession() as session:
        url, headers = f"{envoy.url}/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
        async with session.post(url, headers=headers, json={"model": FREE, "messages": []}) as answer:
            return answer.status


async def test_only_an_envoy_with_the_token_is_answered(tmp_path: Path) -> None:
    """With the token in initial_metadata everything works; without it, or with another, nothing passes."""
    async with house(Wire("native", "native"), Certificates(tmp_path), TOKEN) as options:
        passed = [await status_through(replace(options, token=TOKEN), version) for version in ENVOY_VERSIONS]
        refused = {await status_through(replace(options, token=token)) for token in (None, "wrong")}

    assert [200, 200] == passed
    assert {503} == refused


@pytest.mark.parametrize("wire", [ENCRYPTED, PROVEN], ids=str)
async def test_tls_between_envoy_and_server(wire: Wire, tmp_path: Path) -> None:
    """An Envoy that trusts the server's CA passes; one of plain text, of another CA or without its certificate not."""
    mine, other = Certificates(tmp_path / "mine"), Certificates(tmp_path / "other")
    async with house(wire, mine) as plain:
        own = ClientCertificate(mine.client_cert, mine.client_key) if wire.client_ca else None
        trusting = replace(plain, extauthz_tls=True, extauthz_ca=mine.ca, extauthz_client=own)
        strangers = [plain, replace(trusting, extauthz_ca=other.ca)]
        if wire.client_ca:
            strangers.append(replace(trusting, extauthz_client=None))
        passed = [await status_through(trusting, version) for version in ENVOY_VERSIONS]
        refused = {await status_through(options) for options in strangers}

    assert [200, 200] == passed
    assert {503} == refused


async def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    """The CA's signature is not enough: the certificate must name the host that Envoy connects to."""
    certificates = Certificates(tmp_path, "another.host")
    async with house(ENCRYPTED, certificates) as plain:
        status = await status_through(replace(plain, extauthz_tls=True, extauthz_ca=certificates.ca))

    assert 503 == status


async def test_a_renewed_certificate_reaches_envoy_without_a_restart(tmp_path: Path) -> None:
    """The files are replaced by those of a new CA: the next Envoy, which trusts only that one, passes."""
    before, after = Certificates(tmp_path / "before"), Certificates(tmp_path / "after")
    async with house(ENCRYPTED, before) as plain:
        options = replace(plain, extauthz_tls=True, extauthz_ca=before.ca)
        statuses = [await status_through(options)]
        after.key.replace(before.key)
        after.cert.replace(before.cert)
        statuses += [await status_through(replace(options, extauthz_ca=ca)) for ca in (after.ca, before.ca)]

    assert [200, 200, 503] == statuses
