"""The server in the test's own process, on each gRPC server that can carry it, and the calls that Envoy makes to it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import aiohttp
import grpc
import grpc.aio

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.config.load import load
from extauthz.ledger.base import Reserve, ReserveResult
from extauthz.ledger.memory import MemoryLedger
from extauthz.server import running
from extauthz.telemetry.log import new_logger
from tests.support.processes import LOOPBACK
from tests.support.stack import Metrics
from tests.support.tls import Certificates

TOKEN = "a token that Envoy and the server share"
KEY = "sk-team"
PAID, FREE = "gpt-4o", "local-llama"
CALL_SECONDS_MAX = 10.0

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
extauthz:
  teams: {research: {max_budget: 10}}
  keys: [{key: sk-team, team: research}]
"""


@dataclass(frozen=True, slots=True)
class Wire:
    """A way to carry gRPC: the server's name in the configuration, with TLS or not, with client certificates or not."""

    name: str
    server: str
    tls: bool = False
    client_ca: bool = False

    def __str__(self) -> str:
        return self.name


WIRES = (
    Wire("native", "native"),
    Wire("grpcio", "grpcio"),
    Wire("TLS", "auto", tls=True),
    Wire("mTLS", "auto", tls=True, client_ca=True),
)


def configured(
    wire: Wire,
    certificates: Certificates,
    *,
    port: int = 0,
    token: str | None = None,
    admin_token: str | None = None,
    drain_seconds: int = 0,
) -> str:
    """Write the configuration of a server on this wire."""
    lines = [
        f"listen: {{grpc: '{LOOPBACK}:{port}', admin: '{LOOPBACK}:0', http: '{LOOPBACK}:0'}}",
        f"server: {wire.server}",
        f"drain_seconds: {drain_seconds}",
    ]
    if wire.tls:
        files = {"cert": certificates.cert, "key": certificates.key}
        if wire.client_ca:
            files["client_ca"] = certificates.ca
        lines.append(f"tls: {json.dumps({name: str(path) for name, path in files.items()})}")
    if token is not None:
        lines.append(f"token: {token}")
    if admin_token is not None:
        lines.append(f"admin_token: {admin_token}")
    return CONFIG + "".join(f"  {line}\n" for line in lines)


class StallingLedger(MemoryLedger):
    """A memory store that can keep an answer back: the reservation is made, and nobody hears of it until `answers`."""

    def __init__(self, clock_ms: Callable[[], int], signing_key: bytes) -> None:
        super().__init__(clock_ms, signing_key)
        self.answers = asyncio.Event()
        self.answers.set()

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Reserve at once, and answer when `answers` is set."""
        result = await super().reserve(request)
        await self.answers.wait()
        return result


@dataclass(frozen=True, slots=True)
class Gate:
    """A server that runs in this process."""

    wire: Wire
    certificates: Certificates
    grpc_port: int
    admin_port: int
    http_port: int
    ledger: StallingLedger

    @asynccontextmanager
    async def channel(self, *, admin: bool = False) -> AsyncIterator[grpc.aio.Channel]:
        """Connect to Envoy's port, or the operators', with the credentials that the wire asks for."""
        address = f"{LOOPBACK}:{self.admin_port if admin else self.grpc_port}"
        if self.wire.tls:
            credentials = self.certificates.channel_credentials(client=self.wire.client_ca)
            connected = grpc.aio.secure_channel(address, credentials)
        else:
            connected = grpc.aio.insecure_channel(address)
        async with connected:
            yield connected

    async def metrics(self) -> Metrics:
        """Read all metrics."""
        url = f"http://{LOOPBACK}:{self.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return Metrics(await answer.text())


@asynccontextmanager
async def gate(
    wire: Wire,
    folder: Path,
    *,
    port: int = 0,
    token: str | None = None,
    admin_token: str | None = None,
    drain_seconds: int = 0,
) -> AsyncIterator[Gate]:
    """Serve inside the block, with certificates in `folder`; leaving it drains the server."""
    certificates = Certificates(folder)
    config = folder / "config.yaml"
    config.write_text(
        configured(wire, certificates, port=port, token=token, admin_token=admin_token, drain_seconds=drain_seconds),
        encoding="utf-8",
    )
    ledgers: list[StallingLedger] = []

    def stalling(clock_ms: Callable[[], int], signing_key: bytes) -> StallingLedger:
        ledgers.append(StallingLedger(clock_ms, signing_key))
        return ledgers[-1]

    # The store is the server's own choice, and memory answers at once: only here can it be slow.
    with patch("extauthz.stores.MemoryLedger", stalling):
        async with running(load(config, {}), new_logger(io.StringIO())) as ports:
            yield Gate(wire, certificates, ports.grpc, ports.admin, ports.http, ledgers[0])


def a_check(
    model: str = PAID,
    *,
    key: str = KEY,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    reservation_id: str | None = None,
    padding_bytes: int = 0,
    more_headers: Mapping[str, str] | None = None,
) -> CheckRequest:
    """Ask about a chat, or about another path, as Envoy does."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi" + "x" * padding_bytes}]}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "content-length": str(len(body))}
    headers.update(more_headers or {})
    extensions = {}
    if reservation_id is not None:
        headers["x-extauthz-id"] = reservation_id
        extensions["extauthz.id"] = "header"
    http = AttributeContext.HttpRequest(method=method, path=path, headers=headers, raw_body=body)
    return CheckRequest(
        attributes=AttributeContext(request=AttributeContext.Request(http=http), context_extensions=extensions)
    )


def an_ending(answer: CheckResponse, *, input_tokens: int, output_tokens: int) -> StreamAccessLogsMessage:
    """Log the end of a request that was allowed with `answer`, as Envoy does after a whole answer of the upstream."""
    entry = HTTPAccessLogEntry()
    common = entry.common_properties
    common.access_log_type = AccessLogType.DownstreamEnd
    common.time_to_first_upstream_tx_byte.nanos = 1
    common.metadata.filter_metadata["envoy.filters.http.ext_authz"].CopyFrom(answer.dynamic_metadata)
    common.metadata.filter_metadata["extauthz.usage"].update(
        {"input_tokens": input_tokens, "output_tokens": output_tokens, "finished": True}
    )
    entry.response.response_code.value = 200
    return StreamAccessLogsMessage(http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry]))
