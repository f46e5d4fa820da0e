"""Envoy's port of a server, called as Envoy calls it: one Check, and the end of what it let through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from extauthz._proto.envoy.service.accesslog.v3 import als_pb2
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.console.connection import DETAILS_MAX, LOST, NO_CONNECTION, OUR_DEADLINE, ServerAwayError, new_channel
from extauthz.console.target import GATE_TOKEN_VARIABLE, Target
from extauthz.envoy.names import CHECK_NAMESPACE, ID_HEADER, TOKEN_METADATA
from extauthz.errors import ExtauthzError

_CHECK = f"/{external_auth_pb2.DESCRIPTOR.services_by_name['Authorization'].full_name}/Check"
_ACCESS_LOG = f"/{als_pb2.DESCRIPTOR.services_by_name['AccessLogService'].full_name}/StreamAccessLogs"


class GateRefusedError(ExtauthzError):
    """The port answers, and makes no Check."""


class Gate:
    """Envoy's port of a server. Each call has `seconds` to be answered."""

    def __init__(self, channel: grpc.aio.Channel, target: Target, seconds: float) -> None:
        self._channel = channel
        self._target = target
        self._seconds = seconds
        self._metadata = ((TOKEN_METADATA, target.token),) if target.token else ()

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Ask about a request. Raises ServerAwayError and GateRefusedError."""
        call = self._channel.unary_unary(
            _CHECK,
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )
        try:
            answer: CheckResponse = await call(request, timeout=self._seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._plainly(error) from error
        return answer

    async def never_sent(self, reservation_id: str, answer: CheckResponse | None) -> None:
        """Log that a request ended before it went upstream, and wait until that is taken in: nothing stays held for it.

        Without an answer the reservation is named by its id alone, for the server may have made it all the same. Raises
        as `check` does.
        """
        call = self._channel.stream_unary(
            _ACCESS_LOG,
            request_serializer=StreamAccessLogsMessage.SerializeToString,
            response_deserializer=StreamAccessLogsResponse.FromString,
        )
        log = _log_of(reservation_id, answer)
        try:
            await call(iter([log]), timeout=self._seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._plainly(error) from error

    def _plainly(self, error: grpc.aio.AioRpcError) -> ExtauthzError:
        """Say in one line what went wrong, and what to do next."""
        where, details = self._target.address, " ".join((error.details() or "").split())[:DETAILS_MAX]
        match error.code():
            case grpc.StatusCode.UNAVAILABLE if details.startswith(NO_CONNECTION):
                return ServerAwayError(f"{where} cannot be reached ({details}){_perhaps_tls(self._target)}")
            case grpc.StatusCode.UNAVAILABLE if not details or any(word in details for word in LOST):
                return ServerAwayError(f"{where} hangs up{_perhaps_tls(self._target)}")
            case grpc.StatusCode.UNAVAILABLE:
                return ServerAwayError(
                    f"{where} leaves it to Envoy's failure_mode_allow, as `store_failure: defer` says: {details}"
                )
            case grpc.StatusCode.DEADLINE_EXCEEDED if details == OUR_DEADLINE:
                return ServerAwayError(f"{where} did not answer within {self._seconds:g} s")
            case grpc.StatusCode.UNAUTHENTICATED:
                sent = "another token than was sent" if self._target.token else "a token"
                return GateRefusedError(
                    f"{where} wants {sent}: put its extauthz.token into {GATE_TOKEN_VARIABLE}, or into the variable "
                    "that --token-env names"
                )
            case grpc.StatusCode.UNIMPLEMENTED:
                return GateRefusedError(
                    f"{where} makes no Checks: name the server's `extauthz.listen.grpc` by --target (9191 where "
                    "nothing else is said; 9192 is the operators')"
                )
            case code:
                return GateRefusedError(f"{where} answered {code.name}{details and f': {details}'}")


@asynccontextmanager
async def at_gate(target: Target, seconds: float) -> AsyncIterator[Gate]:
    """Stand at Envoy's port inside the block. Nothing is sent before it is asked. Raises OSError for certificates."""
    async with new_channel(target) as channel:
        yield Gate(channel, target, seconds)


def _log_of(reservation_id: str, answer: CheckResponse | None) -> StreamAccessLogsMessage:
    entry = HTTPAccessLogEntry()
    entry.common_properties.access_log_type = AccessLogType.DownstreamEnd
    entry.request.request_headers[ID_HEADER] = reservation_id
    if answer is not None:
        entry.common_properties.metadata.filter_metadata[CHECK_NAMESPACE].CopyFrom(answer.dynamic_metadata)
    return StreamAccessLogsMessage(http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry]))


def _perhaps_tls(target: Target) -> str:
    if not target.tls:
        return ": is that where the server listens for Envoy? If it speaks TLS, --ca turns that on"
    if target.client is None:
        return ": does it speak TLS, by --ca's certificate? If it wants one of yours, add --cert and --key"
    return ": does it speak TLS, by --ca's certificate, and take --cert's?"
