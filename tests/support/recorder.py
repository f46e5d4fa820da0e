"""A server that records what Envoy tells it and answers what a test has laid out, and an upstream that writes bytes.

Both serve one Envoy and everything in them is found by the path of a request.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

import grpc.aio
from google.protobuf.message import Message

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse, OkHttpResponse
from extauthz._proto.envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from tests.support.processes import LOOPBACK, eventually
from tests.support.raw import Connections, read_body, read_head

ALLOWED = CheckResponse(ok_response=OkHttpResponse())
HANG_SECONDS_MAX = 30.0


class Recorder(
    external_auth_pb2_grpc.AuthorizationServicer,
    external_processor_pb2_grpc.ExternalProcessorServicer,
    als_pb2_grpc.AccessLogServiceServicer,
):
    """The server, on a free loopback port while the `async with` block runs.

    `verdicts` are the answers to Checks, by path; everything else is allowed. `processing` are the answers to messages
    of ext_proc, by path and kind of message; everything else goes on unchanged. `sent` and `received` hold every
    message, in order.
    """

    def __init__(
        self, verdicts: Mapping[str, CheckResponse], processing: Mapping[str, Mapping[str, ProcessingResponse]]
    ) -> None:
        self.port = 0
        self.sent: list[Message] = []
        self.received: list[Message] = []
        self.checks: dict[str, CheckRequest] = {}
        self.processed: defaultdict[str, dict[str, ProcessingRequest]] = defaultdict(dict)
        self._verdicts = verdicts
        self._processing = processing
        self._server = grpc.aio.server()

    async def __aenter__(self) -> Self:
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(self, self._server)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(self, self._server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:0")
        await self._server.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._server.stop(grace=None)

    @property
    def batches(self) -> list[StreamAccessLogsMessage]:
        """The batches of access-log entries so far."""
        return [message for message in self.received if isinstance(message, StreamAccessLogsMessage)]

    def entries(self, path: str, kind: AccessLogType = AccessLogType.DownstreamEnd) -> list[HTTPAccessLogEntry]:
        """Give the entries of requests to a path, as the client wrote it."""
        return [
            entry
            for batch in self.batches
            for entry in batch.http_logs.log_entry
            if path in (entry.request.path.partition("?")[0], entry.request.original_path)
            and entry.common_properties.access_log_type == kind
        ]

    async def ended(self, path: str) -> HTTPAccessLogEntry:
        """Wait for the entry of a stream's end."""
        return (await eventually(lambda: self.entries(path), what=f"the end of {path} is logged"))[-1]

    async def Check(  # noqa: N802 - gRPC's name
        self, request: CheckRequest, context: grpc.aio.ServicerContext[CheckRequest, CheckResponse]
    ) -> CheckResponse:
        """Answer as laid out for the path."""
        path = request.attributes.request.http.path
        self.received.append(request)
        self.checks[path] = request
        answer = self._verdicts.get(path, ALLOWED)
        self.sent.append(answer)
        return answer

    async def Process(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[ProcessingRequest],
        context: grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse],
    ) -> AsyncIterator[ProcessingResponse]:
        """Answer each message of a request as laid out. The first are the request's headers, which tell the path."""
        path = ""
        async for request in request_iterator:
            kind = str(request.WhichOneof("request"))
            if kind == "request_headers":
                headers = request.request_headers.headers.headers
                path = next(header.raw_value.decode() for header in headers if header.key == ":path")
            self.received.append(request)
            self.processed[path][kind] = request
            answer = self._processing.get(path, {}).get(kind) or _unchanged(kind)
            self.sent.append(answer)
            yield answer

    async def StreamAccessLogs(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[StreamAccessLogsMessage],
        context: grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse],
    ) -> StreamAccessLogsResponse:
        """Keep every batch."""
        async for message in request_iterator:
            self.received.append(message)
        return StreamAccessLogsResponse()


def _unchanged(kind: str) -> ProcessingResponse:
    answer = ProcessingResponse()
    getattr(answer, kind).SetInParent()
    return answer


class Ending(Enum):
    """What the upstream does when it has written its bytes."""

    KEEP = "keep"  # it takes the next request
    HANG = "hang"  # it waits until the other side is gone
    CLOSE = "close"  # it closes the connection


@dataclass(frozen=True, slots=True)
class Script:
    """What the upstream writes to a request, to the byte."""

    data: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    ending: Ending = Ending.KEEP


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the upstream got it."""

    headers: Mapping[str, str]
    body: bytes
    trailers: Mapping[str, str]
    query: str = ""


@dataclass(slots=True)
class RawUpstream:
    """The upstream, on a free loopback port while the `async with` block runs.

    `scripts` are what it writes, by path; `seen` is what it got, by path. Neither path has the query.
    """

    scripts: Mapping[str, Script]
    seen: dict[str, Seen] = field(default_factory=dict)
    _connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        self._connections = Connections(self._answer)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._connections.port

    async def __aenter__(self) -> Self:
        await self._connections.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._connections.__aexit__(*failure)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and tell whether the connection can take another."""
        start, headers = await read_head(reader)
        path, _, query = start.split(" ")[1].partition("?")
        self.seen[path] = Seen(headers, *await read_body(reader, headers), query)
        script = self.scripts.get(path, Script())
        writer.write(script.data)
        await writer.drain()
        if script.ending is Ending.HANG:
            async with asyncio.timeout(HANG_SECONDS_MAX):
                await reader.read(1)
        return script.ending is Ending.KEEP
