"""A collector of traces: OpenTelemetry's own messages, received by OTLP over gRPC as any collector does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.processes import LOOPBACK


@dataclass(slots=True)
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every batch as it came."""

    port: int = 0
    batches: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Tell an exporter where this is, and to hurry."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "20"}

    @property
    def spans(self) -> list[Span]:
        """All spans so far, as they came."""
        return [
            span
            for batch in self.batches
            for resource in batch.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def bytes(self) -> bytes:
        """Everything that came."""
        return b"".join(batch.SerializeToString() for batch in self.batches)

    def named(self, name: str) -> list[Span]:
        """List the spans with a name."""
        return [span for span in self.spans if span.name == name]

    async def Export(  # noqa: N802 - gRPC's name
        self,
        request: ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext[ExportTraceServiceRequest, ExportTraceServiceResponse],
    ) -> ExportTraceServiceResponse:
        """Take a batch."""
        self.batches.append(request)
        return ExportTraceServiceResponse()


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Collect traces inside the block."""
    running, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(running, server)  # type: ignore[no-untyped-call]
    running.port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    try:
        yield running
    finally:
        await server.stop(None)


def attributes(of: Span) -> dict[str, str | int | float | bool]:
    """Read the attributes of a span."""
    return values(of.attributes)


def values(pairs: Iterable[KeyValue]) -> dict[str, str | int | float | bool]:
    """Read pairs as Python's own values."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> str | int | float | bool:
    kind = value.WhichOneof("value")
    assert kind is not None
    found: str | int | float | bool = getattr(value, kind)
    return found
