"""`envoy.service.ext_proc.v3.ExternalProcessor`: prunes model lists, on discovery routes, when the Check said so.

One stream per request; Envoy waits for exactly one answer to each message. Bodies are asked for only when they must be
pruned, so that an open list passes untouched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc.aio

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from extauthz._proto.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from extauthz._proto.envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from extauthz._proto.envoy.type.v3.http_status_pb2 import HttpStatus
from extauthz.config.snapshot import Snapshot
from extauthz.domain.pruning import prune
from extauthz.domain.verdict import ModelsView
from extauthz.envoy.names import CHECK_NAMESPACE, MODELS_KEY
from extauthz.telemetry.events import Telemetry

# Headers that would tell of the list as it was. Envoy itself refuses a pruned body with the old content-length.
STALE_HEADERS = ("content-length", "content-encoding", "etag", "last-modified", "content-md5", "digest")

_SUCCESS = range(200, 300)


class PruningService(external_processor_pb2_grpc.ExternalProcessorServicer):
    """Prunes what the Check marked, and leaves everything else alone."""

    def __init__(self, snapshot: Callable[[], Snapshot], telemetry: Telemetry) -> None:
        self._snapshot = snapshot
        self._telemetry = telemetry

    async def Process(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[ProcessingRequest],
        context: grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse],
    ) -> AsyncIterator[ProcessingResponse]:
        """Answer the messages of one request."""
        async for request in request_iterator:
            try:
                yield self._process(request)
            except Exception as error:  # noqa: BLE001 - the one place where every failure of ours becomes a 503
                self._telemetry.failed("ext_proc", error)
                yield _failure()
                return

    def _process(self, request: ProcessingRequest) -> ProcessingResponse:
        match request.WhichOneof("request"):
            case "request_headers":
                return ProcessingResponse(request_headers=HeadersResponse())
            case "request_body":
                return ProcessingResponse(request_body=BodyResponse())
            case "request_trailers":
                return ProcessingResponse(request_trailers=TrailersResponse())
            case "response_headers" if _must_prune(request) and _succeeded(request.response_headers):
                return _take_body(end_of_stream=request.response_headers.end_of_stream)
            case "response_headers":
                return ProcessingResponse(response_headers=HeadersResponse())
            case "response_body":
                pruned = prune(request.response_body.body, self._snapshot().catalog.is_free)
                change = CommonResponse(body_mutation=BodyMutation(body=pruned))
                return ProcessingResponse(response_body=BodyResponse(response=change))
            case "response_trailers":
                return ProcessingResponse(response_trailers=TrailersResponse())
            case unknown:
                raise ValueError(f"Envoy sent {unknown or 'a message'} that extauthz does not know")


def _must_prune(request: ProcessingRequest) -> bool:
    """Tell by metadata, which no client and no upstream can write."""
    fields = request.metadata_context.filter_metadata.get(CHECK_NAMESPACE)
    return fields is not None and MODELS_KEY in fields and fields[MODELS_KEY] == ModelsView.FREE_ONLY


def _succeeded(headers: HttpHeaders) -> bool:
    """Tell an answer that lists models from an error of the upstream, which passes on as it is."""
    status = next((_value(header) for header in headers.headers.headers if header.key == ":status"), "")
    return status.isdigit() and int(status) in _SUCCESS


def _value(header: HeaderValue) -> str:
    return header.raw_value.decode("latin-1") if header.raw_value else header.value


def _take_body(*, end_of_stream: bool) -> ProcessingResponse:
    """Ask Envoy for the whole body, under headers that fit whatever becomes of it."""
    if end_of_stream:
        return ProcessingResponse(response_headers=HeadersResponse())
    content_type = HeaderValueOption(
        header=HeaderValue(key="content-type", raw_value=b"application/json"),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    mutation = HeaderMutation(set_headers=[content_type], remove_headers=STALE_HEADERS)
    return ProcessingResponse(
        response_headers=HeadersResponse(response=CommonResponse(header_mutation=mutation)),
        mode_override=ProcessingMode(response_body_mode=ProcessingMode.BUFFERED),
    )


def _failure() -> ProcessingResponse:
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=HttpStatus(code=503),  # type: ignore[arg-type]  # the enum is open
            body=b'{"error":{"message":"The model list could not be pruned. Try again in a moment.",'
            b'"type":"api_error","param":null,"code":null}}',
            details="extauthz_prune_failed",
        )
    )
