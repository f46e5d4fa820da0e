"""Who pays: the credential of a request, and the principal that it belongs to.

A key is turned into its SHA-256 the moment it is read and is never kept. Two keys in one request are refused: the
upstream might charge one person and we another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from extauthz.domain.body import Unreadable
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX, Scope, ScopeBudgets

KEY_BYTES_MAX = 4096

# LiteLLM looks for a key in all of these, its own header first; a key that we do not see would be somebody else's.
_KEY_HEADERS = ("x-api-key", "api-key", "x-litellm-api-key", "x-goog-api-key", "ocp-apim-subscription-key")
CREDENTIAL_HEADERS = ("authorization", *_KEY_HEADERS)
# LiteLLM's order; a header that the operator names comes after them.
_END_USER_HEADERS = ("x-litellm-customer-id", "x-litellm-end-user-id")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who pays for a request.

    `scopes` are all that its spend is counted on, each with the budgets that bind. `models` are the lists of allowed
    model names (key's, team's); a model must be on each of them, and no list allows everything. In `shadow_mode`
    nothing is refused to it.
    """

    name: str
    scopes: tuple[ScopeBudgets, ...]
    models: tuple[tuple[str, ...], ...] = ()
    admin: bool = False
    shadow_mode: bool = False

    @property
    def payers(self) -> tuple[Scope, ...]:
        """The scopes alone."""
        return tuple(scope.scope for scope in self.scopes)

    def unlimited(self) -> Principal:
        """Give the same with no budget that binds: its spend is counted, whatever it is."""
        return replace(self, scopes=tuple(replace(scope, binds=False) for scope in self.scopes))


@dataclass(frozen=True, slots=True)
class Credential:
    """A key that a request brought, by its SHA-256 in hexadecimal."""

    key_sha256: str


@dataclass(frozen=True, slots=True)
class AmbiguousCredential:
    """Several credentials in one request: a 400, with the reason for the client."""

    message: str


_REPEATED = AmbiguousCredential("Send `authorization`, `x-api-key` and the like at most once each, with one key.")
_DIFFERENT = AmbiguousCredential("Send one API key: the request carries different ones in several headers.")


def credential_of(headers: Mapping[str, tuple[str, ...]]) -> Credential | AmbiguousCredential | None:
    """Find the key of a request. `headers` have lower-case names.

    None when it brings none: no such header, another scheme than Bearer, or a text that is too long for a key.
    """
    authorization = headers.get("authorization", ())
    given = [authorization, *(headers.get(name, ()) for name in _KEY_HEADERS)]
    # Envoy joins repeated headers with commas where it does not keep them apart.
    if any(len(values) > 1 or "," in value for values in given for value in values):
        return _REPEATED

    others = {value.strip() for values in given[1:] for value in values}
    keys = {_bearer_key(value) for value in authorization} | {_bearer_key(value) or value for value in others}
    match [key.encode(errors="surrogatepass") for key in keys - {""}]:
        case []:
            return None
        case [key]:
            return Credential(sha256(key).hexdigest()) if len(key) <= KEY_BYTES_MAX else None
        case _:
            return _DIFFERENT


def _bearer_key(authorization: str) -> str:
    scheme, _, key = authorization.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def end_user_of(headers: Mapping[str, tuple[str, ...]], user_header_name: str | None) -> str | Unreadable | None:
    """Find the end user in the headers, None when none names one. The first header that does counts, as in LiteLLM.

    `user_header_name` is the operator's own header, in any case.
    """
    for name in (*_END_USER_HEADERS, *([user_header_name.lower()] if user_header_name else ())):
        values = {value.strip() for value in headers.get(name, ())} - {""}
        match sorted(values):
            case []:
                continue
            case [value] if "," not in value and len(value.encode(errors="surrogatepass")) <= SCOPE_ID_BYTES_MAX:
                return value
            case _:
                return Unreadable(
                    f"Name one end user in `{name}`, once, in at most {SCOPE_ID_BYTES_MAX} bytes and without a comma."
                )
    return None
