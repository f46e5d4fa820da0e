"""Which port of a server a command speaks to, and how it proves who asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extauthz.domain.address import Address
from extauthz.errors import ExtauthzError

TOKEN_VARIABLE = "EXTAUTHZ_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
GATE_TOKEN_VARIABLE = "EXTAUTHZ_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_BYTES_MAX = 4096

# What gRPC's metadata can carry; after `Bearer` no blanks.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_GATE_TOKEN = re.compile(r"[\x20-\x7e]+")


class TokenUnusableError(ExtauthzError):
    """The token cannot be sent."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What this side shows to a server that asks for a certificate."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Target:
    """A port of a server, and what it wants to see. TLS is spoken where any of the certificates is named.

    `server_name` is who the server's certificate is made out to, where that is not the host of the address.
    """

    address: Address
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    client: ClientCertificate | None = None
    server_name: str | None = None

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.ca is not None or self.client is not None


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Read the token from the file, or else from the environment; None without one.

    Raises TokenUnusableError, which does not tell the token, and OSError.
    """
    if file is None:
        token, source = environment.get(TOKEN_VARIABLE, "").strip(), f"the variable {TOKEN_VARIABLE}"
        if not token:
            return None
    else:
        with file.open("rb") as opened:
            token, source = opened.read(TOKEN_BYTES_MAX + 1).decode("latin-1").strip(), str(file)
    if len(token) > TOKEN_BYTES_MAX or _TOKEN.fullmatch(token) is None:
        raise TokenUnusableError(f"{source} is no token: it must be one line of printable ASCII without blanks")
    return token


def gate_token(variable: str | None, environment: Mapping[str, str]) -> str | None:
    """Read what Envoy sends from a variable, by default GATE_TOKEN_VARIABLE, which may be unset; None without one.

    Raises TokenUnusableError, which does not tell the token.
    """
    name = variable or GATE_TOKEN_VARIABLE
    token = environment.get(name, "").strip()
    if not token:
        if variable is None:
            return None
        raise TokenUnusableError(f"the environment variable {variable} is not set")
    if len(token) > TOKEN_BYTES_MAX or _GATE_TOKEN.fullmatch(token) is None:
        raise TokenUnusableError(f"the variable {name} has no token: it must be one line of printable ASCII")
    return token
