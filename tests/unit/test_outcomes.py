"""How access-log entries of Envoy are read: who ended a stream, and whether the upstream was at work."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogCommon,
    HTTPAccessLogEntry,
    HTTPResponseProperties,
    ResponseFlags,
)
from extauthz.adapters.access_log import outcome_of
from extauthz.booking import Outcome


def entry(status: int, *flags: str, sent: bool = True, answered: bool = False, details: str = "") -> HTTPAccessLogEntry:
    """Make an entry as Envoy logs it; a duration is there or not, its length says nothing here."""
    common = AccessLogCommon(response_flags=ResponseFlags(**dict.fromkeys(flags, True)))  # type: ignore[arg-type]
    if sent:
        common.time_to_first_upstream_tx_byte.CopyFrom(Duration())
    if answered:
        common.time_to_first_upstream_rx_byte.CopyFrom(Duration())
    response = HTTPResponseProperties(response_code=UInt32Value(value=status), response_code_details=details)
    return HTTPAccessLogEntry(common_properties=common, response=response)


@pytest.mark.parametrize(
    ("logged", "outcome"),
    [
        pytest.param(entry(200, answered=True), Outcome.ANSWERED, id="200"),
        pytest.param(entry(101, answered=True), Outcome.ANSWERED, id="another protocol"),
        pytest.param(entry(307, answered=True), Outcome.FAILED, id="sent to the path without a slash"),
        pytest.param(entry(500, answered=True), Outcome.FAILED, id="upstream 500"),
        pytest.param(entry(429, answered=True), Outcome.FAILED, id="upstream 429"),
        pytest.param(entry(503, "upstream_connection_failure", sent=False), Outcome.FAILED, id="no connection"),
        pytest.param(entry(503, "upstream_remote_reset"), Outcome.FAILED, id="reset before headers"),
        pytest.param(entry(503, "upstream_connection_termination"), Outcome.FAILED, id="closed before headers"),
        pytest.param(
            entry(200, "upstream_connection_termination", answered=True), Outcome.ABORTED, id="closed in the middle"
        ),
        pytest.param(entry(200, "upstream_remote_reset", answered=True), Outcome.ABORTED, id="reset in the middle"),
        pytest.param(entry(0, "downstream_connection_termination"), Outcome.ABORTED, id="client left before headers"),
        pytest.param(entry(0, "downstream_connection_termination", sent=False), Outcome.FAILED, id="never sent"),
        pytest.param(
            entry(200, "downstream_connection_termination", answered=True), Outcome.ABORTED, id="client left mid-stream"
        ),
        pytest.param(
            entry(200, "downstream_remote_reset", answered=True), Outcome.ABORTED, id="client reset mid-stream"
        ),
        pytest.param(
            entry(500, "downstream_connection_termination", answered=True),
            Outcome.FAILED,
            id="left during an error body",
        ),
        pytest.param(entry(504, "upstream_request_timeout"), Outcome.ABORTED, id="Envoy's timeout before headers"),
        pytest.param(entry(200, "stream_idle_timeout", answered=True), Outcome.ABORTED, id="idle in the middle"),
        pytest.param(
            entry(200, answered=True, details="max_duration_timeout"), Outcome.ABORTED, id="longer than streams may be"
        ),
    ],
)
def test_outcomes(logged: HTTPAccessLogEntry, outcome: Outcome) -> None:
    """An answer, an abort of a working upstream, or a failure that costs nothing."""
    assert outcome == outcome_of(logged)
