"""The gRPC port: which server carries it, who may speak to it, and how TLS certificates are renewed."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pygrpc_native.aio

from extauthz.config.model import ServerKind, Settings, Tls

# Where Envoy puts the shared token (`initial_metadata` of its grpc_service).
TOKEN_METADATA = "x-extauthz-token"  # noqa: S105 - a header name

# Envoy sends headers and up to max_request_bytes of body in one Check.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

# Kubernetes' gRPC probes can send no metadata, and health tells no secrets.
_OPEN_SERVICES = "/grpc.health.v1.Health/"

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Otherwise a second process could silently share the port, and half of the requests would meet other books.
    ("grpc.so_reuseport", 0),
)


def new_listener(settings: Settings) -> tuple[grpc.aio.Server, int]:
    """Make the gRPC server of the settings and bind it. Gives the server, not started, and its port.

    Raises OSError when the address cannot be bound or a certificate cannot be read.
    """
    interceptors = [] if settings.token is None else [TokenInterceptor(settings.token.get_secret_value())]
    kind = settings.server
    if kind is ServerKind.AUTO:
        # pygrpc-native answers an empty Check 4.7 times as fast on one core, and has no TLS.
        kind = ServerKind.NATIVE if settings.tls is None else ServerKind.GRPCIO
    server: grpc.aio.Server
    if kind is ServerKind.NATIVE:
        server = pygrpc_native.aio.server(interceptors=interceptors, options=_OPTIONS)
    else:
        server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    address = str(settings.listen.grpc)
    try:
        if settings.tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(settings.tls))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for gRPC: is another process there?") from error
    return server, port


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Turns away callers without the shared token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Pass the call on, or answer it UNAUTHENTICATED."""
        if handler_call_details.method.startswith(_OPEN_SERVICES):
            return await continuation(handler_call_details)
        for key, value in handler_call_details.invocation_metadata or ():
            given = value if isinstance(value, bytes) else value.encode()
            if key == TOKEN_METADATA and hmac.compare_digest(given, self._token):
                return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_turn_away)


async def _turn_away(_: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"send the shared token as {TOKEN_METADATA}")


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Make credentials that follow their files: a handshake after a change gets the new certificate."""
    last = _stamps(tls)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal last
        stamps = _stamps(tls)
        if stamps == last:
            return None
        try:
            configuration = _certificates(tls)
        except OSError:
            return None  # in the middle of a change: the old certificate serves on
        last = stamps
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        _certificates(tls),
        fetch,  # type: ignore[arg-type]  # None means unchanged; the stubs do not know
        tls.client_ca is not None,
    )


def _certificates(tls: Tls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(tls.key.read_bytes(), tls.cert.read_bytes())],
        None if tls.client_ca is None else tls.client_ca.read_bytes(),
    )


def _stamps(tls: Tls) -> tuple[tuple[int, int], ...]:
    files = [path for path in (tls.cert, tls.key, tls.client_ca) if path is not None]
    return tuple(_stamp(path) for path in files)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
