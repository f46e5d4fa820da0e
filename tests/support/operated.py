"""A server in the test's own process with everything that an operator calls, and all that it writes."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import grpc
import grpc.aio
import pytest

from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz._proto.extauthz.diagnostics.v1.diagnostics_pb2_grpc import DiagnosticsStub
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.server import running
from extauthz.telemetry.log import new_logger
from tests.support.gate import CALL_SECONDS_MAX, PAID, a_check
from tests.support.processes import LOOPBACK
from tests.support.stack import Metrics

# A survey every so often, and not every five seconds: tests wait for what is in one.
SURVEY_SECONDS = 0.05

LISTENING = f"  listen: {{grpc: '{LOOPBACK}:0', admin: '{LOOPBACK}:0', http: '{LOOPBACK}:0'}}\n  drain_seconds: 0\n"


Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Office:
    """A running server. `key` is whose requests `check` makes."""

    config: Snapshot
    gate: grpc.aio.Channel
    admin: grpc.aio.Channel
    http_port: int
    written: io.StringIO

    async def call(self, method: str, *, metadata: Metadata = (), **fields: Any) -> Any:  # noqa: ANN401 - any message
        """Call a method of Diagnostics with the fields of its request."""
        return await self.stream(method, metadata=metadata, **fields)

    def stream(self, method: str, *, metadata: Metadata = (), **fields: Any) -> Any:  # noqa: ANN401 - as above
        """Call a method that streams."""
        stub: Any = DiagnosticsStub(self.admin)
        request = getattr(pb, f"{method}Request")(**fields)
        return getattr(stub, method)(request, metadata=metadata, timeout=CALL_SECONDS_MAX)

    async def check(self, model: str = PAID, *, metadata: Metadata = (), **wanted: Any) -> CheckResponse:  # noqa: ANN401
        """Make a Check as Envoy does."""
        stub: Any = AuthorizationStub(self.gate)
        answer: CheckResponse = await stub.Check(a_check(model, **wanted), metadata=metadata, timeout=CALL_SECONDS_MAX)
        return answer

    async def metrics(self) -> Metrics:
        """Read all metrics."""
        return Metrics(await self.metrics_text())

    async def metrics_text(self) -> str:
        """Read the page of all metrics."""
        url = f"http://{LOOPBACK}:{self.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()

    def lines(self, event: str) -> list[Mapping[str, Any]]:
        """Give the lines of the log about an event."""
        lines = [json.loads(line) for line in self.written.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


@asynccontextmanager
async def operated(folder: Path, config: str, *, survey_seconds: float = SURVEY_SECONDS) -> AsyncIterator[Office]:
    """Serve inside the block a configuration that ends in its section `extauthz`."""
    path = folder / "config.yaml"
    path.write_text(config + LISTENING, encoding="utf-8")
    snapshot, written = load(path, {}), io.StringIO()
    async with AsyncExitStack() as stack:
        stack.enter_context(patch("extauthz.survey.INTERVAL_S", survey_seconds))
        ports = await stack.enter_async_context(running(snapshot, new_logger(written)))
        gate = await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.grpc}"))
        admin = await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{ports.admin}"))
        yield Office(snapshot, gate, admin, ports.http, written)


@contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[pytest.ExceptionInfo[grpc.aio.AioRpcError]]:
    """Expect a call inside the block to end with a status, and a sentence that has these words."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        yield failure
    assert code == failure.value.code(), failure.value.details()
    details = failure.value.details() or ""
    assert all(word in details for word in words), details
