"""How callers prove themselves by a shared secret. Secrets are compared in constant time, and shown nowhere."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from extauthz.config.model import Settings
from extauthz.envoy.names import TOKEN_METADATA

AUTHORIZATION = "authorization"
BEARER = "Bearer"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a caller sends under `name` (gRPC metadata, or a header in lower case): the secret, after its scheme if any.

    `hint` says so to somebody who did not.
    """

    name: str
    secret: bytes = field(repr=False)
    hint: str
    scheme: str = ""

    def accepts(self, name: str, value: str | bytes) -> bool:
        """Tell whether this is it."""
        if name != self.name:
            return False
        # aiohttp keeps bytes that are not UTF-8 as surrogates.
        given = value.encode(errors="surrogateescape") if isinstance(value, str) else value
        if self.scheme:
            scheme, _, given = given.partition(b" ")
            if scheme.lower() != self.scheme.lower().encode():
                return False
        return hmac.compare_digest(given, self.secret)


def envoys_proof(settings: Settings) -> Proof | None:
    """Tell what Envoy sends; None when it need not."""
    if settings.token is None:
        return None
    secret = settings.token.get_secret_value().encode()
    return Proof(TOKEN_METADATA, secret, f"send the shared token as {TOKEN_METADATA}")


def operators_proof(settings: Settings) -> Proof | None:
    """Tell what operators send, to the admin port and to the status page; None when they need not."""
    if settings.admin_token is None:
        return None
    secret = settings.admin_token.get_secret_value().encode()
    hint = f"send extauthz.admin_token in the metadata, as `{AUTHORIZATION}: {BEARER} TOKEN`"
    return Proof(AUTHORIZATION, secret, hint, scheme=BEARER)
