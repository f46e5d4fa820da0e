"""Tokens, verified: who signed them, and whom they name. Nothing here waits for anybody.

A token that was verified is remembered by its SHA-256 until it expires, so that the next request with it costs no
signature. It is forgotten sooner when its key is withdrawn or the rules of its issuer change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extauthz.domain.claimed import Claimed
from extauthz.domain.credentials import Credential
from extauthz.domain.tokens import Issuer, TokenFault, UnverifiedToken, expires_s, fault_of, judged, read_token
from extauthz.tokens.keys import KeySet, VerificationKey

# Tokens that are remembered; beyond it the one that was not used for longest is verified again. Only what an issuer
# signed gets in here, so nobody else can drive the others out.
TOKENS_MAX = 4096

# Finds the keys of an issuer, by its name; None where there are none at the moment.
KeysOf = Callable[[str], KeySet | None]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A token that is not accepted. `issuer` is the one whose token it says to be, if that one is known."""

    fault: TokenFault
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class _Remembered:
    issuer: Issuer
    key: VerificationKey
    claimed: Claimed
    ends_s: float


class TokenVerifier:
    """Verifies tokens at the moment that `clock_s` tells, in Unix seconds."""

    def __init__(self, clock_s: Callable[[], float], *, tokens_max: int = TOKENS_MAX) -> None:
        self._clock_s = clock_s
        self._tokens_max = tokens_max
        self._remembered: dict[str, _Remembered] = {}

    def verify(
        self, credential: Credential, issuers: Mapping[str, Issuer], bytes_max: int, keys_of: KeysOf
    ) -> Claimed | Rejected:
        """Tell whom a token names, or why it is not accepted. No token of more than `bytes_max` is read."""
        now_s = self._clock_s()
        remembered = self._recalled(credential.key_sha256, issuers, keys_of, now_s)
        if remembered is not None:
            return remembered
        token = read_token(credential.token or "", bytes_max)
        if isinstance(token, TokenFault):
            return Rejected(token)
        issuer = issuers.get(token.issuer or "")
        if issuer is None:
            return Rejected(TokenFault.ISSUER)
        key = _signer(token, issuer, keys_of(issuer.name))
        if isinstance(key, TokenFault):
            return Rejected(key, issuer.name)
        claimed = judged(token, issuer, now_s)
        if isinstance(claimed, TokenFault):
            return Rejected(claimed, issuer.name)
        self._remember(credential.key_sha256, _Remembered(issuer, key, claimed, expires_s(token) + issuer.skew_s))
        return claimed

    def _recalled(self, sha256: str, issuers: Mapping[str, Issuer], keys_of: KeysOf, now_s: float) -> Claimed | None:
        found = self._remembered.pop(sha256, None)
        if found is None or now_s >= found.ends_s or issuers.get(found.issuer.name) != found.issuer:
            return None
        keys = keys_of(found.issuer.name)
        if keys is None or not keys.has(found.key):
            return None
        self._remembered[sha256] = found  # as the one that was used last
        return found.claimed

    def _remember(self, sha256: str, token: _Remembered) -> None:
        if len(self._remembered) >= self._tokens_max:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[sha256] = token


def _signer(token: UnverifiedToken, issuer: Issuer, keys: KeySet | None) -> VerificationKey | TokenFault:
    """Find the key that a token was signed with."""
    fault = fault_of(token, issuer)
    if fault is not None:
        return fault
    if keys is None:
        return TokenFault.KEYS_AWAY
    candidates = keys.candidates(token.key_id, token.algorithm)
    if not candidates:
        return TokenFault.KEY_UNKNOWN
    verified = (key for key in candidates if key.verifies(token.signed, token.signature))
    return next(verified, TokenFault.SIGNATURE)
