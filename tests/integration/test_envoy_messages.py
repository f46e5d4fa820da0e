"""Our own definitions of Envoy's messages against a real Envoy: a wrong number, name or type of a field shows here.

What Envoy sends is recorded and looked at; what we send must have its effect. All exchanges are played once for each
version of Envoy, then the tests look at what came of them. A field that no exchange carries fails a test of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from mmap import ACCESS_READ, mmap
from unittest.mock import ANY

import pytest
import pytest_asyncio

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogType,
    HTTPAccessLogEntry,
    ResponseFlags,
)
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpHeaders,
)
from extauthz.envoy.names import CHECK_FILTER
from tests.support.definitions import (
    descriptor_of,
    descriptor_of_value,
    fields_defined,
    fields_in,
    value_name,
    values_defined,
)
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.messages import BODY, NAMESPACE, Scene, played
from tests.support.processes import LOOPBACK

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

# Fields that no exchange here carries, and why.
NOT_EXERCISED = {
    "envoy.service.auth.v3.AttributeContext.Peer.principal": "stands in a certificate; nothing reads it",
    "envoy.extensions.filters.http.ext_proc.v3.ProcessingMode.request_header_mode": "an override comes after them",
    "envoy.data.accesslog.v3.ResponseFlags.local_reset": "Envoy resets no HTTP/1 upstream by itself",
    "envoy.data.accesslog.v3.ResponseFlags.duration_timeout": "for connections; a stream ends so without a flag",
    "envoy.data.accesslog.v3.ResponseFlags.overload_manager": "only for HTTP/2 streams while memory runs out",
}


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Give what came of the exchanges, played once with each version."""
    version: EnvoyVersion = request.param
    async with played(version) as scene:
        yield scene


async def test_the_check_gets_raw_headers_and_bytes(scene: Scene) -> None:
    """With the configuration that we print, headers come one by one and the body as bytes."""
    http = scene.recorder.checks["/ok"].attributes.request.http

    assert [b"a", b"b"] == [header.raw_value for header in http.header_map.headers if header.key == "x-twice"]
    assert [b"\xc3"] == [header.raw_value for header in http.header_map.headers if header.key == "x-bytes"]
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
    """The upstream gets header and parameter that the Check set, and not the header that it removed."""
    seen = scene.upstream.seen["/ok"]

    assert "by the Check" == seen.headers["x-set"]
    assert "x-unwanted" not in seen.headers
    assert "set=here" == seen.query


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

    # Envoy adds how long the Check took.
    written = dict(common.metadata.filter_metadata[CHECK_FILTER].items())
    assert {"extauthz.r": "a hold", "extauthz.inject": True, "ext_authz_duration": ANY} == written


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


async def test_headers_without_a_body_end_the_stream(scene: Scene) -> None:
    """The headers of a bare GET say that nothing follows."""
    assert scene.recorder.processed["/proc/bare"]["request_headers"].request_headers.end_of_stream


async def test_ext_proc_gets_the_checks_metadata(scene: Scene) -> None:
    """The namespace that is forwarded comes with the message."""
    context = scene.recorder.processed["/proc/full"]["response_headers"].metadata_context

    written = dict(context.filter_metadata[CHECK_FILTER].items())
    assert {"extauthz.models": "free", "ext_authz_duration": ANY} == written


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
        ("/duration", set(), True),
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


async def test_a_stream_that_lasts_too_long_is_known_by_its_details(scene: Scene) -> None:
    """The end by max_stream_duration has a text and no flag."""
    response = (await scene.recorder.ended("/duration")).response

    assert "max_duration_timeout" == response.response_code_details


async def test_a_denial_is_flagged_as_the_checks(scene: Scene) -> None:
    """The reason says that an external service refused."""
    flags = (await scene.recorder.ended("/denied")).common_properties.response_flags

    assert ResponseFlags.Unauthorized.EXTERNAL_SERVICE == flags.unauthorized_details.reason


async def test_every_field_is_exercised(scene: Scene) -> None:
    """No field of our definitions is left out, except for those with a reason; and no reason is left over."""
    carried = {name for message in (*scene.recorder.received, *scene.recorder.sent) for name in fields_in(message)}
    defined = {field.full_name for field in fields_defined()}

    assert set(NOT_EXERCISED) == defined - carried


@pytest.mark.parametrize("version", ENVOY_VERSIONS, ids=lambda version: version.name)
async def test_every_definition_is_envoys_own(version: EnvoyVersion) -> None:
    """Name, number and type of each field, and each enum value, stand among the descriptors inside Envoy's program."""
    described = {field.full_name: descriptor_of(field) for field in fields_defined()}
    described |= {value_name(value): descriptor_of_value(value) for value in values_defined()}

    with version.program.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as program:
        missing = [name for name, descriptor in described.items() if program.find(descriptor) < 0]

    assert NOT_EXERCISED.keys() < described.keys()
    assert [] == missing


def values(message: HttpHeaders | AttributeContext.HttpRequest, name: str) -> list[bytes]:
    """Give the values of a header in a message."""
    headers = message.headers.headers if isinstance(message, HttpHeaders) else message.header_map.headers
    return [header.raw_value for header in headers if header.key == name]


def flags_of(entry: HTTPAccessLogEntry) -> set[str]:
    """Name the flags that an entry has."""
    return {field.name for field, _ in entry.common_properties.response_flags.ListFields()}
