"""Who is known, and which budgets bind whom.

`Accounts` is what the operator wrote. `Directory` answers the two questions of a request: whose key is this, and what
does an end user add to it. A principal has every scope that its spend is counted on, limited or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from urllib.parse import quote

from extauthz.domain.budgets import Budget, Scope, ScopeBudgets, ScopeKind
from extauthz.domain.claimed import Claimed
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
    """A team; `members` have budgets inside it, `models` are what its keys may use (empty: everything).

    In `shadow_mode` nothing is refused to its keys.
    """

    budgets: Budgets = ()
    organization: str | None = None
    members: Mapping[str, Budgets] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    shadow_mode: bool = False


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
class Anonymous:
    """Everybody who sends no credential, together; `models` are what they may use (empty: everything)."""

    budgets: Budgets = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accounts:
    """All payers with their budgets. Every team, user and organization that is named is there.

    `default_end_user` are the budgets of end users that `end_users` does not list. `admin_sha256` is the hash of the
    key that no budget binds. A user's own budget binds on the keys of teams only with `user_budgets_bind_in_teams`,
    which is LiteLLM's rule.

    `default_user`, `default_team` and `default_organization` are what holds for payers that a token or certificate
    names and that are not listed; None where there are to be none. `anonymous` are the budgets of requests without any
    credential, None where these are refused.
    """

    global_budgets: Budgets = ()
    organizations: Mapping[str, Budgets] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    end_users: Mapping[str, Budgets] = field(default_factory=dict)
    default_end_user: Budgets = ()
    default_user: User | None = None
    default_team: Team | None = None
    default_organization: Budgets | None = None
    anonymous: Anonymous | None = None
    admin_sha256: str | None = None
    user_budgets_bind_in_teams: bool = False


NO_TEAM = Team()
NO_USER = User()


class Directory:
    """Finds principals. Raises ValueError when an id is too long for a scope."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._key_budgets = {key.sha256: key.budgets for key in accounts.keys}
        self._key_aliases = {key.sha256: key.alias for key in accounts.keys}
        self._principals = {key.sha256: self._principal(key) for key in accounts.keys}
        if accounts.admin_sha256 is not None:
            self._principals[accounts.admin_sha256] = self._admin()

    def find(self, key_sha256: str) -> Principal | None:
        """Find who a key belongs to, by its SHA-256 in lower-case hex; None when nobody knows it."""
        return self._principals.get(key_sha256)

    def claimed(self, claimed: Claimed) -> Principal | None:
        """Find the principal that a credential names by ids, its team settled; None when one of them is not listed.

        No budget binds an admin, whose ids need not be listed.
        """
        payers = _Payers(claimed.organization, claimed.team, claimed.user)
        if payers == _NOBODY or not (claimed.admin or self._knows(payers, unlisted=claimed.unlisted)):
            return None
        team = self._team(claimed.team)
        named = {"user": claimed.user, "team": claimed.team, "organization": claimed.organization}
        principal = Principal(
            name=next(f"{kind} {name}" for kind, name in named.items() if name is not None),
            scopes=self._scopes_of(payers),
            models=(team.models,) if team.models else (),
            admin=claimed.admin,
            shadow_mode=team.shadow_mode,
        )
        return principal.unlimited() if claimed.admin else principal

    def anonymous(self) -> Principal | None:
        """Give the principal of requests without any credential; None where these are refused."""
        anonymous = self._accounts.anonymous
        if anonymous is None:
            return None
        scopes = (Scope(ScopeKind.GLOBAL), Scope(ScopeKind.ANONYMOUS))
        return Principal(
            name=str(ScopeKind.ANONYMOUS),
            scopes=tuple(ScopeBudgets(scope, self.budgets_on(scope)) for scope in scopes),
            models=(anonymous.models,) if anonymous.models else (),
        )

    def sha256_of(self, alias: str) -> str | None:
        """Find the SHA-256 of the key with an alias; None when no key has it, or several do."""
        found = {key.sha256 for key in self._accounts.keys if key.alias == alias}
        return found.pop() if len(found) == 1 else None

    def with_end_user(self, principal: Principal, end_user_id: str) -> Principal:
        """Add the scope of an end user, with its own budgets or the default ones; none of them binds an admin.

        Raises ValueError when the id is too long for a scope.
        """
        scope = Scope(ScopeKind.END_USER, (end_user_id,))
        added = ScopeBudgets(scope, self.budgets_on(scope), binds=not principal.admin)
        return replace(principal, scopes=(*principal.scopes, added))

    def budgets_on(self, scope: Scope) -> Budgets:
        """List the budgets of a scope, whether or not they bind; none for one that is not known."""
        accounts = self._accounts
        match scope.kind, scope.ids:
            case ScopeKind.GLOBAL, _:
                return accounts.global_budgets
            case ScopeKind.ORGANIZATION, (organization,):
                return accounts.organizations.get(organization, accounts.default_organization or ())
            case ScopeKind.TEAM, (team,):
                return self._team(team).budgets
            case ScopeKind.MEMBER, (team, user):
                return self._team(team).members.get(user, ())
            case ScopeKind.USER, (user,):
                return self._user(user).budgets
            case ScopeKind.KEY, (key_sha256,):
                return self._key_budgets.get(key_sha256, ())
            case ScopeKind.END_USER, (end_user,):
                return accounts.end_users.get(end_user, accounts.default_end_user)
            case ScopeKind.ANONYMOUS, _:
                return () if accounts.anonymous is None else accounts.anonymous.budgets
            case _:
                return ()

    @property
    def accounts(self) -> Accounts:
        """What the operator wrote."""
        return self._accounts

    def is_stranger(self, scope: Scope) -> bool:
        """Tell whether a scope has the budgets that all have who are not listed."""
        accounts = self._accounts
        match scope.kind:
            case ScopeKind.END_USER:
                return bool(accounts.default_end_user) and scope.ids[0] not in accounts.end_users
            case ScopeKind.USER:
                return accounts.default_user is not None and scope.ids[0] not in accounts.users
            case ScopeKind.TEAM:
                return accounts.default_team is not None and scope.ids[0] not in accounts.teams
            case ScopeKind.ORGANIZATION:
                return accounts.default_organization is not None and scope.ids[0] not in accounts.organizations
            case _:
                return False

    @property
    def takes_strangers(self) -> bool:
        """Whether there can be such scopes."""
        accounts = self._accounts
        unlisted = (accounts.default_user, accounts.default_team, accounts.default_organization)
        return bool(accounts.default_end_user) or any(payer is not None for payer in unlisted)

    def shown(self, scope: Scope) -> str:
        """Write a scope for people: a key by its alias, or by the beginning of its hash."""
        if scope.kind is not ScopeKind.KEY:
            return scope.text
        (key_sha256,) = scope.ids
        return f"{scope.kind}:{quote(self._key_aliases.get(key_sha256) or key_sha256[:KEY_NAME_LENGTH], safe='')}"

    def budgeted(self) -> Iterator[Scope]:
        """List the scopes that have budgets, one after the other; end users only where they are named."""
        accounts = self._accounts
        known = chain(
            (Scope(ScopeKind.GLOBAL),),
            (Scope(ScopeKind.ORGANIZATION, (organization,)) for organization in accounts.organizations),
            (Scope(ScopeKind.TEAM, (team,)) for team in accounts.teams),
            (Scope(ScopeKind.MEMBER, (name, user)) for name, team in accounts.teams.items() for user in team.members),
            (Scope(ScopeKind.USER, (user,)) for user in accounts.users),
            (Scope(ScopeKind.KEY, (key_sha256,)) for key_sha256 in self._key_budgets),
            (Scope(ScopeKind.END_USER, (end_user,)) for end_user in accounts.end_users),
            (Scope(ScopeKind.ANONYMOUS),),
        )
        return (scope for scope in known if self.budgets_on(scope))

    def _admin(self) -> Principal:
        scope = Scope(ScopeKind.GLOBAL)
        return Principal(ADMIN_NAME, (ScopeBudgets(scope, self.budgets_on(scope), binds=False),), admin=True)

    def _principal(self, key: Key) -> Principal:
        team = self._team(key.team)
        own = Scope(ScopeKind.KEY, (key.sha256,))
        return Principal(
            name=key.alias or f"key {key.sha256[:KEY_NAME_LENGTH]}",
            scopes=(
                *self._scopes_of(_Payers(key.organization, key.team, key.user)),
                ScopeBudgets(own, self.budgets_on(own)),
            ),
            models=tuple(models for models in (key.models, team.models) if models),
            shadow_mode=team.shadow_mode,
        )

    def _scopes_of(self, payers: _Payers) -> tuple[ScopeBudgets, ...]:
        """List all that the spend of payers is counted on, from the widest to the narrowest, and what binds there."""
        return tuple(
            ScopeBudgets(scope, self.budgets_on(scope), binds=self._binds(scope, payers))
            for scope in self._counted_on(payers)
        )

    def _counted_on(self, payers: _Payers) -> Iterator[Scope]:
        organization = (
            self._team(payers.team).organization or payers.organization or self._user(payers.user).organization
        )
        yield Scope(ScopeKind.GLOBAL)
        if organization is not None:
            yield Scope(ScopeKind.ORGANIZATION, (organization,))
        if payers.team is not None:
            yield Scope(ScopeKind.TEAM, (payers.team,))
        if payers.team is not None and payers.user is not None:
            yield Scope(ScopeKind.MEMBER, (payers.team, payers.user))
        if payers.user is not None:
            yield Scope(ScopeKind.USER, (payers.user,))

    def _binds(self, scope: Scope, payers: _Payers) -> bool:
        """Tell whether a budget binds; it counts in any case."""
        user_in_team = scope.kind is ScopeKind.USER and payers.team is not None
        return not user_in_team or self._accounts.user_budgets_bind_in_teams

    def _knows(self, payers: _Payers, *, unlisted: bool) -> bool:
        """Tell whether every payer is listed, or may be one that is not."""
        accounts = self._accounts
        return all(
            name is None or name in listed or (unlisted and default is not None)
            for name, listed, default in (
                (payers.organization, accounts.organizations, accounts.default_organization),
                (payers.team, accounts.teams, accounts.default_team),
                (payers.user, accounts.users, accounts.default_user),
            )
        )

    def _team(self, name: str | None) -> Team:
        """Give a team, the default one for others, none for nobody's."""
        return NO_TEAM if name is None else self._accounts.teams.get(name, self._accounts.default_team or NO_TEAM)

    def _user(self, name: str | None) -> User:
        return NO_USER if name is None else self._accounts.users.get(name, self._accounts.default_user or NO_USER)


@dataclass(frozen=True, slots=True)
class _Payers:
    """Who pays together, by id."""

    organization: str | None = None
    team: str | None = None
    user: str | None = None


_NOBODY = _Payers()
