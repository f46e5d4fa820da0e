"""The connection to a server's admin port: calls with a deadline, and failures told in one line of advice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2
from extauthz.console.target import TOKEN_VARIABLE, Target
from extauthz.errors import ExtauthzError

SERVICE = diagnostics_pb2.DESCRIPTOR.services_by_name["Diagnostics"].full_name

CALL_S = 10.0
# The configuration of ten thousand teams is long.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
DETAILS_MAX = 500

_OPTIONS = (
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    # A view that goes on sees a server that is back soon, and not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A stream may be silent for hours: only this tells when the other machine is gone. Servers end connections that ask
    # more often than every five minutes.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

# How gRPC begins what it says itself about a connection, as opposed to what a server answers.
NO_CONNECTION = ("failed to connect to all addresses", "DNS resolution failed")
OUR_DEADLINE = "Deadline Exceeded"
LOST = ("Socket closed", "recvmsg:", "GOAWAY", "Connection reset", "Broken pipe", "keepalive", "Stream removed")

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class ServerAwayError(ExtauthzError):
    """The server cannot be reached, or does not answer; later it may."""


class ServerRefusedError(ExtauthzError):
    """The server answers, and does not do what it was asked."""


class Server:
    """A server, as operators see it."""

    def __init__(self, channel: grpc.aio.Channel, target: Target) -> None:
        self._channel = channel
        self._target = target
        self._metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()

    @property
    def target(self) -> Target:
        """Where it is."""
        return self._target

    async def ask(
        self, rpc: str, request: Message, answer: type[M], *, seconds: float = CALL_S, service: str = SERVICE
    ) -> M:
        """Call an RPC that gives one answer. Raises ServerAwayError and ServerRefusedError."""
        call = self._channel.unary_unary(
            f"/{service}/{rpc}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            given: M = await call(request, timeout=seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _plainly(error, self._target, seconds) from error
        return given

    async def stream(
        self,
        rpc: str,
        request: Message,
        answer: type[M],
        *,
        seconds: float | None = None,
        begun: Callable[[], None] | None = None,
    ) -> AsyncIterator[M]:
        """Call an RPC that gives many answers, without end where there is no deadline. Raises as `ask` does.

        `begun` is told when the server has begun, before there is anything to give.
        """
        call = self._channel.unary_stream(
            f"/{SERVICE}/{rpc}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request, timeout=seconds, metadata=self._metadata)
        try:
            if begun is not None:
                await call.initial_metadata()
                if not call.done():
                    begun()
            async for given in call:
                yield given
        except grpc.aio.AioRpcError as error:
            raise _plainly(error, self._target, seconds or 0) from error
        finally:
            call.cancel()


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Server]:
    """Speak to a server inside the block. Nothing is sent before it is asked. Raises OSError for certificates."""
    async with new_channel(target) as channel:
        yield Server(channel, target)


def new_channel(target: Target) -> grpc.aio.Channel:
    """Make the channel to a port. Raises OSError for certificates."""
    # A proxy for the web does not lead to this machine.
    options = (*_OPTIONS, ("grpc.enable_http_proxy", 0)) if target.address.loopback else _OPTIONS
    if target.tls:
        if target.server_name is not None:
            options = (*options, ("grpc.ssl_target_name_override", target.server_name))
        return grpc.aio.secure_channel(str(target.address), _credentials(target), options=options)
    return grpc.aio.insecure_channel(str(target.address), options=options)


def ask_once(target: Target, job: Callable[[Server], Awaitable[T]]) -> T:
    """Connect, do one job, and give what came of it."""

    async def asked() -> T:
        async with connected(target) as server:
            return await job(server)

    return asyncio.run(asked())


def _credentials(target: Target) -> grpc.ChannelCredentials:
    ca = None if target.ca is None else target.ca.read_bytes()
    if target.client is None:
        return grpc.ssl_channel_credentials(ca)
    return grpc.ssl_channel_credentials(ca, target.client.key.read_bytes(), target.client.cert.read_bytes())


def _plainly(error: grpc.aio.AioRpcError, target: Target, seconds: float) -> ExtauthzError:
    """Say in one line what went wrong, and what to do next."""
    where, details = target.address, " ".join((error.details() or "").split())[:DETAILS_MAX]
    match error.code():
        case grpc.StatusCode.UNAVAILABLE if details.startswith(NO_CONNECTION):
            return ServerAwayError(_unreachable(target, details))
        case grpc.StatusCode.UNAVAILABLE if not details or any(word in details for word in LOST):
            return ServerAwayError(f"the server at {where} went away{_or_tls(target)}")
        case grpc.StatusCode.UNAVAILABLE:
            return ServerAwayError(f"the server at {where} cannot do that now: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED if details == OUR_DEADLINE:
            return ServerAwayError(
                f"the server at {where} did not answer within {seconds:g} s: it stands still or is busy, and may do "
                "what it was asked all the same"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerAwayError(f"the server at {where} says: {details}")
        case grpc.StatusCode.UNAUTHENTICATED:
            sent = "another token than was sent" if target.token else "a token"
            return ServerRefusedError(
                f"the server at {where} wants {sent}: put its extauthz.admin_token into {TOKEN_VARIABLE}, or into a "
                "file named by --admin-token-file"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerRefusedError(
                f"{where} is no admin port of extauthz, or of an older version: name its `extauthz.listen.admin` by "
                "--admin or EXTAUTHZ_ADMIN (9192 where nothing else is said; 9191 is Envoy's)"
            )
        case code:
            return ServerRefusedError(details or f"the server at {where} answered {code.name}")


def _unreachable(target: Target, details: str) -> str:
    where = target.address
    if "Connection refused" in details:
        return (
            f"nobody listens on {where}: start `extauthz serve`, or name its admin port by --admin or EXTAUTHZ_ADMIN "
            "(in Kubernetes after `kubectl port-forward`)"
        )
    if target.tls and "Hostname Verification" in details:
        return f"the certificate of {where} is made out to another name: give it by --admin-server-name"
    if target.tls and ("handshake" in details.lower() or "certificate" in details.lower() or "SSL" in details):
        return (
            f"no TLS with {where}: it speaks none, or its certificate is not of --admin-ca, or it does not take "
            "--admin-cert"
        )
    if any(word in details for word in LOST):
        return f"{where} hangs up: it is no admin port of extauthz{_or_tls(target)}"
    return f"{where} cannot be reached ({details}): name the server's admin port by --admin or EXTAUTHZ_ADMIN"


def _or_tls(target: Target) -> str:
    if not target.tls:
        return ", or it speaks TLS, which --admin-ca turns on"
    return "" if target.client else ", or it wants a certificate, which --admin-cert and --admin-key show"
