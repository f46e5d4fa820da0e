"""The gRPC ports: which server carries them, who gets in, and what a person is told when it cannot be had."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc.aio
import pytest

from extauthz.adapters.front import FrontServer
from extauthz.adapters.listener import ProofInterceptor, ensure_free, envoys_door, new_listener, operators_door
from extauthz.adapters.proof import Proof, envoys_proof, operators_proof
from extauthz.config.model import ServerKind, Settings, Tls
from extauthz.domain.address import Address
from tests.support.processes import LOOPBACK
from tests.support.tls import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates for the server and for clients."""
    return Certificates(tmp_path_factory.mktemp("tls"))


def settings(kind: ServerKind = ServerKind.AUTO, tls: Tls | None = None) -> Settings:
    """Give the settings of a server on any free port."""
    return Settings(server=kind, tls=tls).listening(grpc=Address(LOOPBACK, 0), admin=Address(LOOPBACK, 0))


@pytest.mark.parametrize(
    ("kind", "with_tls", "expected"),
    [
        (ServerKind.AUTO, False, FrontServer),
        (ServerKind.NATIVE, False, FrontServer),
        (ServerKind.GRPCIO, False, grpc.aio.Server),
        (ServerKind.AUTO, True, grpc.aio.Server),
        (ServerKind.GRPCIO, True, grpc.aio.Server),
    ],
)
async def test_the_server_that_can_do_what_is_asked(
    certificates: Certificates,
    kind: ServerKind,
    with_tls: bool,  # noqa: FBT001 - a column of the table
    expected: type[grpc.aio.Server],
) -> None:
    """The native server carries plain text, grpcio carries TLS, and a configured one is taken."""
    tls = Tls(cert=certificates.cert, key=certificates.key) if with_tls else None

    given = settings(kind, tls)
    server, port = new_listener(given, envoys_door(lambda: given, lambda message, _: message))
    await server.start()
    await server.stop(None)

    assert port > 0
    assert isinstance(server, expected)
    assert (expected is FrontServer) is isinstance(server, FrontServer)


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    """The line names the address, the reason and both ways to choose another one."""
    with socket.create_server((LOOPBACK, 0)) as other:
        address = Address(LOOPBACK, other.getsockname()[1])
        with pytest.raises(OSError, match="in use") as failure:
            ensure_free(address, "grpc")

    assert (
        f"cannot listen on {address} for grpc (Address already in use): choose an address of this machine that nobody "
        "listens on, by --grpc or extauthz.listen.grpc"
    ) == str(failure.value)
    ensure_free(address, "grpc")


@pytest.mark.parametrize(
    ("replaced", "content", "named"),
    [
        pytest.param("cert", None, "tls.cert", id="no certificate"),
        pytest.param("key", None, "tls.key", id="no key"),
        pytest.param("client_ca", None, "tls.client_ca", id="no CA"),
        pytest.param("cert", "junk", "tls.cert", id="a certificate that is none"),
        pytest.param("key", "junk", "tls.key", id="a key that is none"),
        pytest.param("key", "another's", "tls.key", id="the key of another certificate"),
        pytest.param("client_ca", "junk", "tls.client_ca", id="a CA that is none"),
    ],
)
async def test_files_that_cannot_be_used_are_named(
    certificates: Certificates, tmp_path: Path, replaced: str, content: str | None, named: str
) -> None:
    """A mistake in the TLS files is one line with the setting and the file, not `cannot listen`."""
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(certificates.client_key.read_bytes() if content == "another's" else content.encode())
    files = {"cert": certificates.cert, "key": certificates.key, "client_ca": certificates.ca, replaced: bad}
    given = settings(tls=Tls(**files))

    with pytest.raises(OSError, match="cannot be used") as failure:
        new_listener(given, operators_door(lambda: given))

    assert f"{named} {bad}" in str(failure.value)
    assert "\n" not in str(failure.value)


SHARED = Settings(token="s3cret", admin_token="t0ken")
ENVOYS, OPERATORS = envoys_proof(SHARED), operators_proof(SHARED)


@pytest.mark.parametrize(
    ("proof", "name", "sent", "passes"),
    [
        pytest.param(ENVOYS, "x-extauthz-token", b"s3cret", True, id="Envoy's"),
        pytest.param(ENVOYS, "x-extauthz-token", b"", False, id="empty"),
        pytest.param(ENVOYS, "x-extauthz-token", b"s3cre", False, id="cut off"),
        pytest.param(ENVOYS, "x-extauthz-token", b"s3cret ", False, id="a blank more"),
        pytest.param(ENVOYS, "x-extauthz-token", b"S3CRET", False, id="in capitals"),
        pytest.param(ENVOYS, "authorization", b"s3cret", False, id="elsewhere"),
        pytest.param(OPERATORS, "authorization", "Bearer t0ken", True, id="an operator's"),
        pytest.param(OPERATORS, "authorization", b"bearer t0ken", True, id="the scheme in small letters"),
        pytest.param(OPERATORS, "authorization", "t0ken", False, id="no scheme"),
        pytest.param(OPERATORS, "authorization", "Basic t0ken", False, id="another scheme"),
        pytest.param(OPERATORS, "authorization", "Bearer", False, id="the scheme alone"),
        pytest.param(OPERATORS, "authorization", "Bearer t0keN", False, id="another token"),
        pytest.param(OPERATORS, "authorization", "Bearer tökén", False, id="not ASCII"),
        pytest.param(OPERATORS, "authorization", "Bearer \udcff\udcfe", False, id="bytes that are no text"),
        pytest.param(OPERATORS, "x-extauthz-token", "t0ken", False, id="an operator's as Envoy's"),
    ],
)
async def test_nothing_but_the_token_passes(
    proof: Proof,
    name: str,
    sent: str | bytes,
    passes: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """A token is compared whole and under its own name; the refusal does not depend on the method's handler."""
    asked = []

    class Details(grpc.HandlerCallDetails):
        method = "/envoy.service.auth.v3.Authorization/Check"
        invocation_metadata = ((name, sent),)

    async def continuation(details: grpc.HandlerCallDetails) -> None:
        asked.append(details)

    handler = await ProofInterceptor(lambda: proof).intercept_service(continuation, Details())

    assert passes is (handler is None) is bool(asked)


def test_a_proof_shows_no_secret() -> None:
    """What says how to prove oneself does not tell the secret, not even in a traceback."""
    for proof in (ENVOYS, OPERATORS):
        assert proof is not None
        assert proof.secret.decode() not in repr(proof) + proof.hint


def test_nothing_is_asked_without_a_secret() -> None:
    """Without tokens nobody has to prove anything."""
    assert envoys_proof(Settings()) is operators_proof(Settings()) is None
