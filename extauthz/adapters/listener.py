"""The gRPC ports: which server carries them, who may speak to it, and how TLS certificates are renewed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pygrpc_native.aio

from extauthz.adapters.check import CHECK_METHOD, STORE_AWAY
from extauthz.adapters.front import FrontServer, Unary
from extauthz.adapters.proof import Proof, envoys_proof, operators_proof
from extauthz.config.model import ServerKind, Settings, Tls
from extauthz.domain.address import Address

# Envoy sends headers and up to max_request_bytes of body in one Check, and so does whoever asks for it to be explained.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

# Kubernetes' gRPC probes can send no metadata, and health tells no secrets.
_OPEN_SERVICES = "/grpc.health.v1.Health/"

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Otherwise a second process could silently share the port, and half of the requests would meet other books.
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Door:
    """A port to be opened: its name under `extauthz.listen`, where it is, and what callers send to be let in.

    `proof` tells it anew for each call; a door that asks for none when it is opened never does. Calls of the methods of
    `direct` are answered as they come, where the server can do that; the others can do it, too.
    """

    name: str
    address: Address
    proof: Callable[[], Proof | None]
    direct: Mapping[str, Unary] = field(default_factory=dict)


def envoys_door(settings: Callable[[], Settings], check: Unary) -> Door:
    """Tell where Envoy comes in."""
    return Door("grpc", settings().listen.grpc, lambda: envoys_proof(settings()), {CHECK_METHOD: check})


def operators_door(settings: Callable[[], Settings]) -> Door:
    """Tell where operators come in."""
    return Door("admin", settings().listen.admin, lambda: operators_proof(settings()))


def new_listener(settings: Settings, door: Door) -> tuple[grpc.aio.Server, int]:
    """Make the gRPC server of a door and bind it. Gives the server, not started, and its port.

    Raises OSError when the address cannot be bound or a certificate cannot be read.
    """
    guarded = door.proof() is not None
    interceptors = [ProofInterceptor(door.proof)] if guarded else []
    credentials = None if settings.tls is None else _credentials(settings.tls)
    address = door.address
    ensure_free(address, door.name)
    server: grpc.aio.Server
    if server_kind(settings) is ServerKind.NATIVE and door.direct:
        server = FrontServer(
            grpc.aio.server(interceptors=interceptors, options=_OPTIONS),
            door.direct,
            proof=door.proof if guarded else lambda: None,
            message_bytes_max=MESSAGE_BYTES_MAX,
            unable=STORE_AWAY,
        )
    elif server_kind(settings) is ServerKind.NATIVE:
        server = pygrpc_native.aio.server(interceptors=interceptors, options=_OPTIONS)
    else:
        server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for {door.name}: choose another address") from error
    return server, port


def server_kind(settings: Settings) -> ServerKind:
    """Tell which gRPC server carries the ports, never AUTO."""
    if settings.server is not ServerKind.AUTO:
        return settings.server
    # On pygrpc-native an empty Check takes a seventh of the CPU; it has no TLS.
    return ServerKind.NATIVE if settings.tls is None else ServerKind.GRPCIO


def ensure_free(address: Address, name: str) -> None:
    """Raise OSError with the reason and what to do where `listen.<name>` cannot be had.

    The servers themselves keep the reason back, or write it to standard error in words of their own.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart would wait for old connections
            probe.bind(target)
    except OSError as error:
        raise OSError(
            f"cannot listen on {address} for {name} ({error.strerror}): choose an address of this machine that nobody "
            f"listens on, by --{name} or extauthz.listen.{name}"
        ) from error


class ProofInterceptor(grpc.aio.ServerInterceptor):
    """Turns away callers that do not prove themselves."""

    def __init__(self, proof: Callable[[], Proof | None]) -> None:
        self._proof = proof

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Pass the call on, or answer it UNAUTHENTICATED."""
        metadata = handler_call_details.invocation_metadata or ()
        proof = self._proof()
        if handler_call_details.method.startswith(_OPEN_SERVICES) or (
            proof is not None and any(proof.accepts(key, value) for key, value in metadata)
        ):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(self._turn_away)

    async def _turn_away(self, _: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        proof = self._proof()
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "" if proof is None else proof.hint)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Make credentials that follow their files: a handshake after a change gets the new certificate."""
    _ensure_usable(tls)
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


def _ensure_usable(tls: Tls) -> None:
    """Raise OSError with the reason and what to do where gRPC would only say that it cannot listen."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert, tls.key, password="")  # an encrypted key is refused instead of asked about
    except OSError as error:
        raise OSError(
            f"tls.cert {tls.cert} and tls.key {tls.key} cannot be used ({error.strerror}): they must be PEM files, a "
            "certificate and its own key without a passphrase"
        ) from error
    if tls.client_ca is None:
        return
    try:
        context.load_verify_locations(tls.client_ca)
    except OSError as error:
        raise OSError(
            f"tls.client_ca {tls.client_ca} cannot be used ({error.strerror}): it must be a PEM file of certificates"
        ) from error


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
