"""OpenTelemetry traces, with the extra `tracing`: a span for each Check, and one for each reservation that it made.

Where they go, how many are kept and what the service is called say the standard environment variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, …); they leave by OTLP over gRPC.

A span is made when all is over, so that no decision waits for it. Its ids are those that the reservation's id leads to:
the end of a reservation, at any replica, finds the span of the Check that made it. A client's traceparent puts both
into the client's trace. No key, no prompt and no body gets into a span, and of the path no query.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision as Sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extauthz.domain.endpoints import Endpoint
from extauthz.domain.money import usd
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import public_id
from extauthz.domain.trace import carried, headers_of
from extauthz.domain.verdict import Admit, Decision, Deny, Reason
from extauthz.pricing.catalog import Catalog
from extauthz.telemetry.decision_log import METHOD_CHARS_MAX, PATH_CHARS_MAX
from extauthz.telemetry.events import Finished, Telemetry

CHECK_SPAN, RESERVATION_SPAN = "extauthz check", "extauthz reservation"

# How long the end of the process waits for the last spans.
CLOSE_SECONDS = 2.0

# OpenTelemetry's own words (gen_ai.operation.name, gen_ai.provider.name) where they differ from ours and LiteLLM's.
_OPERATIONS = {
    Endpoint.CHAT_COMPLETIONS: "chat",
    Endpoint.COMPLETIONS: "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.RESPONSES: "chat",
    Endpoint.MESSAGES: "chat",
    Endpoint.GENERATE_CONTENT: "generate_content",
}
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_OUR_FAILURES = (Reason.STORE_UNAVAILABLE, Reason.INTERNAL_ERROR)

_Attributes = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class _SpanIds:
    """The trace and the span of the Check that made a reservation."""

    trace_id: int
    span_id: int

    @classmethod
    def of(cls, reservation_id: str) -> _SpanIds:
        """Lead from a reservation's id to its span, which a support person finds by the id that the client saw."""
        digest = hashlib.sha256(reservation_id.encode()).hexdigest()
        return cls(trace_id=int(digest[16:48], 16), span_id=int(public_id(reservation_id), 16))


class _Ids(IdGenerator):
    """Gives the next span the ids that were chosen for it, if any were."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.chosen: _SpanIds | None = None

    def generate_span_id(self) -> int:
        """Give the id of a new span."""
        return self._random.generate_span_id() if self.chosen is None else self.chosen.span_id

    def generate_trace_id(self) -> int:
        """Give the id of a new trace."""
        return self._random.generate_trace_id() if self.chosen is None else self.chosen.trace_id

    def is_trace_id_random(self) -> bool:
        """Tell that samplers may draw by the id: a hash is as good as a die."""
        return True


class _Watched(SpanExporter):
    """Passes spans on to an exporter, and tells how many of them were lost."""

    def __init__(self, exporter: SpanExporter, lost: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._lost = lost

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; this is the processor's own thread."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost(len(spans))
        return result

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._exporter.shutdown()


class _LastComplaint(logging.Handler):
    """Keeps OpenTelemetry's own log lines off standard error, and of the exporter's the last one.

    Others are not kept: a malformed OTEL_EXPORTER_OTLP_HEADERS, which has secrets, is quoted in them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        if record.name.startswith("opentelemetry.exporter.") and record.levelno >= logging.ERROR:
            self.text = record.getMessage()


class Tracing(Telemetry):
    """Makes spans of what it hears. `unix_ns` is this process's clock; `lost` hears of spans that got nowhere, and why.

    `lost` is called from another thread.
    """

    def __init__(
        self, catalog: Callable[[], Catalog], unix_ns: Callable[[], int], lost: Callable[[int, str], None]
    ) -> None:
        self._catalog = catalog
        self._unix_ns = unix_ns
        self._complaints = _LastComplaint()
        self._quieten(self._complaints)
        self._ids = _Ids()
        version = importlib.metadata.version("extauthz")
        resource = Resource.create({SERVICE_VERSION: version} | ({} if _named() else {SERVICE_NAME: "extauthz"}))
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        exporter = _Watched(OTLPSpanExporter(), lambda count: lost(count, self._complaints.text))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("extauthz", version)
        self._propagator = TraceContextTextMapPropagator()

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Make the span of a Check."""
        ended_ns = self._unix_ns()
        verdict = decision.verdict
        self._ids.chosen = _SpanIds.of(verdict.hold.id) if isinstance(verdict, Admit) else None
        span = self._tracer.start_span(
            CHECK_SPAN,
            context=self._context(None if facts is None else carried(facts.headers)),
            kind=SpanKind.SERVER,
            start_time=ended_ns - int(seconds * 1e9),
        )
        if span.is_recording():
            span.set_attributes(_present(self._of_decision(decision, facts)))
            if decision.judged.reason in _OUR_FAILURES:
                span.set_status(Status(StatusCode.ERROR))
        span.end(ended_ns)

    def finished(self, finished: Finished) -> None:
        """Make the span of a reservation, from when it was made to its end."""
        ended_ns = self._unix_ns()
        self._ids.chosen = None
        span = self._tracer.start_span(
            RESERVATION_SPAN,
            context=self._check_context(finished),
            kind=SpanKind.INTERNAL,
            # Reserved by the store's clock, which may be ahead of this one.
            start_time=min(finished.hold.reserved_at_ms * 1_000_000, ended_ns),
        )
        if span.is_recording():
            span.set_attributes(_present(self._of_reservation(finished)))
        span.end(ended_ns)

    async def close(self) -> None:
        """Send what is left, for at most CLOSE_SECONDS."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)
        logging.getLogger("opentelemetry").removeHandler(self._complaints)

    def _context(self, place: str | None) -> Context:
        """Read a place in a trace; none, or a malformed one, begins a trace."""
        return self._propagator.extract(headers_of(place), Context())

    def _check_context(self, finished: Finished) -> Context:
        """Find the span of the Check that a reservation was made by."""
        ids = _SpanIds.of(finished.hold.id)
        client = trace.get_current_span(self._context(finished.trace)).get_span_context()
        if client.is_valid:
            parent = SpanContext(client.trace_id, ids.span_id, True, client.trace_flags, client.trace_state)
        else:
            drawn = self._provider.sampler.should_sample(None, ids.trace_id, CHECK_SPAN, SpanKind.SERVER)
            flags = TraceFlags(
                TraceFlags.SAMPLED if drawn.decision is Sampling.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
            )
            parent = SpanContext(ids.trace_id, ids.span_id, True, flags)
        return trace.set_span_in_context(NonRecordingSpan(parent), Context())

    def _of_decision(self, decision: Decision, facts: RequestFacts | None) -> _Attributes:
        verdict, judged = decision.verdict, decision.judged
        return {
            **self._of_model(decision.model),
            "gen_ai.operation.name": _operation(decision),
            "http.request.method": None if facts is None else facts.method[:METHOD_CHARS_MAX],
            "url.path": None if facts is None else facts.path.partition("?")[0][:PATH_CHARS_MAX],
            "extauthz.decision": str(decision.word),
            "extauthz.reason": str(judged.reason),
            "extauthz.status": judged.status if isinstance(judged, Deny) else None,
            "extauthz.scope": judged.scope if isinstance(judged, Deny) else None,
            "extauthz.route_class": str(decision.route_class),
            "extauthz.principal": decision.principal,
            "extauthz.reservation": public_id(verdict.hold.id) if isinstance(verdict, Admit) else None,
            "extauthz.estimate_usd": None if decision.estimate is None else _usd(decision.estimate.cost_nanousd),
        }

    def _of_reservation(self, finished: Finished) -> _Attributes:
        usage, hold = finished.usage, finished.hold
        return {
            **self._of_model(hold.model),
            "gen_ai.usage.input_tokens": None if usage is None else usage.input_tokens,
            "gen_ai.usage.output_tokens": None if usage is None else usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": None if usage is None else usage.cache_read_input_tokens,
            "gen_ai.usage.cache_creation.input_tokens": None if usage is None else usage.cache_creation_input_tokens,
            "gen_ai.usage.reasoning.output_tokens": None if usage is None else usage.reasoning_output_tokens,
            "extauthz.how": str(finished.how),
            "extauthz.ending": str(finished.ending),
            "extauthz.reservation": public_id(hold.id),
            "extauthz.estimate_usd": _usd(hold.estimate.cost_nanousd),
            "extauthz.cost_usd": _usd(finished.spent.cost_nanousd),
        }

    def _of_model(self, name: str | None) -> _Attributes:
        """Name a model by its entry in the model list, which no client writes, and who serves it."""
        if name is None:
            return {}
        catalog = self._catalog()
        provider = catalog.provider(name)
        return {
            "gen_ai.request.model": catalog.entry(name),
            "gen_ai.provider.name": None if provider is None else _PROVIDERS.get(provider, provider),
        }

    @staticmethod
    def _quieten(handler: logging.Handler) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(handler)
        logger.propagate = False


def _named() -> bool:
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _operation(decision: Decision) -> str | None:
    return None if decision.endpoint is None else _OPERATIONS.get(Endpoint(decision.endpoint))


def _present(attributes: _Attributes) -> dict[str, str | int | float]:
    return {name: value for name, value in attributes.items() if value is not None}


def _usd(nanousd: int) -> float:
    return float(usd(nanousd))
