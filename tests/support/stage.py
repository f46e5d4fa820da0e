"""A stage for one Envoy: the server it asks and logs to, the upstream, and the client, all in the test's own process.

The upstream sends the next piece of an answer only when the client has the last one. So a cut is where the test put it:
no kernel and no Envoy can have joined two pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO
from itertools import accumulate
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc.aio
from google.protobuf.struct_pb2 import Struct

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse, OkHttpResponse
from extauthz.envoy.names import USAGE_NAMESPACE
from extauthz.usage import Field
from tests.support.metered import JSON
from tests.support.processes import LOOPBACK, eventually
from tests.support.raw import Connections

PATH = "/v1/chat/completions"
STEP_SECONDS_MAX = 10.0


class Ending(Enum):
    """What the upstream does after the last piece."""

    WHOLE = "whole"  # end the body as HTTP says
    HANG = "hang"  # wait until the connection is gone
    BREAK = "break"  # close the connection in the middle of the body


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is asked, decided and answered in one request.

    `metadata` is what the Check adds to the mere reservation; `reserved` False leaves that out too. `awaited` says, for
    each piece, how many bytes the client must have got before the next one goes out; by default all of them. `length`
    sends a content-length instead of chunks. The Check adds `check_headers` to the request and `answer_headers` to the
    answer. With `leave_after`, the client hangs up when it has that many bytes.
    """

    pieces: tuple[bytes, ...]
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = Ending.WHOLE
    length: bool = False
    method: str = "POST"
    path: str = PATH
    request: bytes = b'{"model":"m"}'
    request_headers: tuple[tuple[str, str], ...] = ()
    reserved: bool = True
    metadata: dict[str, Field] = field(default_factory=dict)
    check_headers: tuple[tuple[str, str], ...] = ()
    answer_headers: tuple[tuple[str, str], ...] = ()
    awaited: tuple[int, ...] | None = None
    leave_after: int | None = None


@dataclass(slots=True)
class Performance:
    """How an exchange went."""

    exchange: Exchange
    number: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)
    upstream_headers: dict[str, str] = field(default_factory=dict)
    upstream_body: bytes = b""
    check: CheckRequest = field(default_factory=CheckRequest)
    entries: list[HTTPAccessLogEntry] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> HTTPAccessLogEntry | None:
        """The log entry of the stream's end, None while it has not come."""
        return next((entry for entry in self.entries if _type(entry) == AccessLogType.DownstreamEnd), None)

    @property
    def progress(self) -> list[dict[str, object]]:
        """The usage fields of the entries that were logged while the stream lived."""
        return [usage_of(entry) for entry in self.entries if _type(entry) == AccessLogType.DownstreamPeriodic]

    def seen_by_check(self, name: str) -> list[str]:
        """Give the values of a request header as the Check got them: raw, or joined by commas."""
        http = self.check.attributes.request.http
        raw = [header.raw_value.decode() for header in http.header_map.headers if header.key == name]
        return raw or [value for key, value in http.headers.items() if key == name]

    async def usage(self) -> dict[str, object]:
        """Wait for the end, and give the usage fields that were logged with it."""
        ended = await eventually(lambda: self.ended, what="the stream's end is logged")
        assert ended is not None
        return usage_of(ended)


class Stage(external_auth_pb2_grpc.AuthorizationServicer, als_pb2_grpc.AccessLogServiceServicer):
    """Server, upstream and client, while the `async with` block runs. `perform` plays an exchange through an Envoy."""

    def __init__(self) -> None:
        self.extauthz_port = 0
        self.upstream_port = 0
        self.performances: list[Performance] = []
        self._server = grpc.aio.server()
        self._upstream = Connections(self._answer)
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(self, self._server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self, self._server)
        self.extauthz_port = self._server.add_insecure_port(f"{LOOPBACK}:0")
        await self._server.start()
        await self._upstream.__aenter__()
        self.upstream_port = self._upstream.port
        self._client = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.close()
        await self._upstream.__aexit__(kind, error, traceback)
        await self._server.stop(grace=None)

    async def perform(self, url: str, exchange: Exchange) -> Performance:
        """Send a request to Envoy, and take its answer to the end or until the client shall leave."""
        assert self._client is not None, "open the stage first: async with Stage()"
        performance = self.begin(exchange)
        async with self._client.request(
            exchange.method,
            f"{url}{exchange.path}?exchange={performance.number}",
            data=BytesIO(exchange.request),
            headers=[("content-type", JSON), *exchange.request_headers],
        ) as answer:
            performance.status = answer.status
            performance.headers = {name.lower(): value for name, value in answer.headers.items()}
            try:
                async for data in answer.content.iter_any():
                    performance.received += data
                    performance.moved.set()
                    if exchange.leave_after is not None and len(performance.received) >= exchange.leave_after:
                        answer.close()
                        break
            except aiohttp.ClientPayloadError:
                assert exchange.ending is Ending.BREAK, "the answer broke off, and should not have"
        return performance

    def begin(self, exchange: Exchange) -> Performance:
        """Expect a request, whose query says the number of the performance."""
        performance = Performance(exchange, len(self.performances))
        self.performances.append(performance)
        return performance

    async def Check(  # noqa: N802 - gRPC's name
        self, request: CheckRequest, context: grpc.aio.ServicerContext[CheckRequest, CheckResponse]
    ) -> CheckResponse:
        """Allow, with the metadata and headers that the exchange wants."""
        performance = self._of(request.attributes.request.http.path)
        performance.check = request
        exchange = performance.exchange
        metadata = Struct()
        metadata.update({**({"extauthz.r": "a hold"} if exchange.reserved else {}), **exchange.metadata})
        ok = OkHttpResponse(
            headers=map(_header, exchange.check_headers), response_headers_to_add=map(_header, exchange.answer_headers)
        )
        return CheckResponse(ok_response=ok, dynamic_metadata=metadata)

    async def StreamAccessLogs(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[StreamAccessLogsMessage],
        context: grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse],
    ) -> StreamAccessLogsResponse:
        """Keep every entry with its exchange."""
        async for message in request_iterator:
            for entry in message.http_logs.log_entry:
                self._of(entry.request.path).entries.append(entry)
        return StreamAccessLogsResponse()

    def _of(self, path: str) -> Performance:
        return self.performances[int(parse_qs(urlsplit(path).query)["exchange"][0])]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and tell whether the connection can take another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        performance = self._of(head[0].split(" ")[1])
        exchange = performance.exchange
        performance.upstream_headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        length = int(performance.upstream_headers.get("content-length", "0"))
        performance.upstream_body = await reader.readexactly(length)

        framing = (
            f"content-length: {sum(map(len, exchange.pieces))}" if exchange.length else "transfer-encoding: chunked"
        )
        headers = [f"content-type: {exchange.content_type}", framing, *map(": ".join, exchange.headers)]
        writer.write("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode())
        awaited = exchange.awaited or tuple(accumulate(map(len, exchange.pieces)))
        for piece, needed in zip(exchange.pieces, awaited, strict=True):
            writer.write(piece if exchange.length else b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await self._until(performance, needed)
        match exchange.ending:
            case Ending.WHOLE:
                writer.write(b"" if exchange.length else b"0\r\n\r\n")
                await writer.drain()
                return True
            case Ending.HANG:
                await reader.read(1)
        return False

    async def _until(self, performance: Performance, needed: int) -> None:
        async with asyncio.timeout(STEP_SECONDS_MAX):
            while len(performance.received) < needed:
                performance.moved.clear()
                await performance.moved.wait()


def usage_of(entry: HTTPAccessLogEntry) -> dict[str, object]:
    """Give the fields that the meter wrote."""
    return dict(entry.common_properties.metadata.filter_metadata[USAGE_NAMESPACE].items())


def _header(pair: tuple[str, str]) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=pair[0], value=pair[1]), append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    )


def _type(entry: HTTPAccessLogEntry) -> int:
    return entry.common_properties.access_log_type
