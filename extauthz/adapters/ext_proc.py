"""`envoy.service.ext_proc.v3.ExternalProcessor`: prunes model lists, on discovery routes, when the Check said so.

One stream per request; Envoy waits for exactly one answer to each message. Bodies are asked for only when they must be
pruned, so that an open list passes untouched. Envoy keeps a short list until its end, and its headers with it, so that
whatever is wrong can still become an error. A long one, as its length tells, is kept here: Envoy's buffers are small.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

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
    HttpBody,
    HttpHeaders,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from extauthz.adapters.encodings import decoded
from extauthz.adapters.listings import decode_listing
from extauthz.adapters.responses import denied
from extauthz.config.snapshot import Snapshot
from extauthz.discovery import visible_in
from extauthz.domain.endpoints import Api
from extauthz.domain.listings import Listing, Shape
from extauthz.domain.pruning import Visible, prune
from extauthz.domain.verdict import Deny, ModelsView, Reason
from extauthz.envoy.names import CHECK_NAMESPACE, LISTING_KEY, MODELS_KEY
from extauthz.telemetry.events import Telemetry

MEBIBYTE = 1024 * 1024

# A list of 50,000 models has 5 MiB in OpenAI's shape; in LiteLLM's /model/info, of 10 KiB a row, these are 3,000 rows.
LIST_BYTES_MAX = 32 * MEBIBYTE
# What is kept of all long lists together: a client that asks for one costs an upstream more than us.
HELD_BYTES_MAX = 128 * MEBIBYTE

# Half of the smallest buffer that Envoys are given (Envoy Gateway's 32 KiB): what is longer is not left to them.
BUFFERED_BYTES_MAX = 16 * 1024

# What is pruned at once. Longer bodies take a thread, so that Checks do not wait for them.
INLINE_BYTES_MAX = 64 * 1024

# More digits than any body has bytes.
LENGTH_DIGITS_MAX = 18

# Headers that would tell of the list as it was. Envoy itself refuses a pruned body with the old content-length.
STALE_HEADERS = (
    "accept-ranges",
    "content-digest",
    "content-encoding",
    "content-length",
    "content-md5",
    "digest",
    "etag",
    "last-modified",
    "link",
    "repr-digest",
)

_SUCCESS = range(200, 300)

_FAILED = Deny(
    Reason.INTERNAL_ERROR,
    503,
    "api_error",
    "The model list could not be pruned. Try again in a moment.",
    should_retry=True,
)
_TOO_LONG = Deny(
    Reason.INTERNAL_ERROR,
    502,
    "api_error",
    "The upstream's model list is too long to be pruned. It may have "
    f"{LIST_BYTES_MAX // MEBIBYTE} MiB with a content-length, and without one what fits into Envoy's buffer.",
)
_TOO_MANY = Deny(
    Reason.INTERNAL_ERROR,
    503,
    "api_error",
    "Too many long model lists are being pruned. Try again in a moment.",
    retry_after_s=1,
    should_retry=True,
)


@dataclass(slots=True)
class _Exchange:
    """One list on its way through: what it may show, and what has come of it.

    `held_bytes` are those that a long one has taken of HELD_BYTES_MAX; 0 for one that Envoy keeps.
    """

    listing: Listing
    visible: Visible
    encoding: str = ""
    held_bytes: int = 0
    body: bytearray = field(default_factory=bytearray)

    def pruned(self) -> bytes:
        """Prune what has come. An encoding that cannot be read leaves nothing to show."""
        return prune(decoded(bytes(self.body), self.encoding, LIST_BYTES_MAX) or b"", self.listing, self.visible)


class PruningService(external_processor_pb2_grpc.ExternalProcessorServicer):
    """Prunes what the Check marked, and leaves everything else alone."""

    def __init__(self, snapshot: Callable[[], Snapshot], telemetry: Telemetry) -> None:
        self._snapshot = snapshot
        self._telemetry = telemetry
        self._held_bytes = 0

    async def Process(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[ProcessingRequest],
        context: grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse],
    ) -> AsyncIterator[ProcessingResponse]:
        """Answer the messages of one request."""
        exchange: _Exchange | None = None
        try:
            async for request in request_iterator:
                exchange = exchange or self._exchange(request)
                answer = await self._process(request, exchange)
                yield answer
                if answer.WhichOneof("response") == "immediate_response":
                    return
        except Exception as error:  # noqa: BLE001 - the one place where every failure of ours becomes a 503
            self._telemetry.failed("ext_proc", error)
            yield _failure(_FAILED, exchange)
        finally:
            self._held_bytes -= exchange.held_bytes if exchange is not None else 0

    def _exchange(self, request: ProcessingRequest) -> _Exchange | None:
        """Read by metadata, which no client and no upstream can write, what must be pruned; None when nothing must."""
        fields = request.metadata_context.filter_metadata.get(CHECK_NAMESPACE)
        if fields is None or MODELS_KEY not in fields:
            return None
        listing = decode_listing(str(fields[LISTING_KEY])) if LISTING_KEY in fields else Listing()
        view = ModelsView(str(fields[MODELS_KEY]))
        return _Exchange(listing, visible_in(view, listing, self._snapshot().catalog))

    async def _process(self, request: ProcessingRequest, exchange: _Exchange | None) -> ProcessingResponse:
        match request.WhichOneof("request"):
            case "request_headers":
                return ProcessingResponse(request_headers=HeadersResponse())
            case "request_body":
                return ProcessingResponse(request_body=BodyResponse())
            case "request_trailers":
                return ProcessingResponse(request_trailers=TrailersResponse())
            case "response_headers" if exchange is not None and _succeeded(request.response_headers):
                return self._begun(request.response_headers, exchange)
            case "response_headers":
                return ProcessingResponse(response_headers=HeadersResponse())
            case "response_body" if exchange is not None:
                return await self._continued(request.response_body, exchange)
            case "response_trailers":
                return ProcessingResponse(response_trailers=TrailersResponse())
            case unknown:
                raise ValueError(f"Envoy sent {unknown or 'a message'} that nobody asked for")

    def _begun(self, headers: HttpHeaders, exchange: _Exchange) -> ProcessingResponse:
        """Ask Envoy for the body, under headers that fit whatever becomes of it."""
        if headers.end_of_stream:
            return ProcessingResponse(response_headers=HeadersResponse(response=CommonResponse(header_mutation=_BARE)))
        exchange.encoding = _header(headers, "content-encoding")
        length = _header(headers, "content-length")
        bytes_expected = int(length) if length.isascii() and length.isdigit() else 0
        if len(length) > LENGTH_DIGITS_MAX or bytes_expected > LIST_BYTES_MAX:
            return _failure(_TOO_LONG, exchange)
        if bytes_expected > BUFFERED_BYTES_MAX:
            if self._held_bytes + bytes_expected > HELD_BYTES_MAX:
                return _failure(_TOO_MANY, exchange)
            exchange.held_bytes = bytes_expected
            self._held_bytes += bytes_expected
        mode = ProcessingMode.STREAMED if exchange.held_bytes else ProcessingMode.BUFFERED_PARTIAL
        return ProcessingResponse(
            response_headers=HeadersResponse(response=CommonResponse(header_mutation=_JSON)),
            mode_override=ProcessingMode(response_body_mode=mode),
        )

    async def _continued(self, part: HttpBody, exchange: _Exchange) -> ProcessingResponse:
        """Take a part of the body: nothing of it goes on before its end, and then what is left of it."""
        exchange.body += part.body
        if len(exchange.body) > LIST_BYTES_MAX or not (part.end_of_stream or exchange.held_bytes):
            # Of a list that is longer than Envoy's buffer comes the beginning alone.
            return _failure(_TOO_LONG, exchange)
        if not part.end_of_stream:
            return _body(BodyMutation(clear_body=True))
        if len(exchange.body) <= INLINE_BYTES_MAX and not exchange.encoding:
            return _body(BodyMutation(body=exchange.pruned()))
        return _body(BodyMutation(body=await asyncio.to_thread(exchange.pruned)))


def _succeeded(headers: HttpHeaders) -> bool:
    """Tell an answer that lists models from an error of the upstream, which passes on as it is."""
    status = _header(headers, ":status")
    return status.isdigit() and int(status) in _SUCCESS


def _header(headers: HttpHeaders, name: str) -> str:
    return next((_value(header) for header in headers.headers.headers if header.key == name), "")


def _value(header: HeaderValue) -> str:
    return header.raw_value.decode("latin-1") if header.raw_value else header.value


def _body(mutation: BodyMutation) -> ProcessingResponse:
    return ProcessingResponse(response_body=BodyResponse(response=CommonResponse(body_mutation=mutation)))


def _mutation(added: Iterable[HeaderValueOption] = ()) -> HeaderMutation:
    return HeaderMutation(set_headers=added, remove_headers=STALE_HEADERS)


def _set(name: str, value: str) -> HeaderValueOption:
    """Set a header, in the one of the two fields that Envoy reads here."""
    return HeaderValueOption(
        header=HeaderValue(key=name, raw_value=value.encode()),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


_BARE = _mutation()
_JSON = _mutation([_set("content-type", "application/json")])


def _failure(refusal: Deny, exchange: _Exchange | None) -> ProcessingResponse:
    """End the request with an error, in the words of the client's API."""
    anthropic = exchange is not None and exchange.listing.shape is Shape.ANTHROPIC
    error = denied(refusal, Api.ANTHROPIC if anthropic else Api.OPENAI).denied_response
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=error.status,
            headers=HeaderMutation(set_headers=[_set(item.header.key, item.header.value) for item in error.headers]),
            body=error.body.encode(),
            details="extauthz_prune_failed",
        )
    )
