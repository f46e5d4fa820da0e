"""The credentials that a request brings: keys and tokens in headers, and what an earlier filter says in some.

A key is turned into its SHA-256 the moment it is read and is never kept. Two keys in one request are refused: the
upstream might charge one person and we another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import parse_qs

from extauthz.domain.claimed import Claimed, fits_a_scope
from extauthz.domain.tokens import looks_like_token
from extauthz.domain.value import value

KEY_BYTES_MAX = 4096

# LiteLLM looks for a key in all of these, its own header first; a key that we do not see would be somebody else's.
_KEY_HEADERS = ("x-api-key", "api-key", "x-litellm-api-key", "x-goog-api-key", "ocp-apim-subscription-key")
CREDENTIAL_HEADERS = ("authorization", *_KEY_HEADERS)

# Google's clients may write their key into the path, Azure's too, and browsers one of OpenAI's into the protocols of a
# WebSocket. It is none of ours, and who sends it is not nobody.
_KEYS_IN_QUERY = frozenset({"key", "api-key"})
_PROTOCOLS_HEADER = "sec-websocket-protocol"
_KEY_IN_PROTOCOL = "openai-insecure-api-key."


@value
class Credential:
    """A key that a request brought, by its SHA-256 in hexadecimal.

    What is written as tokens are is here as `token`, too: it is a key if it is known as one.
    """

    key_sha256: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UnusableCredential:
    """Something that stands where a key belongs and is none: whoever sent it is not nobody."""


@dataclass(frozen=True, slots=True)
class AmbiguousCredential:
    """Credentials that can be read in no way or in several: a 400, with the reason for the client."""

    message: str


@dataclass(frozen=True, slots=True)
class TrustedHeaders:
    """The headers in which an earlier filter says who asks, in lower case; None for what it does not say.

    With `unlisted`, payers that are not listed pay by what `default` has.
    """

    user: str | None = None
    team: str | None = None
    organization: str | None = None
    end_user: str | None = None
    unlisted: bool = False


_UNUSABLE = UnusableCredential()
_REPEATED = AmbiguousCredential("Send `authorization`, `x-api-key` and the like at most once each, with one key.")
_DIFFERENT = AmbiguousCredential("Send one API key: the request carries different ones in several headers.")


def credential_of(
    headers: Mapping[str, tuple[str, ...]],
) -> Credential | UnusableCredential | AmbiguousCredential | None:
    """Find the key or token of a request, None when it brings none. `headers` have lower-case names.

    Another scheme than Bearer, and a text that is too long for a key, are unusable.
    """
    authorization = headers.get("authorization", ())
    given = [authorization, *[headers[name] for name in _KEY_HEADERS if name in headers]]
    # Envoy joins repeated headers with commas where it does not keep them apart.
    if any(len(values) > 1 or "," in value for values in given for value in values):
        return _REPEATED

    others = {value.strip() for values in given[1:] for value in values}
    keys = {_bearer_key(value) for value in authorization} | {_bearer_key(value) or value for value in others}
    match [*(keys - {""})]:
        case []:
            return _UNUSABLE if any(not _says_nothing(value) for values in given for value in values) else None
        case [key]:
            return _credential(key)
        case _:
            return _DIFFERENT


def _credential(key: str) -> Credential | UnusableCredential:
    raw = key.encode(errors="surrogatepass")
    token = key if looks_like_token(key) else None
    return Credential(sha256(raw).hexdigest(), token) if len(raw) <= KEY_BYTES_MAX or token is not None else _UNUSABLE


def _bearer_key(authorization: str) -> str:
    scheme, _, key = authorization.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _says_nothing(value: str) -> bool:
    """Tell a header that is empty, as clients send it that have no key."""
    return value.strip().lower() in {"", "bearer"}


def has_key_elsewhere(path: str, headers: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether a key of the upstream's stands where none of ours is looked for."""
    _, _, query = path.partition("?")
    in_query = not _KEYS_IN_QUERY.isdisjoint(parse_qs(query, keep_blank_values=True))
    return in_query or any(_KEY_IN_PROTOCOL in value.lower() for value in headers.get(_PROTOCOLS_HEADER, ()))


def trusted_of(headers: Mapping[str, tuple[str, ...]], trusted: TrustedHeaders) -> Claimed | AmbiguousCredential | None:
    """Read whom an earlier filter names, None when it names nobody."""
    found: dict[str, str] = {}
    for kind in ("user", "team", "organization", "end_user"):
        name: str | None = getattr(trusted, kind)
        values = () if name is None else headers.get(name, ())
        match [*{value.strip() for value in values} - {""}]:
            case []:
                continue
            case [value] if len(values) == 1 and "," not in value and fits_a_scope(value):
                found[kind] = value
            case _:
                return AmbiguousCredential(f"The header `{name}` must name one {kind.replace('_', ' ')}.")
    if not found.keys() - {"end_user"}:
        return None
    user, team, organization, end_user = (found.get(kind) for kind in ("user", "team", "organization", "end_user"))
    return Claimed(user, team, organization, end_user, unlisted=trusted.unlisted)
