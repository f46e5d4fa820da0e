"""All payers by their scopes: those that the operator wrote down, before those that are known elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from itertools import chain
from typing import Protocol

from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.payers import Accounts, Key, Payer, Record

NO_PAYER = Payer()


class Others(Protocol):
    """Who is known elsewhere than in files, as far as it is known here by now."""

    def record(self, scope: Scope) -> Record | None:
        """Give a payer, the same object for as long as nothing about it changes; None for one who is not known."""

    def successor(self, key_sha256: str) -> Key | None:
        """Give a key that took the place of another one, as far as it is known here by now."""

    def called(self, alias: str) -> Iterator[Key]:
        """List the keys with an alias that are known here by now."""

    def limited(self) -> Iterator[tuple[Scope, Record] | None]:
        """List those with budgets that are known here by now, and None for each of the others: they may be many."""


class Roster:
    """Finds payers. What it says about those that only the `others` know is as good as what these have of them."""

    def __init__(self, accounts: Accounts, others: Others | None = None) -> None:
        self.accounts = accounts
        self.others = others
        self._keys = {key.sha256: key for key in accounts.keys}
        self._successors = {key.counts_as: key for key in accounts.keys if key.counts_as is not None}
        self._named: Mapping[ScopeKind, Mapping[str, Record]] = {
            ScopeKind.ORGANIZATION: accounts.organizations,
            ScopeKind.TEAM: accounts.teams,
            ScopeKind.USER: accounts.users,
            ScopeKind.PROJECT: accounts.projects,
            ScopeKind.KEY: self._keys,
            ScopeKind.TAG: accounts.tags,
            ScopeKind.END_USER: accounts.end_users,
        }
        self._global = Payer(accounts.global_budgets)
        anonymous = accounts.anonymous
        self._anonymous = NO_PAYER if anonymous is None else Payer(anonymous.budgets, models=anonymous.models)

    def beside(self, others: Others | None) -> Roster:
        """Give the same files beside others."""
        roster = copy(self)
        roster.others = others
        return roster

    def record(self, scope: Scope) -> Record | None:
        """Find a payer: in files, else elsewhere, else what all have who are not listed."""
        return self.listed(scope) or self.elsewhere(scope) or self.default(scope)

    def listed(self, scope: Scope) -> Record | None:
        """Find a payer in files. The members of a team that stands there are those that stand with it."""
        match scope.kind, scope.ids:
            case ScopeKind.GLOBAL, _:
                return self._global
            case ScopeKind.ANONYMOUS, _:
                return self._anonymous
            case ScopeKind.MEMBER, (team_id, user):
                team = self.accounts.teams.get(team_id)
                return None if team is None else team.members.get(user, NO_PAYER)
            case kind, (name,):
                return self._named[kind].get(name)
            case _:
                return None

    def counting_on(self, scope: Scope) -> Record | None:
        """Find whose budgets are on a scope: a key that took the place of another has that one's scope."""
        record = self.record(scope)
        if record is not None or scope.kind is not ScopeKind.KEY:
            return record
        (key_sha256,) = scope.ids
        elsewhere = None if self.others is None else self.others.successor(key_sha256)
        return self._successors.get(key_sha256) or elsewhere

    def stands_in_files(self, scope: Scope) -> bool:
        """Tell whether a payer stands in files, or a key that took its place."""
        succeeded = scope.kind is ScopeKind.KEY and scope.ids[0] in self._successors
        return succeeded or self.listed(scope) is not None

    def elsewhere(self, scope: Scope) -> Record | None:
        """Find a payer with the others."""
        return None if self.others is None else self.others.record(scope)

    def default(self, scope: Scope) -> Record | None:
        """Give what all of a kind have who are not listed, None where there is nothing like it."""
        accounts = self.accounts
        match scope.kind:
            case ScopeKind.END_USER:
                return accounts.default_end_user
            case ScopeKind.USER:
                return accounts.default_user
            case ScopeKind.TEAM:
                return accounts.default_team
            case ScopeKind.ORGANIZATION:
                return accounts.default_organization
            case _:
                return None

    def asked(self, scopes: Iterable[Scope]) -> tuple[Scope, ...]:
        """Name those of some payers of whom the others have to be asked."""
        return () if self.others is None else tuple(scope for scope in scopes if self.listed(scope) is None)

    def called(self, alias: str) -> Iterator[Key]:
        """List all keys with an alias that are known here by now."""
        elsewhere = () if self.others is None else self.others.called(alias)
        return chain((key for key in self.accounts.keys if key.alias == alias), elsewhere)

    def budgeted(self) -> Iterator[Scope]:
        """List the scopes of files that have budgets, one after the other; end users only where they are named."""
        widest, narrowest = (ScopeKind.ORGANIZATION, ScopeKind.TEAM), (ScopeKind.USER, ScopeKind.PROJECT, ScopeKind.KEY)
        teams = self.accounts.teams.items()
        known = chain(
            (Scope(ScopeKind.GLOBAL),),
            (Scope(kind, (name,)) for kind in widest for name in self._named[kind]),
            (Scope(ScopeKind.MEMBER, (name, user)) for name, team in teams for user in team.members),
            (Scope(kind, (name,)) for kind in narrowest for name in self._named[kind]),
            (Scope(kind, (name,)) for kind in (ScopeKind.TAG, ScopeKind.END_USER) for name in self._named[kind]),
            (Scope(ScopeKind.ANONYMOUS),),
        )
        for scope in known:
            record = self.listed(scope)
            if record is not None and record.budgets:
                yield counted_on(scope, record)

    def budgeted_elsewhere(self) -> Iterator[Scope | None]:
        """List the scopes with budgets that the others are known to have by now, and files do not, and None between."""
        if self.others is not None:
            for found in self.others.limited():
                budgeted = found is not None and found[1].budgets and self.listed(found[0]) is None
                yield counted_on(*found) if found is not None and budgeted else None

    def expanded(self, models: tuple[str, ...]) -> tuple[str, ...]:
        """Give a list of models with those of the access groups that it names."""
        groups = self.accounts.access_groups
        more = [model for name in models if name in groups for model in groups[name]]
        return tuple(dict.fromkeys((*models, *more))) if more else models


def counted_on(scope: Scope, record: Record) -> Scope:
    """Give the scope that a payer is counted on: a key that took the place of another has that one's."""
    return Scope(ScopeKind.KEY, (record.counted_as,)) if isinstance(record, Key) else scope
