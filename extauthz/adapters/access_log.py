"""`envoy.service.accesslog.v3.AccessLogService`: entries of living and of finished streams → settlement.

Entries may come twice, late, from another Envoy worker, at another replica, or never.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator

import grpc.aio
from google.protobuf.struct_pb2 import Struct

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry, ResponseFlags
from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from extauthz.adapters.holds import HOLD_BYTES_MAX, SEALED_CHARS_MAX, HoldCodec
from extauthz.booking import Observation, Outcome
from extauthz.domain.reservation import Hold, Signal, State, promise_name
from extauthz.domain.trace import CARRIED_CHARS_MAX
from extauthz.domain.value import value
from extauthz.envoy.names import CHECK_NAMESPACE, HOLD_KEY, ID_HEADER, RESULT_KEY, TRACE_KEY, USAGE_NAMESPACE
from extauthz.errors import HoldRejectedError
from extauthz.ledger.base import Promise
from extauthz.promises import Promises, Sight
from extauthz.settlement import Settlement
from extauthz.telemetry.events import Telemetry
from extauthz.usage import Report, read_report

# What Envoy writes for %UNIQUE_ID%.
_UNIQUE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

HTTP_OK = 200
# From here on a status says that nothing was made: the request failed, or goes elsewhere (frameworks send one with a
# slash too many to the path without it).
HTTP_NO_ANSWER = 300

# Ten times the flush interval of the configurations that we write.
QUIET_S = 1.0

# A tenth of that interval: what has come to this machine is here by then.
LATE_S = 0.01

# Ends of streams that are kept until this server has reached the store for the first time, and how often it is asked.
UNVERIFIED_MAX = 10_000
VERIFY_S = 0.1

# Protobuf looks a name up at each asking.
_PERIODIC = AccessLogType.DownstreamPeriodic

# What the meter's fields may be: to write this as a union makes one each time.
_FIELD = (float, bool, str)

# The flags of a stream that somebody on the way gave up, while the upstream was at work or could have been.
_GIVEN_UP = (
    "downstream_connection_termination",
    "downstream_remote_reset",
    "downstream_protocol_error",
    "local_reset",
    "upstream_request_timeout",
    "stream_idle_timeout",
    "duration_timeout",
    "upstream_max_stream_duration_reached",
    "overload_manager",
)
# A stream that max_stream_duration ended has no flag of its own (seen on 1.36 and 1.40).
_GIVEN_UP_DETAILS = frozenset({"max_duration_timeout"})
# The flags of a stream that the upstream broke off.
_BROKEN_OFF = ("upstream_remote_reset", "upstream_connection_termination", "upstream_protocol_error")


@value
class End:
    """The end of a stream, with its hold and its place in a trace as Envoy brought them back."""

    hold: str
    outcome: Outcome
    report: Report
    trace: str | None


class AccessLogs(als_pb2_grpc.AccessLogServiceServicer):
    """Ends reservations by what Envoy logs.

    `draining` is set when this server wants to stop. A stream is then ended right after a batch has come, or after
    QUIET_S without one: Envoy has nothing under way then, and opens its next stream elsewhere without losing an entry.
    (Ended at any moment, 51 of 6,000 entries were lost; right after a batch, none.) The batch is booked meanwhile: the
    next one may come before a slow store has answered.
    """

    def __init__(
        self,
        settlement: Settlement,
        promises: Promises,
        holds: HoldCodec,
        telemetry: Telemetry,
        draining: asyncio.Event,
    ) -> None:
        self._settlement = settlement
        self._promises = promises
        self._holds = holds
        self._telemetry = telemetry
        self._draining = draining
        self._streams = 0
        self._unverified: deque[End] = deque()
        self._arrived = asyncio.Event()
        self._taking: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no Envoy has a stream open here, and all that came is taken in."""
        await self._idle.wait()
        if self._taking:
            await asyncio.wait(self._taking)

    async def catch_up(self) -> None:
        """Take in the ends that were kept, as soon as holds can be verified; runs until it is cancelled."""
        while True:
            await self._arrived.wait()
            if not self._holds.can_tell:
                await asyncio.sleep(VERIFY_S)
                continue
            self._arrived.clear()
            while self._unverified:
                try:
                    await self._end(self._unverified.popleft())
                except Exception as error:  # noqa: BLE001 - one bad end must not lose the others
                    self._telemetry.failed("access_log", error)

    async def StreamAccessLogs(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[StreamAccessLogsMessage],
        context: grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse],
    ) -> StreamAccessLogsResponse:
        """Take in the batches of one Envoy worker."""
        self._streams += 1
        self._idle.clear()
        try:
            async for message in self._until_drained(request_iterator):
                # A batch is carried through even when the stream breaks meanwhile: nobody would send it again.
                taking = asyncio.ensure_future(self._take(message))
                self._taking.add(taking)
                taking.add_done_callback(self._taking.discard)
                if not self._draining.is_set():
                    await asyncio.shield(taking)
        finally:
            self._streams -= 1
            if self._streams == 0:
                self._idle.set()
        return StreamAccessLogsResponse()

    async def _until_drained(
        self, messages: AsyncIterator[StreamAccessLogsMessage]
    ) -> AsyncIterator[StreamAccessLogsMessage]:
        """Pass messages on until the stream ends or this server drains."""
        drained = asyncio.ensure_future(self._draining.wait())
        message = asyncio.ensure_future(anext(messages, None))
        try:
            while True:
                await asyncio.wait({message, drained}, return_when=asyncio.FIRST_COMPLETED)
                if not message.done():
                    await asyncio.wait({message}, timeout=QUIET_S)
                if not message.done() or (batch := message.result()) is None:
                    return
                yield batch
                message = asyncio.ensure_future(anext(messages, None))
                if drained.done():
                    # A busy server may be late: what came meanwhile is taken as well.
                    await asyncio.wait({message}, timeout=LATE_S)
                    if not message.done():
                        return
        finally:
            drained.cancel()
            message.cancel()

    async def _take(self, message: StreamAccessLogsMessage) -> None:
        # All at once, so that they share their way to the store; Envoy bounds a batch (buffer_size_bytes).
        await asyncio.gather(*map(self._take_entry, message.http_logs.log_entry))

    async def _take_entry(self, entry: HTTPAccessLogEntry) -> None:
        try:
            await self._entry(entry)
        except Exception as error:  # noqa: BLE001 - one bad entry must not lose the others
            self._telemetry.failed("access_log", error)

    async def _entry(self, entry: HTTPAccessLogEntry) -> None:
        common = entry.common_properties
        periodic = common.access_log_type == _PERIODIC
        decision = common.metadata.filter_metadata.get(CHECK_NAMESPACE)
        if decision is None:
            # Envoy also logs requests that it refused before our filters could overwrite this header.
            reservation_id = entry.request.request_headers.get(ID_HEADER, "")
            if _UNIQUE_ID.fullmatch(reservation_id) and not periodic:
                await self._settlement.unanswered(reservation_id)
            return
        if RESULT_KEY in decision and not periodic:
            await self._read(str(decision[RESULT_KEY]), entry)
        if HOLD_KEY not in decision:
            return
        text = str(decision[HOLD_KEY])
        if not periodic:
            await self._end(End(text, outcome_of(entry), _report(entry), _trace(decision)))
        elif self._holds.can_tell and (hold := self._decoded(text)) is not None:
            await self._settlement.progressed(hold, _report(entry))

    async def _read(self, sealed: str, entry: HTTPAccessLogEntry) -> None:
        """Take in what a read shows of an answer that was promised, once that is there."""
        report = _report(entry)
        if report.result is None or entry.response.response_code.value != HTTP_OK or len(sealed) > SEALED_CHARS_MAX:
            return
        await self._promises.seen(Sight(sealed, report))

    async def _end(self, end: End) -> None:
        if not self._holds.can_tell:
            self._keep(end)
        elif (hold := self._decoded(end.hold)) is not None:
            promise = _promise(end)
            await self._settlement.finished(Observation(hold, end.outcome, end.report, end.trace, promise))

    def _keep(self, end: End) -> None:
        """Keep an end that another server may have made a hold for, on the store that this one has not reached yet."""
        if len(self._unverified) >= UNVERIFIED_MAX or len(end.hold) > HOLD_BYTES_MAX:
            self._telemetry.ending_lost(State.SETTLED, Signal.ACCESS_LOG)
            return
        self._unverified.append(end)
        self._arrived.set()

    def _decoded(self, text: str) -> Hold | None:
        try:
            return self._holds.decode(text)
        except HoldRejectedError:
            self._telemetry.hold_rejected()
            return None


def outcome_of(entry: HTTPAccessLogEntry) -> Outcome:
    """Tell how a stream ended, from its status, its flags, and whether the upstream ever saw the request."""
    flags = entry.common_properties.response_flags
    status = entry.response.response_code.value
    sent = entry.common_properties.HasField("time_to_first_upstream_tx_byte")
    answering = 0 < status < HTTP_NO_ANSWER
    if not sent:
        return Outcome.FAILED
    if _any(flags, _GIVEN_UP) or entry.response.response_code_details in _GIVEN_UP_DETAILS:
        # An error that the upstream gave before anybody gave up is an error all the same.
        answered = entry.common_properties.HasField("time_to_first_upstream_rx_byte")
        return Outcome.FAILED if answered and not answering and status else Outcome.ABORTED
    if _any(flags, _BROKEN_OFF):
        return Outcome.ABORTED if answering else Outcome.FAILED
    return Outcome.ANSWERED if answering else Outcome.FAILED


def _promise(end: End) -> Promise | None:
    """Tell what is promised by an answer that is still to be made, and says how it will be asked for."""
    if not end.report.pending or end.report.answer_id is None:
        return None
    return Promise(promise_name(end.report.answer_id), end.hold)


def _trace(decision: Struct) -> str | None:
    """Take what the Check wrote down of the request's trace; whoever makes spans of it reads it with suspicion."""
    if TRACE_KEY not in decision:
        return None
    text = decision[TRACE_KEY]
    return text if isinstance(text, str) and len(text) <= CARRIED_CHARS_MAX else None


def _any(flags: ResponseFlags, names: tuple[str, ...]) -> bool:
    return any(getattr(flags, name) for name in names)


def _report(entry: HTTPAccessLogEntry) -> Report:
    """Read what the meter saw of an answer. An error page is none, and Envoy's own after a timeout is whole as well."""
    fields = entry.common_properties.metadata.filter_metadata.get(USAGE_NAMESPACE)
    if fields is None or entry.response.response_code.value >= HTTP_NO_ANSWER:
        return Report()
    return read_report({name: value for name, value in fields.items() if isinstance(value, _FIELD)})
