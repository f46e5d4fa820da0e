"""Authorities that houses make themselves: one that any Python before 3.13 trusts is trusted by each."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from extauthz.adapters.jwks import _context
from extauthz.directories.litellm.url import parse_database_url
from extauthz.ledger.primary import open_client
from extauthz.ledger.url import parse_store_url
from tests.support.spiffe import Mesh

NAME = "server.test"
STEPS_MAX = 10


def of_the_database(ca: Path) -> ssl.SSLContext:
    """Give what LiteLLM's database is reached with."""
    context = parse_database_url(f"postgresql://u:p@{NAME}/db?sslmode=verify-full&sslrootcert={ca}").tls()
    assert isinstance(context, ssl.SSLContext)
    return context


def of_redis(ca: Path) -> ssl.SSLContext:
    """Give what a Redis is reached with."""
    url = parse_store_url(f"rediss://{NAME}?ca={ca}")
    context = open_client(url, url.addresses[0], url.login, timeout_s=1.0).connection_pool.make_connection().ssl_context
    return context.get()  # type: ignore[no-any-return]


@pytest.mark.parametrize("bare", [False, True], ids=["with all extensions", "with few"])
@pytest.mark.parametrize("context", [of_redis, of_the_database, _context])
def test_it_is_trusted(context: Callable[[Path], ssl.SSLContext], bare: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """A server is taken whose certificate the named authority has issued, and none of another authority."""
    (tmp_path / "other").mkdir()
    mesh, other = Mesh(tmp_path, bare=bare), Mesh(tmp_path / "other", bare=bare)

    assert shakes_hands(context(mesh.ca), mesh)
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(context(mesh.ca), other)


def shakes_hands(context: ssl.SSLContext, mesh: Mesh) -> bool:
    """Shake hands with a server of a mesh, and tell whether it came to an end."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*mesh.issue("server", dns=NAME))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=NAME)
    server = serving.wrap_bio(up, down, server_side=True)
    for _ in range(STEPS_MAX):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.version() is not None and server.version() is not None
