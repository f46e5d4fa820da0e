"""Who pays for a request, top to bottom: its credentials → whom each names → one principal, and its end user.

1. A key, in any of the headers that carry one, by its SHA-256. What is no known key may be a token of an issuer.
2. The client certificate of the peer, or the one that a trusted hop saw.
3. The headers of an earlier filter, on routes that say that it stands there.
4. Nothing at all: `anonymous`, where it is configured.

A key or token that is not accepted ends it: nobody gets in by another way after that. Several credentials must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Protocol

from extauthz.config.snapshot import Snapshot
from extauthz.directories.lookup import Lookup
from extauthz.domain import denials
from extauthz.domain.ask import Ask
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.claimed import Claimed, by_rules
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
from extauthz.domain.tags import TAGS_MAX, TOO_MANY, tags_of
from extauthz.domain.tokens import TokenFault
from extauthz.domain.value import value
from extauthz.domain.verdict import Deny
from extauthz.envoy.names import TRUSTED_HEADERS_EXTENSION
from extauthz.errors import DirectoryUnavailableError
from extauthz.tokens.keys import KeySet
from extauthz.tokens.verifier import Rejected, TokenVerifier

# LiteLLM's header by which a request chooses among the teams that its token names.
TEAM_HEADER = "x-litellm-team-id"

# From a key to its project, its team, its organization: no record leads further. More steps are needed only where what
# is remembered has no room for all of them.
STEPS_MAX = 8

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


@value
class _Question:
    """Who pays for one request, by one configuration. Nobody waits for it after `until_s`, by the lookup's clock."""

    facts: RequestFacts
    config: Snapshot
    patience_s: float
    until_s: float


class Authenticator:
    """Finds out who pays.

    Without a verifier and a key ring, tokens are no credentials. Without a lookup, only files say who is known.
    """

    def __init__(
        self,
        verifier: TokenVerifier | None = None,
        ring: KeyRing | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._verifier = verifier
        self._ring = ring
        self._lookup = lookup

    async def identify(
        self,
        facts: RequestFacts,
        config: Snapshot,
        credential: Credential | Claimed | None = None,
        *,
        now_ms: int,
        patience_s: float,
        nobody: bool = True,
    ) -> Principal | Deny:
        """Find the principal of a request, with the end user and the tags that its credential or headers name.

        `credential` stands in for one that the headers may have, or for all that they and a certificate say. With
        `nobody`, a request without any may be anonymous. `now_ms` is the store's time.
        """
        question = _Question(facts, config, patience_s, self._until(patience_s))
        try:
            principal = await self._principal(question, credential, nobody=nobody)
            if isinstance(principal, Deny):
                return principal
            match None if principal.has_end_user else end_user_of(facts.headers, config.settings.user_headers):
                case UnclearEndUser(message):
                    return denials.bad_request(message)
                case end_user:
                    named = await self._with(principal, end_user, tags_of(facts.headers), question)
        except DirectoryUnavailableError:
            return denials.directory_unavailable()
        return named if isinstance(named, Deny) else _admitted(named, now_ms)

    async def complete(
        self, principal: Principal, ask: Ask, facts: RequestFacts, config: Snapshot, *, now_ms: int, patience_s: float
    ) -> Principal | Deny:
        """Add whom a body names: an end user, unless there is one by now, and tags."""
        end_user = None if principal.has_end_user else ask.end_user
        if end_user is None and not ask.tags:
            return principal
        question = _Question(facts, config, patience_s, self._until(patience_s))
        try:
            named = await self._with(principal, end_user, ask.tags, question)
        except DirectoryUnavailableError:
            return denials.directory_unavailable()
        return named if isinstance(named, Deny) else _admitted(named, now_ms)

    async def _principal(
        self, question: _Question, credential: Credential | Claimed | None, *, nobody: bool
    ) -> Principal | Deny:
        facts, config = question.facts, question.config
        match credential or credential_of(facts.headers):
            case AmbiguousCredential(message):
                return denials.bad_request(message)
            case UnusableCredential():
                return denials.unauthenticated(_NO_KEY)
            case None:
                sent = None
            case Claimed() as claimed:
                return await self._listed(claimed, question)
            case Credential() as brought:
                sent = await self._sent(brought, question)
        if isinstance(sent, Deny):
            return sent
        proofs = (sent, await self._by_certificate(question), await self._by_trusted_headers(question))
        refused = next((proof for proof in proofs if isinstance(proof, Deny)), None)
        if refused is not None:
            return refused
        found = [proof for proof in proofs if isinstance(proof, Principal)]
        if not found:
            return _nobody(facts, config) if nobody else denials.unauthenticated(_NO_KEY)
        return found[0] if len(found) == 1 else _agreed(found)

    async def _sent(self, credential: Credential, question: _Question) -> Principal | Deny:
        """Find whose key a request brought, or whom its token names. Only files have keys that look like tokens."""
        config = question.config
        verifier = self._verifier if config.identities.issuers and credential.token is not None else None
        asked = partial(config.directory.asked_of_key, credential.key_sha256)
        if verifier is None:
            await self._ask(asked, question)
        # Whom nobody asks for may be remembered from a time when tokens were keys, however long ago.
        principal = config.directory.find(credential.key_sha256) if verifier is None or not asked() else None
        if principal is not None:
            return principal
        if verifier is None:
            return denials.unauthenticated(_UNKNOWN_KEY)
        match await self._verified(verifier, credential, question):
            case Rejected(TokenFault.KEYS_AWAY):
                return denials.keys_unavailable()
            case Rejected(fault):
                return denials.token_refused(fault)
            case Claimed() as claimed:
                return await self._with_team(claimed, question)

    async def _verified(
        self, verifier: TokenVerifier, credential: Credential, question: _Question
    ) -> Claimed | Rejected:
        """Verify a token, once more with fresh keys where the issuer may have others by now."""
        config = question.config

        def keys_of(issuer: str) -> KeySet | None:
            return config.key_sets.get(issuer) or (self._ring.keys_of(issuer) if self._ring is not None else None)

        identities = config.identities
        found = verifier.verify(credential, identities.issuers, identities.token_bytes_max, keys_of)
        match found:
            case Rejected(TokenFault.KEYS_AWAY | TokenFault.KEY_UNKNOWN, str(issuer)) if self._ring is not None:
                await self._ring.renewed(issuer, question.patience_s)
                return verifier.verify(credential, identities.issuers, identities.token_bytes_max, keys_of)
            case _:
                return found

    async def _by_certificate(self, question: _Question) -> Principal | Deny | None:
        """Find whom a client certificate names. One that names nobody who is listed is no credential."""
        facts, directory = question.facts, question.config.directory
        peers = question.config.identities.peers
        if peers is None:
            return None
        match certificate_of(facts.peer, facts.headers, peers):
            case AmbiguousCredential(message):
                return denials.bad_request(message)
            case None:
                return None
            case name:
                claimed = by_rules(name, peers.rules, unlisted=peers.unlisted)
        if claimed is None:
            return None
        await self._ask(partial(directory.asked_of_claimed, claimed), question)
        return directory.claimed(claimed)

    async def _by_trusted_headers(self, question: _Question) -> Principal | Deny | None:
        """Find whom an earlier filter names, where the route says that there is one."""
        facts, trusted = question.facts, question.config.identities.trusted
        if trusted is None or facts.context.get(TRUSTED_HEADERS_EXTENSION) != "on":
            return None
        match trusted_of(facts.headers, trusted):
            case AmbiguousCredential(message):
                return denials.bad_request(message)
            case None:
                return None
            case claimed:
                return await self._listed(claimed, question)

    async def _with_team(self, claimed: Claimed, question: _Question) -> Principal | Deny:
        """Find whom a token names, with the team that the request chooses among those of the token."""
        directory = question.config.directory
        match sorted({value.strip() for value in question.facts.headers.get(TEAM_HEADER, ())} - {""}):
            case []:
                chosen = None
                await self._ask(partial(directory.asked_of_claimed, claimed), question)
            case [team] if "," not in team:
                chosen = team
            case _:
                return denials.bad_request(_TEAMS)
        settled = directory.with_team(claimed, chosen)
        return denials.team_refused() if settled is None else await self._listed(settled, question)

    async def _listed(self, claimed: Claimed, question: _Question) -> Principal | Deny:
        """Find a principal by its ids."""
        directory = question.config.directory
        await self._ask(partial(directory.asked_of_claimed, claimed), question)
        return directory.claimed(claimed) or denials.payer_unknown()

    async def _with(
        self, principal: Principal, end_user: str | None, tags: Sequence[str], question: _Question
    ) -> Principal | Deny:
        """Add whom a request names besides its credential."""
        directory = question.config.directory
        counted = tags if directory.has_tags else ()
        if len(counted) > TAGS_MAX:
            return denials.bad_request(TOO_MANY)
        named = (
            *(() if end_user is None else ((ScopeKind.END_USER, end_user),)),
            *((ScopeKind.TAG, tag) for tag in counted),
        )
        scopes = [Scope(kind, (name,)) for kind, name in named]
        if scopes:
            await self._ask(partial(directory.asked, scopes), question)
        return reduce(directory.with_payer, scopes, principal)

    async def _ask(self, asked: Callable[[], Sequence[Scope]], question: _Question) -> None:
        """Have the directory asked for all whom an answer needs, and for those to whom these lead.

        Raises DirectoryUnavailableError.
        """
        if self._lookup is None:
            return
        for _ in range(STEPS_MAX):
            if not await self._lookup.load(asked(), question.until_s):
                return
        raise DirectoryUnavailableError

    def _until(self, patience_s: float) -> float:
        return 0.0 if self._lookup is None else self._lookup.until(patience_s)


def _admitted(principal: Principal, now_ms: int) -> Principal | Deny:
    """Refuse a principal whose time is over, or of whom somebody is blocked."""
    if principal.blocked is not None:
        return denials.blocked(principal.blocked)
    if principal.expires_ms is not None and now_ms >= principal.expires_ms:
        return denials.key_expired(principal.expires_ms, now_ms)
    return principal


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
