"""Who pays for a request, top to bottom: its credentials → whom each names → one principal, and its end user.

1. A key, in any of the headers that carry one, by its SHA-256. What is no known key may be a token of an issuer.
2. The client certificate of the peer, or the one that a trusted hop saw.
3. The headers of an earlier filter, on routes that say that it stands there.
4. Nothing at all: `anonymous`, where it is configured.

A key or token that is not accepted ends it: nobody gets in by another way after that. Several credentials must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Protocol

from extauthz.config.snapshot import Snapshot
from extauthz.domain import denials
from extauthz.domain.claimed import Claimed, by_rules, with_team
from extauthz.domain.credentials import (
    AmbiguousCredential,
    Credential,
    UnusableCredential,
    credential_of,
    has_key_elsewhere,
    trusted_of,
)
from extauthz.domain.end_users import UnclearEndUser, end_user_of
from extauthz.domain.identity import Principal
from extauthz.domain.peers import certificate_of
from extauthz.domain.request import RequestFacts
from extauthz.domain.tokens import TokenFault
from extauthz.domain.verdict import Deny
from extauthz.envoy.names import TRUSTED_HEADERS_EXTENSION
from extauthz.tokens.keys import KeySet
from extauthz.tokens.verifier import Rejected, TokenVerifier

# LiteLLM's header by which a request chooses among the teams that its token names.
TEAM_HEADER = "x-litellm-team-id"

_NO_KEY = "No API key was sent: put it into `authorization: Bearer <key>`."
_UNKNOWN_KEY = "This API key is not known here."
_DISAGREEING = "Prove who you are in one way: the credentials of this request name different payers."
_TEAMS = f"Name one team in `{TEAM_HEADER}`."


class KeyRing(Protocol):
    """The keys of issuers that publish them on a server of theirs."""

    def keys_of(self, issuer: str) -> KeySet | None:
        """Give the keys of an issuer, None while there are none."""

    async def renewed(self, issuer: str, patience_s: float) -> None:
        """Wait, for so long at most, until the keys of an issuer were fetched once more, if it is time for that."""


class Authenticator:
    """Finds out who pays. Without a verifier and a key ring, tokens are no credentials."""

    def __init__(self, verifier: TokenVerifier | None = None, ring: KeyRing | None = None) -> None:
        self._verifier = verifier
        self._ring = ring

    async def identify(
        self,
        facts: RequestFacts,
        config: Snapshot,
        credential: Credential | Claimed | None = None,
        *,
        patience_s: float,
        nobody: bool = True,
    ) -> Principal | Deny:
        """Find the principal of a request, the end user that its credential or headers name included.

        `credential` stands in for one that the headers may have, or for all that they and a certificate say. With
        `nobody`, a request without any may be anonymous.
        """
        principal = await self._principal(facts, config, credential, patience_s=patience_s, nobody=nobody)
        if isinstance(principal, Deny) or principal.has_end_user:
            return principal
        match end_user_of(facts.headers, config.settings.user_headers):
            case UnclearEndUser(message):
                return denials.bad_request(message)
            case None:
                return principal
            case end_user:
                return config.directory.with_end_user(principal, end_user)

    async def _principal(
        self,
        facts: RequestFacts,
        config: Snapshot,
        credential: Credential | Claimed | None,
        *,
        patience_s: float,
        nobody: bool,
    ) -> Principal | Deny:
        match credential or credential_of(facts.headers):
            case AmbiguousCredential(message):
                return denials.bad_request(message)
            case UnusableCredential():
                return denials.unauthenticated(_NO_KEY)
            case None:
                sent = None
            case Claimed() as claimed:
                return _listed(claimed, config)
            case Credential() as brought:
                sent = await self._sent(brought, facts, config, patience_s)
        if isinstance(sent, Deny):
            return sent
        proofs = (sent, _by_certificate(facts, config), _by_trusted_headers(facts, config))
        refused = next((proof for proof in proofs if isinstance(proof, Deny)), None)
        if refused is not None:
            return refused
        found = [proof for proof in proofs if isinstance(proof, Principal)]
        if not found:
            return _nobody(facts, config) if nobody else denials.unauthenticated(_NO_KEY)
        return _agreed(found)

    async def _sent(
        self, credential: Credential, facts: RequestFacts, config: Snapshot, patience_s: float
    ) -> Principal | Deny:
        """Find whose key a request brought, or whom its token names."""
        principal = config.directory.find(credential.key_sha256)
        if principal is not None:
            return principal
        if credential.token is None or self._verifier is None or not config.identities.issuers:
            return denials.unauthenticated(_UNKNOWN_KEY)
        match await self._verified(self._verifier, credential, config, patience_s):
            case Rejected(TokenFault.KEYS_AWAY):
                return denials.keys_unavailable()
            case Rejected(fault):
                return denials.token_refused(fault)
            case Claimed() as claimed:
                return _with_team(claimed, facts, config)

    async def _verified(
        self, verifier: TokenVerifier, credential: Credential, config: Snapshot, patience_s: float
    ) -> Claimed | Rejected:
        """Verify a token, once more with fresh keys where the issuer may have others by now."""

        def keys_of(issuer: str) -> KeySet | None:
            return config.key_sets.get(issuer) or (self._ring.keys_of(issuer) if self._ring is not None else None)

        identities = config.identities
        found = verifier.verify(credential, identities.issuers, identities.token_bytes_max, keys_of)
        match found:
            case Rejected(TokenFault.KEYS_AWAY | TokenFault.KEY_UNKNOWN, str(issuer)) if self._ring is not None:
                await self._ring.renewed(issuer, patience_s)
                return verifier.verify(credential, identities.issuers, identities.token_bytes_max, keys_of)
            case _:
                return found


def _by_certificate(facts: RequestFacts, config: Snapshot) -> Principal | Deny | None:
    """Find whom a client certificate names. One that names nobody who is listed is no credential."""
    peers = config.identities.peers
    if peers is None:
        return None
    match certificate_of(facts.peer, facts.headers, peers):
        case AmbiguousCredential(message):
            return denials.bad_request(message)
        case None:
            return None
        case name:
            claimed = by_rules(name, peers.rules, unlisted=peers.unlisted)
            return None if claimed is None else config.directory.claimed(claimed)


def _by_trusted_headers(facts: RequestFacts, config: Snapshot) -> Principal | Deny | None:
    """Find whom an earlier filter names, where the route says that there is one."""
    trusted = config.identities.trusted
    if trusted is None or facts.context.get(TRUSTED_HEADERS_EXTENSION) != "on":
        return None
    match trusted_of(facts.headers, trusted):
        case AmbiguousCredential(message):
            return denials.bad_request(message)
        case None:
            return None
        case claimed:
            return _listed(claimed, config)


def _with_team(claimed: Claimed, facts: RequestFacts, config: Snapshot) -> Principal | Deny:
    """Find whom a token names, with the team that the request chooses among those of the token."""
    match sorted({value.strip() for value in facts.headers.get(TEAM_HEADER, ())} - {""}):
        case []:
            chosen = None
        case [team] if "," not in team:
            chosen = team
        case _:
            return denials.bad_request(_TEAMS)
    settled = with_team(claimed, chosen, config.directory.accounts.teams)
    return denials.team_refused() if settled is None else _listed(settled, config)


def _listed(claimed: Claimed, config: Snapshot) -> Principal | Deny:
    """Find a principal by its ids, and its end user where the credential names one."""
    principal = config.directory.claimed(claimed)
    if principal is None:
        return denials.payer_unknown()
    return principal if claimed.end_user is None else config.directory.with_end_user(principal, claimed.end_user)


def _agreed(principals: Sequence[Principal]) -> Principal | Deny:
    """Give the one principal whom several credentials name: the first that includes all others."""
    agreed = next((one for one in principals if all(one.includes(other) for other in principals)), None)
    if agreed is None:
        return denials.bad_request(_DISAGREEING)
    return reduce(Principal.with_end_user_of, principals, agreed)


def _nobody(facts: RequestFacts, config: Snapshot) -> Principal | Deny:
    """Give whom a request without any credential is charged to."""
    principal = None if has_key_elsewhere(facts.path, facts.headers) else config.directory.anonymous()
    return denials.unauthenticated(_NO_KEY) if principal is None else principal
