"""Who pays: the principal that a request belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from extauthz.domain.budgets import Scope, ScopeBudgets, ScopeKind
from extauthz.domain.credentials import TrustedHeaders
from extauthz.domain.peers import Peers
from extauthz.domain.tokens import TOKEN_BYTES_MAX, Issuer


@dataclass(frozen=True, slots=True)
class Principal:
    """Who pays for a request.

    `scopes` are all that its spend is counted on, each with the budgets that bind. `models` are the lists of allowed
    model names (key's, team's); a model must be on each of them, and no list allows everything. In `shadow_mode`
    nothing is refused to it.

    It is refused from `expires_ms` on (Unix milliseconds, store time), and while somebody who pays is `blocked`.
    """

    name: str
    scopes: tuple[ScopeBudgets, ...]
    models: tuple[tuple[str, ...], ...] = ()
    admin: bool = False
    shadow_mode: bool = False
    blocked: Scope | None = None
    expires_ms: int | None = None

    @property
    def payers(self) -> tuple[Scope, ...]:
        """The scopes alone."""
        return tuple(scope.scope for scope in self.scopes)

    @property
    def has_end_user(self) -> bool:
        """Whether it is known by now for which end user the request is."""
        return any(scope.scope.kind is ScopeKind.END_USER for scope in self.scopes)

    def unlimited(self) -> Principal:
        """Give the same with no budget that binds: its spend is counted, whatever it is."""
        return replace(self, scopes=tuple(replace(scope, binds=False) for scope in self.scopes))

    def includes(self, other: Principal) -> bool:
        """Tell whether everybody whom another principal charges pays here as well, so that the two do not disagree."""
        return {*_without_end_user(other)} <= {*_without_end_user(self)}

    def with_end_user_of(self, other: Principal) -> Principal:
        """Add the end user of another principal, unless there is one."""
        if self.has_end_user:
            return self
        added = (scope for scope in other.scopes if scope.scope.kind is ScopeKind.END_USER)
        return replace(self, scopes=(*self.scopes, *added))


def _without_end_user(principal: Principal) -> Iterator[Scope]:
    return (scope for scope in principal.payers if scope.kind is not ScopeKind.END_USER)


@dataclass(frozen=True, slots=True)
class Identities:
    """What is believed of a request besides keys: nothing, unless the operator says so.

    `issuers` of tokens are known by their names, `peers` by their certificates, `trusted` are the headers of an
    earlier filter.
    """

    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    peers: Peers | None = None
    trusted: TrustedHeaders | None = None

    @property
    def token_bytes_max(self) -> int:
        """The most that any issuer's token may have; nothing of a larger one is read."""
        return min(TOKEN_BYTES_MAX, max((issuer.token_bytes_max for issuer in self.issuers.values()), default=0))
