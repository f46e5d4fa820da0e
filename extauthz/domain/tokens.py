"""JSON Web Tokens: read, and held against the rules of their issuer. Signatures are looked at elsewhere.

Whatever is wrong with a token is a value, `TokenFault`, for the log: the client hears only that it is not accepted.
Nothing that a token says of its own keys (`jku`, `jwk`, `x5u`, `x5c`) is ever looked at.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

import jiter

from extauthz.domain.claimed import Claimed, PayerRule, by_rules, fits_a_scope

# More than any issuer's `token_bytes_max` may say. Envoy takes no more than 60 KiB of headers unless it is told to.
TOKEN_BYTES_MAX = 64 * 1024

# Ids of keys are short; what is longer names none.
KEY_ID_BYTES_MAX = 512

# More teams or roles than anybody has. A longer list is refused rather than read in part.
LISTED_MAX = 1000

# The year 9999: a moment beyond it is no moment.
MOMENT_S_MAX = 253_402_300_799

# How deep the name of a claim may lead into others.
_PATH_DEPTH_MAX = 8

_COMPACT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){2}(?:(?:\.[A-Za-z0-9_-]*){2})?", re.ASCII)
_SEGMENTS = 3

# RFC 8725, 3.11: tokens that were made for something else (a logout, a proof of possession) say so here.
_TYPES = frozenset({"jwt", "at+jwt"})

_Json = dict[str, object]


class TokenFault(StrEnum):
    """Why a token is not accepted; a closed set of values, also of the metrics' label `fault`."""

    TOO_LARGE = "too_large"
    ENCRYPTED = "encrypted"
    MALFORMED = "malformed"
    TYPE = "type"
    CRITICAL = "critical"
    ISSUER = "issuer"
    ALGORITHM = "algorithm"
    KEYS_AWAY = "keys_away"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    CLAIM = "claim"
    SUBJECT = "subject"
    ROLE = "role"
    TEAM = "team"


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token that can be read in one way only. Nothing in it is to be believed yet."""

    algorithm: str
    key_id: str | None
    claims: _Json
    signed: bytes
    signature: bytes
    size: int

    @property
    def issuer(self) -> str | None:
        """Who says to have issued it."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else None


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims name whom; None for what no claim does. A dot leads into an object, unless a name has it itself."""

    user: str | None = "sub"
    team: str | None = None
    teams: str | None = None
    organization: str | None = None
    end_user: str | None = None
    roles: str | None = None


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who is believed, by its `name`, and how far.

    A token must be for one of `audiences`, signed by one of `algorithms`. Who pays say `subjects`, or `claims` where
    there are none. Whoever has one of `admin_roles` is bound by no budget; without one of `required_roles`, if there
    are any, nobody gets in. `unlisted` lets in who is not listed, by what `default` has.
    """

    name: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    skew_s: int = 30
    token_bytes_max: int = 8192
    claims: ClaimNames = ClaimNames()
    subjects: tuple[PayerRule, ...] = ()
    admin_roles: frozenset[str] = frozenset()
    required_roles: frozenset[str] = frozenset()
    unlisted: bool = False


class _FaultyError(Exception):
    """Carries a fault out of the functions below; it never leaves this module."""

    def __init__(self, fault: TokenFault) -> None:
        super().__init__(fault)
        self.fault = fault


def looks_like_token(text: str) -> bool:
    """Tell whether a credential is written as tokens are, signed or encrypted ones."""
    # Most credentials are keys, and have no dot; the expression would look at each of their characters for one.
    return "." in text and len(text) <= TOKEN_BYTES_MAX and _COMPACT.fullmatch(text) is not None


def read_token(text: str, bytes_max: int) -> UnverifiedToken | TokenFault:
    """Read a token of at most so many bytes. Nothing of a longer one is looked at."""
    if len(text) > min(bytes_max, TOKEN_BYTES_MAX):
        return TokenFault.TOO_LARGE
    if not text.isascii():
        return TokenFault.MALFORMED
    segments = text.split(".")
    if len(segments) != _SEGMENTS:
        return TokenFault.ENCRYPTED if looks_like_token(text) else TokenFault.MALFORMED
    try:
        header, claims = (_object(_bytes(segment)) for segment in segments[:2])
        _refuse_other_types(header)
        return UnverifiedToken(
            algorithm=_text(header, "alg") or "",
            key_id=_key_id(header),
            claims=claims,
            signed=text.rpartition(".")[0].encode(),
            signature=_bytes(segments[2]) if segments[2] else b"",
            size=len(text),
        )
    except _FaultyError as error:
        return error.fault


def fault_of(token: UnverifiedToken, issuer: Issuer) -> TokenFault | None:
    """Tell what is wrong with a token before its signature is worth looking at."""
    if token.size > issuer.token_bytes_max:
        return TokenFault.TOO_LARGE
    return None if token.algorithm in issuer.algorithms else TokenFault.ALGORITHM


def expires_s(token: UnverifiedToken) -> float:
    """Give the moment a token that was judged ends, in Unix seconds."""
    return _moment(token.claims, "exp") or 0.0


def judged(token: UnverifiedToken, issuer: Issuer, now_s: float) -> Claimed | TokenFault:
    """Judge the claims of a token that its issuer signed, at a moment in Unix seconds: whom they name, or why not."""
    try:
        _check_audience(token.claims, issuer)
        _check_moments(token.claims, issuer, now_s)
        return _claimed(token.claims, issuer)
    except _FaultyError as error:
        return error.fault


def _bytes(segment: str) -> bytes:
    """Decode base64url in the one way that it is written: no padding, and no bits that mean nothing."""
    try:
        decoded = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (Base64Error, ValueError):
        raise _FaultyError(TokenFault.MALFORMED) from None
    if not segment or _COMPACT.fullmatch(f"{segment}..") is None or _bits_left(segment, decoded):
        raise _FaultyError(TokenFault.MALFORMED)
    return decoded


def _bits_left(segment: str, decoded: bytes) -> bool:
    unused = 6 * len(segment) - 8 * len(decoded)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return bool(alphabet.index(segment[-1]) & ((1 << unused) - 1))


def _object(raw: bytes) -> _Json:
    try:
        value = jiter.from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        raise _FaultyError(TokenFault.MALFORMED) from None
    if not isinstance(value, dict):
        raise _FaultyError(TokenFault.MALFORMED)
    return value


def _refuse_other_types(header: _Json) -> None:
    # What is marked critical must be understood, and nothing of it is; compressed tokens (`zip`) are encrypted ones.
    if header.keys() & {"crit", "b64", "zip", "enc"}:
        raise _FaultyError(TokenFault.CRITICAL)
    kind = _text(header, "typ")
    if kind is not None and kind.lower().removeprefix("application/") not in _TYPES:
        raise _FaultyError(TokenFault.TYPE)
    if header.get("cty") is not None:  # another token is inside
        raise _FaultyError(TokenFault.TYPE)


def _text(section: _Json, name: str) -> str | None:
    value = section.get(name)
    if not isinstance(value, str | None):
        raise _FaultyError(TokenFault.MALFORMED)
    return value


def _key_id(header: _Json) -> str | None:
    key_id = _text(header, "kid")
    if key_id is not None and len(key_id.encode(errors="surrogatepass")) > KEY_ID_BYTES_MAX:
        raise _FaultyError(TokenFault.KEY_UNKNOWN)
    return key_id


def _check_audience(claims: _Json, issuer: Issuer) -> None:
    match claims.get("aud"):
        case str(audience) if audience in issuer.audiences:
            return
        case list(audiences) if len(audiences) <= LISTED_MAX and any(
            isinstance(audience, str) and audience in issuer.audiences for audience in audiences
        ):
            return
        case _:
            raise _FaultyError(TokenFault.AUDIENCE)


def _check_moments(claims: _Json, issuer: Issuer, now_s: float) -> None:
    expires, begins, issued = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise _FaultyError(TokenFault.CLAIM)
    if now_s >= expires + issuer.skew_s:
        raise _FaultyError(TokenFault.EXPIRED)
    if any(moment is not None and moment - issuer.skew_s > now_s for moment in (begins, issued)):
        raise _FaultyError(TokenFault.NOT_YET_VALID)


def _moment(claims: _Json, name: str) -> float | None:
    """Read a moment in Unix seconds."""
    value = claims.get(name)
    if value is None:
        return None
    # jiter reads 1e999 as infinity, and no bool is a number here.
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise _FaultyError(TokenFault.CLAIM)
    if not 0 <= value <= MOMENT_S_MAX:
        raise _FaultyError(TokenFault.CLAIM)
    return float(value)


def _claimed(claims: _Json, issuer: Issuer) -> Claimed:
    names = issuer.claims
    roles = frozenset(_listed(claims, names.roles))
    if issuer.required_roles and roles.isdisjoint(issuer.required_roles):
        raise _FaultyError(TokenFault.ROLE)
    payer = _by_subject(claims, issuer) if issuer.subjects else _by_names(claims, names)
    return Claimed(
        payer.user,
        payer.team,
        payer.organization,
        end_user=_id(claims, names.end_user, required=False),
        teams=_listed(claims, names.teams),
        admin=not roles.isdisjoint(issuer.admin_roles),
        unlisted=issuer.unlisted,
    )


def _by_subject(claims: _Json, issuer: Issuer) -> Claimed:
    subject = _id(claims, "sub", required=True) or ""
    claimed = by_rules(subject, issuer.subjects)
    if claimed is None:
        raise _FaultyError(TokenFault.SUBJECT)
    return claimed


def _by_names(claims: _Json, names: ClaimNames) -> Claimed:
    user, team, organization = (
        _id(claims, name, required=True) for name in (names.user, names.team, names.organization)
    )
    return Claimed(user, team, organization)


def _id(claims: _Json, name: str | None, *, required: bool) -> str | None:
    """Read an id; None where no claim is for it, or where it may be missing and is."""
    if name is None:
        return None
    match _found(claims, name):
        case None | "" if not required:
            return None
        case str(text) if fits_a_scope(text):
            return text
        case _:
            raise _FaultyError(TokenFault.CLAIM)


def _listed(claims: _Json, name: str | None) -> tuple[str, ...]:
    """Read a list of ids, or one alone; other values in it name nobody."""
    value = None if name is None else _found(claims, name)
    match value:
        case None:
            return ()
        case str():
            return (value,) if fits_a_scope(value) else ()
        case list() if len(value) <= LISTED_MAX:
            return tuple(dict.fromkeys(item for item in value if isinstance(item, str) and fits_a_scope(item)))
        case _:
            raise _FaultyError(TokenFault.CLAIM)


def _found(claims: Mapping[str, object], name: str) -> object:
    """Find a claim: one of exactly this name, or one inside another, behind a dot."""
    if name in claims:
        return claims[name]
    value: object = claims
    for step in name.split(".", _PATH_DEPTH_MAX):
        value = value.get(step) if isinstance(value, dict) else None
    return value
