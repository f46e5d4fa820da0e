"""URLs of LiteLLM's database, with the parameters that LiteLLM's own client knows."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from extauthz.directories.litellm.url import DatabaseUrl, parse_database_url
from tests.support.tls import Certificates

PLAIN = "postgresql://llmproxy:dbpassword9090@db:5432/litellm"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN, DatabaseUrl("db", 5432, "litellm", "llmproxy", "dbpassword9090")),
        ("postgres://me@db/litellm", DatabaseUrl("db", 5432, "litellm", "me", None)),
        ("postgresql://a%40b:p%2Fw@[::1]:6000/my%20db", DatabaseUrl("::1", 6000, "my db", "a@b", "p/w")),
        (f"{PLAIN}?schema=gateway", DatabaseUrl("db", 5432, "litellm", "llmproxy", "dbpassword9090", "gateway")),
        (
            "postgresql://me:pw@localhost/litellm?host=/var/run/postgresql",
            DatabaseUrl("/var/run/postgresql", 5432, "litellm", "me", "pw"),
        ),
        (
            f"{PLAIN}?pgbouncer=true&connection_limit=5&pool_timeout=60",
            DatabaseUrl("db", 5432, "litellm", "llmproxy", "dbpassword9090", pooled=True),
        ),
        (
            f"{PLAIN}?sslmode=verify-ca&sslrootcert=/ca.pem",
            DatabaseUrl("db", 5432, "litellm", "llmproxy", "dbpassword9090", mode="verify-ca", authority="/ca.pem"),
        ),
        (
            f"{PLAIN}?sslmode=require&sslaccept=strict&sslcert=/ca.pem",
            DatabaseUrl("db", 5432, "litellm", "llmproxy", "dbpassword9090", mode="verify-full", authority="/ca.pem"),
        ),
    ],
    ids=["plain", "short", "encoded", "schema", "socket", "pooled", "libpq", "prisma"],
)
def test_a_url_is_read_as_prisma_reads_it(text: str, expected: DatabaseUrl) -> None:
    """Where it is, who asks, the schema, how far TLS goes and what stands before it; other parameters are Prisma's."""
    assert expected == parse_database_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "litellm",
        "mysql://me:dbpassword9090@db/litellm",
        "postgresql://db/litellm",
        "postgresql://me:dbpassword9090@db",
        "postgresql://me:dbpassword9090@/litellm",
        "postgresql://me:dbpassword9090@db:port/litellm",
        f"{PLAIN}?sslmode=dbpassword9090",
    ],
)
def test_what_is_no_url_is_told_without_a_secret(text: str) -> None:
    """A mistake says what to write, and repeats nothing of what was written."""
    with pytest.raises(ValueError, match=r"write postgresql|is none of") as told:
        parse_database_url(text)
    assert "dbpassword9090" not in str(told.value)


def test_no_text_of_a_url_has_its_password() -> None:
    """Neither what a log shows of it nor how Python writes it has the password."""
    url = parse_database_url(PLAIN)
    assert "db:5432/litellm" == str(url)
    assert "dbpassword9090" not in repr(url)


def test_tls_goes_as_far_as_is_said(tmp_path: Path) -> None:
    """Without a word TLS is spoken where the server can; `require` alone looks at no certificate; a CA is looked at."""
    authority = Certificates(tmp_path).ca

    def spoken(parameters: str) -> ssl.SSLContext | str | bool:
        return parse_database_url(f"{PLAIN}?{parameters}").tls()

    assert "prefer" == spoken("")
    assert spoken("sslmode=disable") is False
    seen = {
        parameters: (context.verify_mode, context.check_hostname)
        for parameters in (
            "sslmode=require",
            f"sslmode=require&sslrootcert={authority}",
            f"sslmode=verify-ca&sslrootcert={authority}",
            "sslmode=verify-full",
            f"sslmode=prefer&sslrootcert={authority}",
        )
        if isinstance(context := spoken(parameters), ssl.SSLContext)
    }
    assert [
        (ssl.CERT_NONE, False),
        (ssl.CERT_REQUIRED, False),
        (ssl.CERT_REQUIRED, False),
        (ssl.CERT_REQUIRED, True),
        (ssl.CERT_REQUIRED, False),
    ] == [*seen.values()]
