"""Exchanges that make an Envoy send every message and field that we define, and feel every one that it gets.

`played` plays all of them. What the server and the upstream answer is laid out by the path of a request, and the path
says what the exchange is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, status_pb2

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption, QueryParameter
from extauthz._proto.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
    TrailersResponse,
)
from extauthz._proto.envoy.type.v3.http_status_pb2 import HttpStatus
from extauthz.envoy.bootstrap import Document
from extauthz.envoy.names import CHECK_FILTER, PRUNE_FILTER
from tests.support import http2
from tests.support.envoy import EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import LOOPBACK, eventually, free_port
from tests.support.raw import Reply, send
from tests.support.recorder import Ending, RawUpstream, Recorder, Script

NAMESPACE = "tested"
HEARTBEAT_SECONDS = 0.1
SHORT = "0.4s"
BODY = b'{"model":"m"}'
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
WITH_TRAILERS = STREAM + b"0\r\nx-answered: yes\r\n\r\n"

# ---------------------------------------------------------------- what the server answers

Action = HeaderValueOption.HeaderAppendAction
OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def header(name: str, value: str, action: Action = OVERWRITE) -> HeaderValueOption:
    """Set a header as ext_authz reads it."""
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=action)


def raw_header(name: str, value: bytes) -> HeaderValueOption:
    """Set a header as ext_proc reads it."""
    return HeaderValueOption(header=HeaderValue(key=name, raw_value=value), append_action=OVERWRITE)


def metadata(fields: dict[str, str | bool]) -> Struct:
    """Write dynamic metadata."""
    struct = Struct()
    struct.update(fields)
    return struct


ACTIONS = {
    "x-append": HeaderValueOption.APPEND_IF_EXISTS_OR_ADD,
    "x-absent": HeaderValueOption.ADD_IF_ABSENT,
    "x-overwrite": HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    "x-exists": HeaderValueOption.OVERWRITE_IF_EXISTS,
    "x-never": HeaderValueOption.OVERWRITE_IF_EXISTS,
}
VERDICTS = {
    "/ok": CheckResponse(
        status=status_pb2.Status(code=code_pb2.OK),
        ok_response=OkHttpResponse(
            headers=[header("x-set", "by the Check")],
            headers_to_remove=["x-unwanted"],
            query_parameters_to_set=[QueryParameter(key="set", value="here")],
            response_headers_to_add=[header(name, "ours", action) for name, action in ACTIONS.items()],
        ),
        dynamic_metadata=metadata({"extauthz.r": "a hold", "extauthz.inject": True}),
    ),
    "/denied": CheckResponse(
        status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=429),  # type: ignore[arg-type]  # the enum is open
            headers=[header("x-why", "money"), header("content-type", "application/json")],
            body='{"error":{}}',
        ),
    ),
    "/proc/full": CheckResponse(ok_response=OkHttpResponse(), dynamic_metadata=metadata({"extauthz.models": "free"})),
}

EVERYTHING = ProcessingMode(
    response_header_mode=ProcessingMode.SEND,
    request_body_mode=ProcessingMode.BUFFERED,
    response_body_mode=ProcessingMode.BUFFERED,
    request_trailer_mode=ProcessingMode.SEND,
    response_trailer_mode=ProcessingMode.SEND,
)
RESPONSE_BODY = ProcessingMode(response_header_mode=ProcessingMode.SEND, response_body_mode=ProcessingMode.BUFFERED)
NO_LENGTH = HeaderMutation(remove_headers=["content-length"])


def on_headers(**change: Any) -> HeadersResponse:  # noqa: ANN401 - the fields of CommonResponse
    """Answer headers with a change."""
    return HeadersResponse(response=CommonResponse(**change))


def on_body(**mutation: Any) -> BodyResponse:  # noqa: ANN401 - the fields of BodyMutation
    """Answer a body with a change."""
    return BodyResponse(response=CommonResponse(body_mutation=BodyMutation(**mutation)))


def on_trailers(name: str) -> TrailersResponse:
    """Answer trailers with one more."""
    return TrailersResponse(header_mutation=HeaderMutation(set_headers=[raw_header(name, b"added")]))


PROCESSING = {
    "/proc/full": {
        "request_headers": ProcessingResponse(
            request_headers=on_headers(
                header_mutation=HeaderMutation(
                    set_headers=[raw_header("x-set", b"by \xc3\xa4")], remove_headers=["x-unwanted", "content-length"]
                )
            ),
            mode_override=EVERYTHING,
        ),
        "request_body": ProcessingResponse(request_body=on_body(body=b"asked otherwise")),
        "request_trailers": ProcessingResponse(request_trailers=on_trailers("x-request-tail")),
        "response_headers": ProcessingResponse(response_headers=on_headers(header_mutation=NO_LENGTH)),
        "response_body": ProcessingResponse(response_body=on_body(body=b"answered otherwise")),
        "response_trailers": ProcessingResponse(response_trailers=on_trailers("x-response-tail")),
    },
    "/proc/replace": {
        "request_headers": ProcessingResponse(
            request_headers=on_headers(
                status=CommonResponse.CONTINUE_AND_REPLACE,
                header_mutation=NO_LENGTH,
                body_mutation=BodyMutation(body=b"replaced"),
            )
        )
    },
    "/proc/clear": {
        "request_headers": ProcessingResponse(request_headers=HeadersResponse(), mode_override=RESPONSE_BODY),
        "response_headers": ProcessingResponse(response_headers=on_headers(header_mutation=NO_LENGTH)),
        "response_body": ProcessingResponse(response_body=on_body(clear_body=True)),
    },
    "/proc/immediate": {
        "request_headers": ProcessingResponse(
            immediate_response=ImmediateResponse(
                status=HttpStatus(code=503),  # type: ignore[arg-type]  # the enum is open
                headers=HeaderMutation(set_headers=[raw_header("x-why", b"a failure")]),
                body=b"not today",
                details="said_so",
            )
        )
    },
}

# ---------------------------------------------------------------- what the upstream answers

PAIRS = "".join(f"{name}: theirs\r\n" for name in ACTIONS if name != "x-never")
SCRIPTS = {
    "/ok": Script(f"HTTP/1.1 200 OK\r\n{PAIRS}x-answer: 42\r\ncontent-length: 5\r\n\r\nhello".encode()),
    "/proc/full": Script(WITH_TRAILERS),
    "/timeout": Script(b"", Ending.HANG),
    "/idle": Script(STREAM, Ending.HANG),
    "/duration": Script(STREAM, Ending.HANG),
    "/hurried": Script(b"", Ending.HANG),
    "/left": Script(STREAM, Ending.HANG),
    "/left-by-reset": Script(STREAM, Ending.HANG),
    "/closed": Script(b"", Ending.CLOSE),
    "/garbage": Script(b"NOT HTTP\r\n\r\n", Ending.CLOSE),
    "/retried": Script(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"),
}

# ---------------------------------------------------------------- the Envoy in between


def cluster(name: str, *ports: int, **more: object) -> Document:
    """Add a cluster on loopback ports."""
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": LOOPBACK, "port_value": port}}}} for port in ports
    ]
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **more,
    }


def protocol(**options: object) -> Document:
    """Write the HTTP options of a cluster."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"typed_extension_protocol_options": {name: {"@type": f"type.googleapis.com/{name}", **options}}}


HTTP1 = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
HTTP2: dict[str, object] = {"explicit_http_config": {"http2_protocol_options": {}}}


def route(path: str, to: str = "upstream", **action: object) -> Document:
    """Add a route."""
    return {"match": {"prefix": path}, "route": {"cluster": to, "timeout": "0s", **action}}


PROCESSED = {
    PRUNE_FILTER: {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
            "overrides": {"processing_mode": {"request_header_mode": "SEND", "response_header_mode": "SKIP"}},
        },
    }
}
ROUTES: tuple[Document, ...] = (
    {**route("/proc"), "typed_per_filter_config": PROCESSED},
    route("/rewritten", prefix_rewrite="/another"),
    route("/timeout", timeout=SHORT),
    route("/idle", idle_timeout=SHORT),
    route("/duration", max_stream_duration={"max_stream_duration": SHORT}),
    route("/hurried", "hurried"),
    route("/retried", retry_policy={"retry_on": "5xx", "num_retries": 1}),
    route("/refused", "refused"),
    route("/unhealthy", "empty"),
    route("/overflow", "full"),
    route("/reset", "resetting"),
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things stand that are not in the options."""

    upstream: int
    resetting: int
    joined: int
    refused: int


def edited(ports: Ports) -> Callable[[Document], Document]:
    """Add what makes Envoy send the rest, and a second listener whose Check gets headers and body as text."""

    def edit(document: Document) -> Document:
        resources = cast("Any", document)["static_resources"]
        listener = resources["listeners"][0]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_protocol_options"] = {"enable_trailers": True}
        manager["internal_address_config"] = {"cidr_ranges": [{"address_prefix": LOOPBACK, "prefix_len": 32}]}
        manager["access_log"][0]["typed_config"]["additional_response_headers_to_log"] = ["x-answer"]
        manager["route_config"]["virtual_hosts"][0]["routes"][:0] = ROUTES
        manager["route_config"]["virtual_hosts"].append({"name": "none", "domains": ["nowhere"]})
        resources["clusters"][0] |= protocol(**HTTP1)
        resources["clusters"] += [
            cluster(
                "hurried",
                ports.upstream,
                **protocol(common_http_protocol_options={"max_stream_duration": SHORT}, **HTTP1),
            ),
            cluster("refused", ports.refused),
            cluster("empty"),
            cluster("full", ports.upstream, circuit_breakers={"thresholds": [{"max_pending_requests": 0}]}),
            cluster("resetting", ports.resetting, **protocol(**HTTP2)),
        ]
        resources["listeners"].append(joined(deepcopy(listener), ports.joined))
        return document

    return edit


def joined(listener: Any, port: int) -> Document:  # noqa: ANN401 - a document of any depth
    """Make the listener one on which the Check gets joined headers, a body as text, and metadata of another filter."""
    listener["name"] = "joined"
    listener["address"]["socket_address"]["port_value"] = port
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    place = next(place for place, each in enumerate(filters) if each["name"] == CHECK_FILTER)
    check = filters[place]["typed_config"]
    check["encode_raw_headers"] = check["with_request_body"]["pack_as_bytes"] = False
    check["metadata_context_namespaces"] = [NAMESPACE]
    noted = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": NAMESPACE, "value": {"noted": "before the Check"}}],
    }
    filters.insert(place, {"name": "envoy.filters.http.set_metadata", "typed_config": noted})
    return cast("Document", listener)


# ---------------------------------------------------------------- the exchanges


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that was played with one version of Envoy."""

    recorder: Recorder
    upstream: RawUpstream
    replies: dict[str, Reply]
    envoy_port: int
    joined_port: int


def asking(path: str, *headers: str, body: bytes = BODY, host: str = "gateway") -> bytes:
    """Write a request with a body."""
    head = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def streaming(path: str, rest: bytes) -> bytes:
    """Write the head of a request in chunks, and what follows."""
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nx-unwanted: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + rest


REQUESTS = {
    "/ok": asking(
        "/ok",
        "x-unwanted: 1",
        "x-twice: a",
        "x-twice: b",
        "x-envoy-downstream-service-cluster: a-service",
        "x-bytes: \xc3",
    ),
    "/denied": asking("/denied"),
    "/proc/full": streaming("/proc/full", b"5\r\nasked\r\n0\r\nx-asked: yes\r\n\r\n"),
    "/proc/bare": b"GET /proc/bare HTTP/1.1\r\nhost: gateway\r\n\r\n",
    "/proc/replace": asking("/proc/replace"),
    "/proc/clear": asking("/proc/clear"),
    "/proc/immediate": asking("/proc/immediate"),
    **{path: asking(path) for path in ("/timeout", "/hurried", "/closed", "/garbage", "/retried", "/reset")},
    **{path: asking(path) for path in ("/refused", "/unhealthy", "/overflow", "/rewritten", "/idle", "/duration")},
    "/unrouted": asking("/unrouted", host="nowhere"),
    "/malformed": streaming("/malformed", b"no chunk\r\n"),
}


@asynccontextmanager
async def played(version: EnvoyVersion) -> AsyncIterator[Scene]:
    """Play every exchange once with a version of Envoy, and wait until the end of each is logged."""
    async with AsyncExitStack() as running:
        recorder = await running.enter_async_context(Recorder(VERDICTS, PROCESSING))
        upstream = await running.enter_async_context(RawUpstream(SCRIPTS))
        resetting = await asyncio.start_server(http2.upstream_that(http2.reset), LOOPBACK, 0)
        running.callback(resetting.close)
        ports = Ports(upstream.port, resetting.sockets[0].getsockname()[1], free_port(), free_port())
        options = replace(options_for(upstream.port, recorder.port), heartbeat_seconds=HEARTBEAT_SECONDS)
        envoy = await running.enter_async_context(EnvoyProcess(options, version, edited(ports)))
        scene = Scene(recorder, upstream, {}, envoy.options.listen.port, ports.joined)
        await play(scene)
        yield scene


async def play(scene: Scene) -> None:
    """Play all that one Envoy can show."""
    replies = await asyncio.gather(*(send(scene.envoy_port, data) for data in REQUESTS.values()))
    scene.replies.update({path: reply[0] for path, reply in zip(REQUESTS, replies, strict=True) if reply})
    [scene.replies["/joined"]] = await send(scene.joined_port, asking("/joined", "x-twice: a", "x-twice: b"))
    await leave(scene, "/left", asking("/left"))
    await leave(scene, "/left-by-reset", http2.request("/left-by-reset"), http2.reset())
    await asyncio.gather(*(scene.recorder.ended(path) for path in (*REQUESTS, "/joined", "/left", "/left-by-reset")))


async def leave(scene: Scene, path: str, data: bytes, last: bytes = b"") -> None:
    """Send a request, and go when the upstream is at work on it."""
    _, writer = await asyncio.open_connection(LOOPBACK, scene.envoy_port)
    writer.write(data)
    await eventually(lambda: path in scene.upstream.seen, what=f"the upstream works on {path}")
    writer.write(last)
    await writer.drain()
    if last:
        await scene.recorder.ended(path)
    writer.close()
