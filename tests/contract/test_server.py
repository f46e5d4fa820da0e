"""One suite over every gRPC server that can carry the services: what a client of the port may rely on.

`native` and `grpcio` serve in plain text, `grpcio` also with TLS and with client certificates.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from extauthz._proto.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz._proto.envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import HttpBody, HttpHeaders, ProcessingRequest
from extauthz.adapters.listener import MESSAGE_BYTES_MAX
from extauthz.config.load import load
from extauthz.server import SERVICES, running
from extauthz.telemetry.log import new_logger
from tests.support.gate import (
    CALL_SECONDS_MAX,
    FREE,
    PAID,
    TOKEN,
    WIRES,
    Gate,
    Wire,
    a_check,
    an_ending,
    configured,
    gate,
)
from tests.support.processes import LOOPBACK, eventually
from tests.support.tls import Certificates

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
SERVING = health_pb2.HealthCheckResponse.SERVING
OK, PERMISSION_DENIED = 0, 7
ENCRYPTED = [wire for wire in WIRES if wire.tls]
SHORT_SECONDS = 0.2

Metadata = tuple[tuple[str, str], ...]
Call = Callable[[grpc.aio.Channel, Metadata], Awaitable[object]]


@pytest.fixture(scope="module", params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    """Give each way to carry gRPC in turn."""
    wire: Wire = request.param
    return wire


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """Serve on this wire for all tests of the module."""
    async with gate(wire, tmp_path_factory.mktemp("gate")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """Serve on this wire and ask callers for the token."""
    async with gate(wire, tmp_path_factory.mktemp("guarded"), token=TOKEN) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Gate) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to the server for all tests of the module."""
    async with server.channel() as connected:
        yield connected


def health_of(client: grpc.aio.Channel) -> Any:  # noqa: ANN401 - the stubs of these packages know no methods
    """Give the client of the health service."""
    return health_pb2_grpc.HealthStub(client)


def reflection_of(client: Any) -> Any:  # noqa: ANN401 - see above
    """Give the client of the reflection service."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub
    return stub(client)


async def check(client: grpc.aio.Channel, request: CheckRequest, *, seconds: float = CALL_SECONDS_MAX) -> CheckResponse:
    """Make a Check."""
    answer: CheckResponse = await external_auth_pb2_grpc.AuthorizationStub(client).Check(request, timeout=seconds)
    return answer


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """Give the status that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code()


@asynccontextmanager
async def stalled_store(server: Gate) -> AsyncIterator[None]:
    """Keep the store's answers back inside the block, in which one reservation is made and has to be released."""

    async def released() -> float:
        return (await server.metrics()).value("extauthz_reservations_ended_total", "released", "cancellation")

    async def one_more() -> bool:
        return before + 1 == await released()

    before = await released()
    server.ledger.answers.clear()
    try:
        yield
        await eventually(one_more, what="the reservation is released")
    finally:
        server.ledger.answers.set()


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        pytest.param(a_check(FREE), OK, 0, id="allowed"),
        pytest.param(a_check(key="sk-nobody"), PERMISSION_DENIED, 401, id="denied"),
    ],
)
async def test_a_check_is_answered(client: grpc.aio.Channel, request_: CheckRequest, code: int, status: int) -> None:
    """Authorization decides: an allow is OK, a denial carries the status for the client."""
    answer = await check(client, request_)

    assert code == answer.status.code
    assert status == answer.denied_response.status.code


async def test_a_decision_stands_whatever_becomes_of_its_telling(server: Gate, client: grpc.aio.Channel) -> None:
    """Where somebody who hears of decisions fails, the answer is the decided one, and the failure is counted."""
    failures = ("extauthz_failures_total", "telemetry")
    before = (await server.metrics()).value(*failures)
    with patch("extauthz.telemetry.latencies.Latencies.decided", side_effect=ValueError("broken on purpose")):
        answers = [await check(client, request) for request in (a_check(FREE), a_check(key="sk-nobody"))]

    assert [OK, PERMISSION_DENIED] == [answer.status.code for answer in answers]
    assert before + 2 == (await server.metrics()).value(*failures)


async def test_a_list_is_pruned_message_by_message(client: grpc.aio.Channel) -> None:
    """ExternalProcessor answers each message of a stream before the next one is sent."""
    headers = ProcessingRequest(
        response_headers=HttpHeaders(headers=HeaderMap(headers=[HeaderValue(key=":status", raw_value=b"200")]))
    )
    headers.metadata_context.filter_metadata["envoy.filters.http.ext_authz"].update({"extauthz.models": "free_only"})
    body = b'{"object":"list","data":[{"id":"gpt-4o"},{"id":"local-llama"}]}'

    stream = external_processor_pb2_grpc.ExternalProcessorStub(client).Process(timeout=CALL_SECONDS_MAX)
    await stream.write(headers)
    first = await stream.read()
    await stream.write(ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=True)))
    second = await stream.read()
    await stream.done_writing()

    assert ProcessingMode.BUFFERED_PARTIAL == first.mode_override.response_body_mode
    assert b'{"object":"list","data":[{"id":"local-llama"}]}' == second.response_body.response.body_mutation.body
    assert grpc.aio.EOF == await stream.read()


async def test_logged_ends_settle(server: Gate, client: grpc.aio.Channel) -> None:
    """AccessLogService books each batch while its stream goes on: 10 in and 20 out of gpt-4o are 225,000 nano-USD."""

    async def spent() -> int:
        return (await server.metrics()).spent.get(("team:research", "lifetime"), 0)

    before = await spent()
    answers = [await check(client, a_check(PAID)) for _ in range(2)]
    stream = als_pb2_grpc.AccessLogServiceStub(client).StreamAccessLogs(timeout=CALL_SECONDS_MAX)
    for answer in answers:
        open_before = await server.ledger.open_count()
        await stream.write(an_ending(answer, input_tokens=10, output_tokens=20))
        await eventually(partial(open_falls_below, server, open_before), what="the reservation ends")
    await stream.done_writing()

    assert grpc.StatusCode.OK == await stream.code()
    assert before + 2 * 225_000 == await spent()
    assert 0 == await server.ledger.open_count()


async def open_falls_below(server: Gate, count: int) -> bool:
    """Tell whether fewer reservations are open than that."""
    return await server.ledger.open_count() < count


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_is_told_for_each_service(client: grpc.aio.Channel, service: str) -> None:
    """Health answers for the server and for each of Envoy's services, at once and to a watcher."""
    health = health_of(client)
    request = health_pb2.HealthCheckRequest(service=service)

    asked = await health.Check(request, timeout=CALL_SECONDS_MAX)
    watch = health.Watch(request, timeout=CALL_SECONDS_MAX)
    watched = await watch.read()
    watch.cancel()

    assert SERVING == asked.status == watched.status


async def test_health_of_an_unknown_service_is_not_found(client: grpc.aio.Channel) -> None:
    """Health does not answer for what is not served."""
    request = health_pb2.HealthCheckRequest(service="extauthz.nothing")

    assert grpc.StatusCode.NOT_FOUND == await code_of(health_of(client).Check(request, timeout=CALL_SECONDS_MAX))


async def test_reflection_lists_and_describes(client: grpc.aio.Channel) -> None:
    """Reflection names every service and gives the files that describe them."""
    stream = reflection_of(client).ServerReflectionInfo(timeout=CALL_SECONDS_MAX)
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await stream.read()
    await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICES[0]))
    described = await stream.read()
    await stream.done_writing()
    files = [FileDescriptorProto.FromString(file) for file in described.file_descriptor_response.file_descriptor_proto]

    assert {*SERVICES, HEALTH, REFLECTION} == {service.name for service in listed.list_services_response.service}
    assert "Authorization" in {service.name for file in files for service in file.service}


async def test_a_check_whose_deadline_passes_reserves_nothing(server: Gate, client: grpc.aio.Channel) -> None:
    """The Check is cancelled in the middle, and what it had reserved is released at once."""
    # With its usual patience the Check would answer 503 just in time.
    with patch("extauthz.adapters.check.ANSWER_RESERVE_S", -CALL_SECONDS_MAX):
        async with stalled_store(server):
            code = await code_of(check(client, a_check(PAID), seconds=SHORT_SECONDS))

    assert grpc.StatusCode.DEADLINE_EXCEEDED == code
    assert 0 == await server.ledger.open_count()


async def test_a_check_that_the_client_cancels_reserves_nothing(server: Gate, client: grpc.aio.Channel) -> None:
    """Envoy cancels the Check when its client leaves: what was reserved is released at once."""
    async with stalled_store(server):
        call = external_auth_pb2_grpc.AuthorizationStub(client).Check(a_check(PAID), timeout=CALL_SECONDS_MAX)
        await eventually(server.ledger.open_count, what="the money is held")
        call.cancel()

    assert call.cancelled()
    assert 0 == await server.ledger.open_count()


async def test_a_check_that_the_store_keeps_waiting_is_answered_in_time(server: Gate, client: grpc.aio.Channel) -> None:
    """Before the deadline passes the Check is a decided 503, and what the store has reserved is released."""
    async with stalled_store(server):
        answer = await check(client, a_check(PAID), seconds=SHORT_SECONDS)

    assert 503 == answer.denied_response.status.code
    assert 0 == await server.ledger.open_count()


async def test_a_message_above_4_mib_is_refused(client: grpc.aio.Channel) -> None:
    """A message above the limit is RESOURCE_EXHAUSTED, one below is answered, and the server goes on."""
    too_large = await code_of(check(client, a_check(PAID, padding_bytes=MESSAGE_BYTES_MAX)))
    nearly = await check(client, a_check(FREE, padding_bytes=MESSAGE_BYTES_MAX - 1024))

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == too_large
    assert OK == nearly.status.code


async def test_an_unknown_method_is_unimplemented(client: grpc.aio.Channel) -> None:
    """A client of a newer API learns that its method is not here."""
    for method in (f"/{SERVICES[0]}/Nothing", "/nothing.Nothing/Nothing"):
        unknown: Any = client.unary_unary(method)

        assert grpc.StatusCode.UNIMPLEMENTED == await code_of(unknown(b"", timeout=CALL_SECONDS_MAX))


async def test_a_port_belongs_to_one_server(server: Gate, tmp_path: Path) -> None:
    """A second server on the port does not start, and says what to do; otherwise two would share the requests."""
    config = tmp_path / "config.yaml"
    config.write_text(configured(server.wire, server.certificates, port=server.grpc_port), encoding="utf-8")

    with pytest.raises(OSError, match=rf"cannot listen on {LOOPBACK}:{server.grpc_port} .*choose an address"):
        async with running(load(config, {}), new_logger(io.StringIO())):
            pass


async def ask(client: grpc.aio.Channel, metadata: Metadata) -> object:
    """Make a Check."""
    stub = external_auth_pb2_grpc.AuthorizationStub(client)
    return await stub.Check(a_check(FREE), metadata=metadata, timeout=CALL_SECONDS_MAX)


async def process(client: grpc.aio.Channel, metadata: Metadata) -> object:
    """Open a stream of ExternalProcessor and read from it."""
    stub = external_processor_pb2_grpc.ExternalProcessorStub(client)
    messages = iter([ProcessingRequest(request_headers=HttpHeaders())])
    return await anext(aiter(stub.Process(messages, metadata=metadata, timeout=CALL_SECONDS_MAX)))


async def log(client: grpc.aio.Channel, metadata: Metadata) -> object:
    """Write into a stream of AccessLogService."""
    stub = als_pb2_grpc.AccessLogServiceStub(client)
    messages = iter([StreamAccessLogsMessage()])
    return await stub.StreamAccessLogs(messages, metadata=metadata, timeout=CALL_SECONDS_MAX)


async def reflect(client: grpc.aio.Channel, metadata: Metadata) -> object:
    """Ask reflection for the services."""
    stub = reflection_of(client)
    messages = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    return await anext(aiter(stub.ServerReflectionInfo(messages, metadata=metadata, timeout=CALL_SECONDS_MAX)))


CALLS: dict[str, Call] = {"Check": ask, "Process": process, "StreamAccessLogs": log, "ServerReflectionInfo": reflect}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("metadata", "passes"),
    [
        pytest.param((), False, id="no token"),
        pytest.param((("x-extauthz-token", "a wrong one"),), False, id="a wrong token"),
        pytest.param((("x-extauthz-token", ""),), False, id="an empty token"),
        pytest.param((("authorization", TOKEN),), False, id="the token in another place"),
        pytest.param((("x-extauthz-token", TOKEN),), True, id="the token"),
    ],
)
async def test_every_service_asks_for_the_token(
    guarded: Gate,
    call: Call,
    metadata: Metadata,
    passes: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Without the shared token every method is UNAUTHENTICATED; with it, it is served."""
    async with guarded.channel() as client:
        if passes:
            assert await call(client, metadata) is not None
        else:
            assert grpc.StatusCode.UNAUTHENTICATED == await code_of(call(client, metadata))


async def test_health_needs_no_token(guarded: Gate) -> None:
    """Kubernetes' probes can send none."""
    async with guarded.channel() as client:
        health = health_of(client)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS_MAX)

    assert SERVING == answer.status


@pytest.mark.parametrize("wire", ENCRYPTED, indirect=True, ids=str)
async def test_only_those_get_in_whom_tls_lets_in(server: Gate, tmp_path: Path) -> None:
    """Plain text, and where clients prove themselves no certificate or one of a stranger, reach no service."""
    strangers = Certificates(tmp_path)
    mine = server.certificates
    strange_client = grpc.ssl_channel_credentials(
        mine.ca.read_bytes(), strangers.client_key.read_bytes(), strangers.client_cert.read_bytes()
    )
    address = f"{LOOPBACK}:{server.grpc_port}"
    refused = [grpc.aio.insecure_channel(address)]
    if server.wire.client_ca:
        refused += [grpc.aio.secure_channel(address, given) for given in (mine.channel_credentials(), strange_client)]

    for client in refused:
        async with client:
            assert grpc.StatusCode.UNAVAILABLE == await code_of(check(client, a_check(FREE)))


@pytest.mark.parametrize("wire", ENCRYPTED, indirect=True, ids=str)
async def test_a_renewed_certificate_is_served_without_a_restart(server: Gate, client: grpc.aio.Channel) -> None:
    """Once the files are replaced, the next handshake gets the new certificate; connections that stand stay."""
    port, certificates = server.grpc_port, server.certificates
    first = await certificates.served_on(port)
    certificates.renew()
    second = await certificates.served_on(port)

    assert first != second == certificates.cert.read_text()
    assert OK == (await check(client, a_check(FREE))).status.code


@pytest.mark.parametrize("wire", ENCRYPTED, indirect=True, ids=str)
async def test_half_a_change_of_files_breaks_nothing(server: Gate) -> None:
    """A certificate without its key yet, or none at all, leaves the old one in force until the change is whole."""
    port, certificates = server.grpc_port, server.certificates
    before = await certificates.served_on(port)
    old_cert, old_key = certificates.cert.read_bytes(), certificates.key.read_bytes()
    certificates.renew()
    new_cert, new_key = certificates.cert.read_bytes(), certificates.key.read_bytes()
    certificates.key.write_bytes(old_key)
    mismatched = await certificates.served_on(port)
    certificates.cert.unlink()
    absent = await certificates.served_on(port)
    certificates.cert.write_bytes(new_cert)
    certificates.key.write_bytes(new_key)
    whole = await certificates.served_on(port)

    assert before == mismatched == absent == old_cert.decode()
    assert whole == new_cert.decode()
