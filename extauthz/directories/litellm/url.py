"""Where LiteLLM's database is, as its `database_url` says it: a URL with the parameters that Prisma knows."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from extauthz.authorities import trusting

SCHEMES = ("postgresql", "postgres")
PORT = 5432
SCHEMA = "public"

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = ("verify-ca", "verify-full")
# What the file is called that has the certificate authority: by everybody, and by Prisma.
AUTHORITY = ("sslrootcert", "sslcert")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database, its schema and who asks. `mode` says how far TLS goes, by libpq's words; `authority` is a CA's file.

    With `pooled`, a PgBouncer stands before it, which keeps no settings and no statements of a connection.
    """

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(repr=False)
    schema: str = SCHEMA
    mode: str = "prefer"
    authority: str | None = None
    pooled: bool = False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"

    def tls(self) -> ssl.SSLContext | str | bool:
        """Give how TLS is to be spoken, as asyncpg takes it. Raises OSError when the authority's file is not there."""
        if self.mode in ("allow", "prefer") and self.authority is None:
            return "prefer"
        if self.mode == "disable":
            return False
        context = trusting(self.authority)
        if self.mode != "verify-full":
            context.check_hostname = False
        if self.mode not in VERIFYING and self.authority is None:
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_database_url(text: str) -> DatabaseUrl:
    """Read `postgresql://user:password@host:5432/litellm?schema=public&sslmode=require`.

    Raises ValueError, which does not repeat the text: a password stands in it.
    """
    try:
        parts = urlsplit(text)
        port = parts.port or PORT
    except ValueError:
        raise ValueError("this is not a URL: write postgresql://USER:PASSWORD@HOST:5432/DATABASE") from None
    parameters = dict(parse_qsl(parts.query))
    database = unquote(parts.path.removeprefix("/"))
    # Prisma's way to name the folder of a Unix socket.
    host = parameters.get("host", parts.hostname or "")
    if parts.scheme not in SCHEMES or not host or not database or not parts.username:
        raise ValueError(
            "this is not the URL of a PostgreSQL: write postgresql://USER:PASSWORD@HOST:5432/DATABASE, as LiteLLM's "
            "general_settings.database_url has it"
        )
    return DatabaseUrl(
        host=host,
        port=port,
        database=database,
        user=unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        schema=parameters.get("schema", SCHEMA),
        mode=_mode(parameters),
        authority=next((parameters[name] for name in AUTHORITY if name in parameters), None),
        pooled=parameters.get("pgbouncer") == "true",
    )


def _mode(parameters: Mapping[str, str]) -> str:
    mode = parameters.get("sslmode", "prefer")
    if mode not in MODES:
        raise ValueError(f"`sslmode` is none of {', '.join(MODES)}")
    # Prisma's way to say that a certificate is to be looked at.
    return "verify-full" if mode == "require" and parameters.get("sslaccept") == "strict" else mode
