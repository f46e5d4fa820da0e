"""Who is known, and which budgets bind whom.

`Accounts` is what the operator wrote. `Directory` answers the two questions of a request: whose key is this, and what
does an end user add to it. A principal has every scope that its spend is counted on, limited or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from extauthz.domain.budgets import Budget, Scope, ScopeBudgets, ScopeKind
from extauthz.domain.identity import Principal

Budgets = tuple[Budget, ...]

# A key without an alias is named by the beginning of its hash: enough to find it, nothing that opens a door.
KEY_NAME_LENGTH = 8

ADMIN_NAME = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """A person; `organization` counts for keys that have neither a team in one nor one of their own."""

    budgets: Budgets = ()
    organization: str | None = None


@dataclass(frozen=True, slots=True)
class Team:
    """A team; `members` have budgets inside it, `models` are what its keys may use (empty: everything)."""

    budgets: Budgets = ()
    organization: str | None = None
    members: Mapping[str, Budgets] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, known only by its SHA-256 in hex; `alias` is its name for people."""

    sha256: str
    alias: str | None = None
    budgets: Budgets = ()
    organization: str | None = None
    team: str | None = None
    user: str | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accounts:
    """All payers with their budgets. Every team, user and organization that is named is there.

    `default_end_user` are the budgets of end users that `end_users` does not list. `admin_sha256` is the hash of the
    key that no budget binds. A user's own budget binds on the keys of teams only with `user_budgets_bind_in_teams`,
    which is LiteLLM's rule.
    """

    global_budgets: Budgets = ()
    organizations: Mapping[str, Budgets] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    end_users: Mapping[str, Budgets] = field(default_factory=dict)
    default_end_user: Budgets = ()
    admin_sha256: str | None = None
    user_budgets_bind_in_teams: bool = False


class Directory:
    """Finds principals. Raises ValueError when an id is too long for a scope."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._principals = {key.sha256: _principal(key, accounts) for key in accounts.keys}
        if accounts.admin_sha256 is not None:
            self._principals[accounts.admin_sha256] = _admin()

    def find(self, key_sha256: str) -> Principal | None:
        """Find who a key belongs to, by its SHA-256 in lower-case hex; None when nobody knows it."""
        return self._principals.get(key_sha256)

    def with_end_user(self, principal: Principal, end_user_id: str) -> Principal:
        """Add the scope of an end user, with its own budgets or the default ones; none of them binds an admin.

        Raises ValueError when the id is too long for a scope.
        """
        budgets = self._accounts.end_users.get(end_user_id, self._accounts.default_end_user)
        scope = Scope(ScopeKind.END_USER, (end_user_id,))
        scope_budgets = ScopeBudgets(scope, () if principal.admin else budgets)
        return replace(principal, scopes=(*principal.scopes, scope_budgets))


def _admin() -> Principal:
    return Principal(name=ADMIN_NAME, scopes=(ScopeBudgets(Scope(ScopeKind.GLOBAL)),), admin=True)


def _principal(key: Key, accounts: Accounts) -> Principal:
    team = accounts.teams[key.team] if key.team is not None else None
    return Principal(
        name=key.alias or f"key {key.sha256[:KEY_NAME_LENGTH]}",
        scopes=_scopes(key, team, accounts),
        models=tuple(models for models in (key.models, team.models if team else ()) if models),
    )


def _scopes(key: Key, team: Team | None, accounts: Accounts) -> tuple[ScopeBudgets, ...]:
    """List all that a key's spend is counted on, from the widest to the narrowest."""
    scopes = [ScopeBudgets(Scope(ScopeKind.GLOBAL), accounts.global_budgets)]
    user = accounts.users[key.user] if key.user is not None else None
    organization = (team and team.organization) or key.organization or (user and user.organization)
    if organization:
        scopes.append(
            ScopeBudgets(Scope(ScopeKind.ORGANIZATION, (organization,)), accounts.organizations[organization])
        )
    if key.team is not None and team is not None:
        scopes.append(ScopeBudgets(Scope(ScopeKind.TEAM, (key.team,)), team.budgets))
        if key.user is not None:
            member = Scope(ScopeKind.MEMBER, (key.team, key.user))
            scopes.append(ScopeBudgets(member, team.members.get(key.user, ())))
    if key.user is not None and user is not None:
        binds = team is None or accounts.user_budgets_bind_in_teams
        scopes.append(ScopeBudgets(Scope(ScopeKind.USER, (key.user,)), user.budgets if binds else ()))
    scopes.append(ScopeBudgets(Scope(ScopeKind.KEY, (key.sha256,)), key.budgets))
    return tuple(scopes)
