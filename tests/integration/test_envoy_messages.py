"""Our own definitions of Envoy's messages against a real Envoy: a wrong number, name or type of a field shows here.

What Envoy sends is recorded and looked at; what we send must have its effect. All exchanges are played once for each
version of Envoy, then the tests look at what came of them. A field that no exchange carries fails the last test.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, status_pb2

from extauthz import _proto
from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogCommon,
    AccessLogType,
    HTTPAccessLogEntry,
    ResponseFlags,
)
from extauthz._proto.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse, DeniedHttpResponse, OkHttpResponse
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingResponse,
    TrailersResponse,
)
from extauthz._proto.envoy.type.v3.http_status_pb2 import HttpStatus
from extauthz.envoy.bootstrap import CHECK_FILTER, PRUNE_FILTER, Document
from tests.support import http2
from tests.support.envoy import ENVOY_VERSIONS, EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import LOOPBACK, eventually, free_port
from tests.support.raw import Reply, send
from tests.support.recorder import Ending, RawUpstream, Recorder, Script

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

# Fields that no exchange here carries, and why.
NOT_EXERCISED = {
    "envoy.service.auth.v3.AttributeContext.Peer.principal": "is in a client certificate; nothing here reads it",
    "envoy.extensions.filters.http.ext_proc.v3.ProcessingMode.request_header_mode": "an override comes after them",
    "envoy.data.accesslog.v3.ResponseFlags.local_reset": "Envoy resets no HTTP/1 upstream by itself",
}

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


def metadata(**fields: object) -> Struct:
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
            response_headers_to_add=[header(name, "ours", action) for name, action in ACTIONS.items()],
        ),
        dynamic_metadata=metadata(**{"extauthz.r": "a hold", "extauthz.inject": True}),
    ),
    "/denied": CheckResponse(
        status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=429),  # type: ignore[arg-type]  # the enum is open
            headers=[header("x-why", "money"), header("content-type", "application/json")],
            body='{"error":{}}',
        ),
    ),
    "/proc/full": CheckResponse(ok_response=OkHttpResponse(), dynamic_metadata=metadata(**{"extauthz.models": "free"})),
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


def overloaded(document: Document) -> Document:
    """Let Envoy believe that it has no memory left."""
    monitor = "envoy.resource_monitors.fixed_heap"
    heap = "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
    manager = {
        "refresh_interval": "0.1s",
        "resource_monitors": [{"name": monitor, "typed_config": {"@type": heap, "max_heap_size_bytes": 1}}],
        "actions": [
            {
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [{"name": monitor, "threshold": {"value": 0.5}}],
            }
        ],
    }
    return {**document, "overload_manager": manager}


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
    return "\r\n".join(head).encode() + body


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
    "/proc/replace": asking("/proc/replace"),
    "/proc/clear": asking("/proc/clear"),
    "/proc/immediate": asking("/proc/immediate"),
    **{path: asking(path) for path in ("/timeout", "/hurried", "/closed", "/garbage", "/retried", "/reset")},
    **{path: asking(path) for path in ("/refused", "/unhealthy", "/overflow", "/rewritten", "/idle", "/duration")},
    "/unrouted": asking("/unrouted", host="nowhere"),
    "/malformed": streaming("/malformed", b"no chunk\r\n"),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Play every exchange once, and wait until the end of each is logged."""
    version: EnvoyVersion = request.param
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
        overload = replace(options_for(upstream.port, recorder.port), heartbeat_seconds=HEARTBEAT_SECONDS)
        await play_overload(scene, EnvoyProcess(overload, version, overloaded))
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


async def play_overload(scene: Scene, envoy: EnvoyProcess) -> None:
    """Play a request that an overloaded Envoy turns away."""

    async def turned_away() -> bool:
        [scene.replies["/overload"]] = await send(envoy.options.listen.port, asking("/overload"))
        return scene.replies["/overload"].status == 503

    async with envoy:
        await eventually(turned_away, what="Envoy turns requests away")
        await asyncio.sleep(1)
        print("DBG", scene.replies["/overload"], [m for m in scene.recorder.batches[-3:]])


# ---------------------------------------------------------------- what came of them


async def test_the_check_gets_raw_headers_and_bytes(scene: Scene) -> None:
    """With the configuration that we print, headers come one by one and the body as bytes."""
    http = scene.recorder.checks["/ok"].attributes.request.http

    assert [b"a", b"b"] == [header.raw_value for header in http.header_map.headers if header.key == "x-twice"]
    assert b"gateway" in [header.raw_value for header in http.header_map.headers if header.key == ":authority"]
    assert {} == dict(http.headers)
    assert BODY == http.raw_body
    assert "" == http.body


async def test_the_check_gets_joined_headers_and_text(scene: Scene) -> None:
    """Without encode_raw_headers and pack_as_bytes, headers are joined with commas and the body is text."""
    http = scene.recorder.checks["/joined"].attributes.request.http

    assert "a,b" == http.headers["x-twice"]
    assert 0 == len(http.header_map.headers)
    assert BODY.decode() == http.body
    assert b"" == http.raw_body


async def test_the_check_gets_the_request_line(scene: Scene) -> None:
    """Method, path, host, scheme, protocol and size come as fields of their own."""
    http = scene.recorder.checks["/ok"].attributes.request.http

    assert ("POST", "/ok", "gateway", "http", "HTTP/1.1") == (
        http.method,
        http.path,
        http.host,
        http.scheme,
        http.protocol,
    )
    assert len(BODY) == http.size
    assert http.id.isdigit()


async def test_the_check_gets_both_ends_of_the_connection(scene: Scene) -> None:
    """The client's address and service, and the listener's address."""
    attributes = scene.recorder.checks["/ok"].attributes

    assert LOOPBACK == attributes.source.address.socket_address.address
    assert "a-service" == attributes.source.service
    assert 0 < attributes.source.address.socket_address.port_value
    assert scene.envoy_port == attributes.destination.address.socket_address.port_value


async def test_the_check_gets_the_routes_and_other_filters_words(scene: Scene) -> None:
    """Context extensions come from the route, metadata from filters before."""
    assert {"extauthz.id": "header"} == dict(scene.recorder.checks["/ok"].attributes.context_extensions)
    metadata = scene.recorder.checks["/joined"].attributes.metadata_context.filter_metadata
    assert {"noted": "before the Check"} == dict(metadata[NAMESPACE].items())


async def test_an_allow_changes_the_request(scene: Scene) -> None:
    """The upstream gets the header that the Check set, and not the one that it removed."""
    seen = scene.upstream.seen["/ok"].headers

    assert "by the Check" == seen["x-set"]
    assert "x-unwanted" not in seen


async def test_an_allow_changes_the_answer(scene: Scene) -> None:
    """Each way to add a header to the answer does what its name says."""
    got = scene.replies["/ok"].headers

    assert "ours" == got["x-append"]  # the last of two
    assert "theirs" == got["x-absent"]
    assert "ours" == got["x-overwrite"]
    assert "ours" == got["x-exists"]
    assert "x-never" not in got


async def test_a_denial_is_the_answer(scene: Scene) -> None:
    """Status, headers and body of a denial reach the client, and nothing reaches the upstream."""
    reply = scene.replies["/denied"]

    assert 429 == reply.status
    assert "money" == reply.headers["x-why"]
    assert "application/json" == reply.headers["content-type"]
    assert b'{"error":{}}' == reply.body
    assert "/denied" not in scene.upstream.seen


async def test_the_checks_metadata_is_logged(scene: Scene) -> None:
    """What the Check wrote comes back with the end of the stream, in Envoy's namespace."""
    common = (await scene.recorder.ended("/ok")).common_properties

    assert {"extauthz.r": "a hold", "extauthz.inject": True} == dict(
        common.metadata.filter_metadata[CHECK_FILTER].items()
    )


async def test_an_override_brings_every_message(scene: Scene) -> None:
    """Where the route skips all but the request's headers, mode_override makes Envoy send the rest."""
    seen = scene.recorder.processed["/proc/full"]

    assert {
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
    } == seen.keys()
    assert not seen["request_headers"].request_headers.end_of_stream
    assert [b"200"] == values(seen["response_headers"].response_headers, ":status")
    assert b"asked" == seen["request_body"].request_body.body
    assert b"{}" == seen["response_body"].response_body.body
    trailers = seen["request_trailers"].request_trailers.trailers.headers
    assert {"x-asked": b"yes"} == {each.key: each.raw_value for each in trailers}
    trailers = seen["response_trailers"].response_trailers.trailers.headers
    assert {"x-answered": b"yes"} == {each.key: each.raw_value for each in trailers}


async def test_ext_proc_gets_the_checks_metadata(scene: Scene) -> None:
    """The namespace that is forwarded comes with the message."""
    context = scene.recorder.processed["/proc/full"]["response_headers"].metadata_context

    assert {"extauthz.models": "free"} == dict(context.filter_metadata[CHECK_FILTER].items())


async def test_ext_proc_changes_the_request(scene: Scene) -> None:
    """Headers set and removed, a body and a trailer: the upstream gets them so."""
    seen = scene.upstream.seen["/proc/full"]

    assert b"by \xc3\xa4" == seen.headers["x-set"].encode("latin-1")
    assert "x-unwanted" not in seen.headers
    assert b"asked otherwise" == seen.body
    assert {"x-asked": "yes", "x-request-tail": "added"} == seen.trailers


async def test_ext_proc_changes_the_answer(scene: Scene) -> None:
    """A body and a trailer: the client gets them so; cleared, it gets none."""
    reply = scene.replies["/proc/full"]

    assert b"answered otherwise" == reply.body
    assert {"x-answered": "yes", "x-response-tail": "added"} == reply.trailers
    assert (200, b"") == (scene.replies["/proc/clear"].status, scene.replies["/proc/clear"].body)
    assert scene.recorder.processed["/proc/clear"]["response_body"].response_body.end_of_stream


async def test_ext_proc_replaces_a_request(scene: Scene) -> None:
    """With CONTINUE_AND_REPLACE the body goes with the answer to the headers, and no further message comes."""
    assert b"replaced" == scene.upstream.seen["/proc/replace"].body
    assert {"request_headers"} == scene.recorder.processed["/proc/replace"].keys()


async def test_ext_proc_answers_itself(scene: Scene) -> None:
    """Status, headers and body of an immediate response reach the client; the details reach the log."""
    reply, entry = scene.replies["/proc/immediate"], await scene.recorder.ended("/proc/immediate")

    assert (503, "a failure", b"not today") == (reply.status, reply.headers["x-why"], reply.body)
    assert "said_so" in entry.response.response_code_details


async def test_the_first_batch_says_who_logs(scene: Scene) -> None:
    """Node and log's name come once for each stream, in its first message."""
    identifier = scene.recorder.batches[0].identifier

    assert "extauthz" == identifier.log_name
    assert ("extauthz-gateway", "extauthz-gateway") == (identifier.node.id, identifier.node.cluster)


async def test_the_end_of_a_stream_says_how_it_went(scene: Scene) -> None:
    """Times, attempt, id, upstream, status, sizes and the headers that were asked for."""
    entry = await scene.recorder.ended("/ok")
    common = entry.common_properties

    assert AccessLogType.DownstreamEnd == common.access_log_type
    assert common.HasField("time_to_first_upstream_tx_byte")
    assert common.HasField("time_to_first_upstream_rx_byte")
    assert (
        common.time_to_first_upstream_tx_byte.ToNanoseconds()
        <= common.time_to_first_upstream_rx_byte.ToNanoseconds()
        <= common.duration.ToNanoseconds()
    )
    assert (1, "upstream") == (common.upstream_request_attempt_count, common.upstream_cluster)
    assert scene.upstream.port == common.upstream_remote_address.socket_address.port_value
    assert "" != common.stream_id == entry.request.request_id
    assert values(scene.recorder.checks["/ok"].attributes.request.http, "x-extauthz-id") == [
        entry.request.request_headers["x-extauthz-id"].encode()
    ]
    assert (200, len("hello"), "via_upstream") == (
        entry.response.response_code.value,
        entry.response.response_body_bytes,
        entry.response.response_code_details,
    )
    assert "42" == entry.response.response_headers["x-answer"]


async def test_a_rewritten_path_is_logged_beside_its_original(scene: Scene) -> None:
    """The path that went upstream, and the one that the client wrote."""
    request = (await scene.recorder.ended("/rewritten")).request

    assert ("/another", "/rewritten") == (request.path, request.original_path)


async def test_a_living_stream_shows_signs_of_life(scene: Scene) -> None:
    """Periodic entries come with the Check's metadata before the end does."""
    [end] = scene.recorder.entries("/idle")
    periodic = scene.recorder.entries("/idle", AccessLogType.DownstreamPeriodic)

    assert 1 <= len(periodic)
    assert all(entry.common_properties.HasField("time_to_first_upstream_tx_byte") for entry in periodic)
    assert all(entry.common_properties.stream_id == end.common_properties.stream_id for entry in periodic)


@pytest.mark.parametrize(
    ("path", "flags", "sent"),
    [
        ("/ok", set(), True),
        ("/denied", {"unauthorized_details"}, False),
        ("/timeout", {"upstream_request_timeout"}, True),
        ("/idle", {"stream_idle_timeout"}, True),
        ("/duration", {"duration_timeout"}, True),
        ("/hurried", {"upstream_max_stream_duration_reached"}, True),
        ("/closed", {"upstream_connection_termination"}, True),
        ("/garbage", {"upstream_protocol_error"}, True),
        ("/reset", {"upstream_remote_reset"}, True),
        ("/retried", {"upstream_retry_limit_exceeded"}, True),
        ("/refused", {"upstream_connection_failure"}, False),
        ("/unhealthy", {"no_healthy_upstream"}, False),
        ("/overflow", {"upstream_overflow"}, False),
        ("/unrouted", {"no_route_found"}, False),
        ("/malformed", {"downstream_protocol_error"}, False),
        ("/left", {"downstream_connection_termination"}, True),
        ("/left-by-reset", {"downstream_remote_reset"}, True),
        ("/overload", {"overload_manager"}, False),
    ],
)
async def test_flags_say_who_ended_a_stream(
    scene: Scene,
    path: str,
    flags: set[str],
    sent: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Each way to go wrong has its flag, and the times say whether the upstream ever got the request."""
    entry = await scene.recorder.ended(path)

    assert flags == flags_of(entry)
    assert sent == entry.common_properties.HasField("time_to_first_upstream_tx_byte")


async def test_a_denial_is_flagged_as_the_checks(scene: Scene) -> None:
    """The reason says that an external service refused."""
    flags = (await scene.recorder.ended("/denied")).common_properties.response_flags

    assert ResponseFlags.Unauthorized.EXTERNAL_SERVICE == flags.unauthorized_details.reason


async def test_every_field_is_exercised(scene: Scene) -> None:
    """No field of our definitions is left out, except for those with a reason; and no reason is left over."""
    carried = {name for message in (*scene.recorder.received, *scene.recorder.sent) for name in fields_in(message)}
    defined = set(fields_defined())

    assert set(NOT_EXERCISED) == defined - carried


def values(message: HttpHeaders | AttributeContext.HttpRequest, name: str) -> list[bytes]:
    """Give the values of a header in a message."""
    headers = message.headers.headers if isinstance(message, HttpHeaders) else message.header_map.headers
    return [header.raw_value for header in headers if header.key == name]


def flags_of(entry: HTTPAccessLogEntry) -> set[str]:
    """Name the flags that an entry has."""
    return {field.name for field, _ in entry.common_properties.response_flags.ListFields()}


def fields_in(message: Message) -> Iterator[str]:
    """Name the fields of our definitions that a message carries, at any depth."""
    for field, value in message.ListFields():
        if not message.DESCRIPTOR.GetOptions().map_entry and message.DESCRIPTOR.full_name.startswith("envoy."):
            yield field.full_name
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            held: Iterable[object] = value.values()
        else:
            held = value if field.is_repeated else (value,)
        for each in held:
            if isinstance(each, Message):
                yield from fields_in(each)


def fields_defined() -> Iterator[str]:
    """Name every field of our definitions."""
    for module in pkgutil.walk_packages(_proto.__path__, f"{_proto.__name__}."):
        if module.name.endswith("_pb2"):
            for message in importlib.import_module(module.name).DESCRIPTOR.message_types_by_name.values():
                yield from fields_of(message)


def fields_of(message: Descriptor) -> Iterator[str]:
    """Name the fields of a message and of those inside it."""
    if not message.GetOptions().map_entry:
        yield from (field.full_name for field in message.fields)
        for nested in message.nested_types:
            yield from fields_of(nested)
