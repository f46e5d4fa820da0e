"""The operators' port: who gets in, over each gRPC server that can carry it, and what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz._proto.extauthz.diagnostics.v1.diagnostics_pb2_grpc import DiagnosticsStub
from extauthz.adapters.listener import MESSAGE_BYTES_MAX
from extauthz.server import ADMIN_SERVICES, SERVICES
from tests.support.gate import CALL_SECONDS_MAX, TOKEN, WIRES, Gate, Wire, gate
from tests.support.operated import refused
from tests.support.processes import LOOPBACK
from tests.support.tls import Certificates

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN_TOKEN = "a token that operators have"
RIGHT = (("authorization", f"Bearer {ADMIN_TOKEN}"),)
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"

Metadata = tuple[tuple[str, str], ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WIRES, ids=str)
async def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """Serve on each wire, with a token for Envoy and another one for operators."""
    folder = tmp_path_factory.mktemp("gate")
    async with gate(request.param, folder, token=TOKEN, admin_token=ADMIN_TOKEN) as serving:
        yield serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(server: Gate) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to the operators' port."""
    async with server.channel(admin=True) as connected:
        yield connected


async def status(admin: grpc.aio.Channel, metadata: Metadata = ()) -> pb.GetStatusResponse:
    """Ask for the status."""
    stub: Any = DiagnosticsStub(admin)
    answer: pb.GetStatusResponse = await stub.GetStatus(
        pb.GetStatusRequest(), metadata=metadata, timeout=CALL_SECONDS_MAX
    )
    return answer


async def watch(admin: grpc.aio.Channel, metadata: Metadata = ()) -> None:
    """Begin to watch decisions, and see that it has begun."""
    stub: Any = DiagnosticsStub(admin)
    call = stub.WatchDecisions(pb.WatchDecisionsRequest(), metadata=metadata, timeout=CALL_SECONDS_MAX)
    await call.initial_metadata()
    if call.done():
        await call.read()
    call.cancel()


async def services(admin: grpc.aio.Channel, metadata: Metadata = ()) -> set[str]:
    """Ask reflection what is served."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub
    messages = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    call = stub(admin).ServerReflectionInfo(messages, metadata=metadata, timeout=CALL_SECONDS_MAX)
    answer = await anext(aiter(call))
    return {service.name for service in answer.list_services_response.service}


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((), id="no token"),
        pytest.param((("authorization", "Bearer a wrong one"),), id="a wrong token"),
        pytest.param((("authorization", f"Bearer {ADMIN_TOKEN}x"),), id="a character more"),
        pytest.param((("authorization", f"Bearer {ADMIN_TOKEN[:-1]}"),), id="a character less"),
        pytest.param((("authorization", ADMIN_TOKEN),), id="no scheme"),
        pytest.param((("x-extauthz-token", TOKEN),), id="Envoy's token"),
        pytest.param((("authorization", f"Bearer {TOKEN}"),), id="Envoy's token as an operator's"),
        pytest.param((("x-extauthz-token", ADMIN_TOKEN),), id="the token in another place"),
    ],
)
async def test_nobody_gets_in_without_the_token(admin: grpc.aio.Channel, metadata: Metadata) -> None:
    """Calls, streams and reflection are UNAUTHENTICATED without the operators' token, and are told what to send."""
    for call in (status, watch, services):
        with refused(UNAUTHENTICATED, "extauthz.admin_token", "authorization: Bearer TOKEN"):
            await call(admin, metadata)


async def test_the_token_opens(admin: grpc.aio.Channel) -> None:
    """With the token everything of the port is there, and nothing of Envoy's."""
    assert (await status(admin, RIGHT)).version
    assert {*ADMIN_SERVICES, HEALTH, REFLECTION} == await services(admin, RIGHT)
    await watch(admin, RIGHT)


async def test_envoys_port_has_nothing_for_operators(server: Gate) -> None:
    """What operators can do is on their port alone, whatever token is sent to Envoy's."""
    async with server.channel() as envoys:
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            await status(envoys, (("x-extauthz-token", TOKEN), *RIGHT))
        assert {*SERVICES, HEALTH, REFLECTION} == await services(envoys, (("x-extauthz-token", TOKEN),))


@pytest.mark.parametrize("service", ["", *ADMIN_SERVICES])
async def test_health_needs_no_token(admin: grpc.aio.Channel, service: str) -> None:
    """Probes can send none; health of the port and of its service is told to anybody who reaches it."""
    stub: Any = health_pb2_grpc.HealthStub(admin)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS_MAX)

    assert health_pb2.HealthCheckResponse.SERVING == answer.status


async def test_a_message_above_4_mib_is_refused(admin: grpc.aio.Channel) -> None:
    """A question is at most as large as a Check can be."""
    stub: Any = DiagnosticsStub(admin)
    request = pb.ExplainRequest(request=pb.ExplainRequest.ShortRequest(path="/", body="x" * MESSAGE_BYTES_MAX))
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        await stub.Explain(request, metadata=RIGHT, timeout=CALL_SECONDS_MAX)


@pytest.mark.parametrize("server", [wire for wire in WIRES if wire.client_ca], indirect=True, ids=str)
async def test_only_those_get_in_whom_tls_lets_in(server: Gate, tmp_path: Path) -> None:
    """Where clients prove themselves by certificates, operators do so as well: a token alone is not enough."""
    mine, strangers = server.certificates, Certificates(tmp_path)
    address = f"{LOOPBACK}:{server.admin_port}"
    strange = grpc.ssl_channel_credentials(
        mine.ca.read_bytes(), strangers.client_key.read_bytes(), strangers.client_cert.read_bytes()
    )
    for channel in (
        grpc.aio.insecure_channel(address),
        grpc.aio.secure_channel(address, mine.channel_credentials()),
        grpc.aio.secure_channel(address, strange),
    ):
        async with channel:
            with refused(grpc.StatusCode.UNAVAILABLE):
                await status(channel, RIGHT)


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_without_a_token_loopback_is_open(wire: Wire, tmp_path: Path) -> None:
    """Who is on the machine needs no token where none is configured; where TLS asks for a certificate, that."""
    async with gate(wire, tmp_path) as serving, serving.channel(admin=True) as admin:
        assert (await status(admin)).version
