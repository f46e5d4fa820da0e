"""Principals out of records, against the rules written down once more in the plainest way, and files against others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.domain.budgets import Budget, Scope, ScopeBudgets, ScopeKind
from extauthz.domain.directory import Directory
from extauthz.domain.payers import Accounts, Key, Payer, Project, Record, Team, User
from extauthz.domain.windows import WindowRule

IDS = ("a", "b", "c")
KEYS = tuple(digit * 64 for digit in "0123456")

some_id = st.none() | st.sampled_from(IDS)
budgets = st.lists(st.integers(0, 9).map(lambda limit: Budget(limit, WindowRule())), max_size=2).map(tuple)
models = st.lists(st.sampled_from(["gpt", "llama", "claude-*"]), max_size=2, unique=True).map(tuple)
flags = st.booleans()
tags = st.lists(st.sampled_from(IDS), max_size=2, unique=True).map(tuple)
payers = st.builds(Payer, budgets, models=models, blocked=flags)
teams = st.builds(
    Team,
    budgets,
    some_id,
    st.dictionaries(st.sampled_from(IDS), st.builds(Payer, budgets, models=models), max_size=3),
    shadow_mode=flags,
    tags=tags,
    models=models,
    blocked=flags,
)
users = st.builds(User, budgets, some_id, models=models)
projects = st.builds(Project, budgets, some_id, models=models, blocked=flags)


def everybody(kind: st.SearchStrategy[Payer]) -> st.SearchStrategy[dict[str, Payer]]:
    """Make a payer of a kind for each id: whoever is named is there."""
    return st.fixed_dictionaries(dict.fromkeys(IDS, kind))


def keys() -> st.SearchStrategy[tuple[Key, ...]]:
    """Make keys of all sorts."""
    key = st.builds(
        Key,
        sha256=st.just(""),
        budgets=budgets,
        organization=some_id,
        team=some_id,
        user=some_id,
        models=models,
        project=some_id,
        blocked=flags,
        tags=tags,
    )
    return st.lists(key, max_size=len(KEYS)).map(
        lambda found: tuple(replace(one, sha256=sha256) for one, sha256 in zip(found, KEYS, strict=False))
    )


accounts_of_all_sorts = st.builds(
    Accounts,
    global_budgets=budgets,
    organizations=everybody(payers),
    teams=everybody(teams),
    users=everybody(users),
    projects=everybody(projects),
    keys=keys(),
    tags=st.dictionaries(st.sampled_from(IDS), st.builds(Payer, budgets), max_size=3),
    user_budgets_bind_in_teams=flags,
)


def expected(key: Key, accounts: Accounts) -> Iterator[ScopeBudgets]:
    """Compute the scopes of a key as LiteLLM's rules say it, one after the other."""
    project = None if key.project is None else accounts.projects[key.project]
    team_id = key.team or (None if project is None else project.team)
    team = None if team_id is None else accounts.teams[team_id]
    user = None if key.user is None else accounts.users[key.user]
    organization = (
        key.organization
        or (team.organization if team is not None else None)
        or (user.organization if user is not None else None)
    )
    yield ScopeBudgets(Scope(ScopeKind.GLOBAL), accounts.global_budgets)
    if organization is not None:
        scope = Scope(ScopeKind.ORGANIZATION, (organization,))
        yield ScopeBudgets(scope, accounts.organizations[organization].budgets)
    if team is not None and team_id is not None:
        yield ScopeBudgets(Scope(ScopeKind.TEAM, (team_id,)), team.budgets)
    if team is not None and team_id is not None and key.user is not None:
        member = team.members.get(key.user, Payer())
        yield ScopeBudgets(Scope(ScopeKind.MEMBER, (team_id, key.user)), member.budgets)
    if user is not None and key.user is not None:
        binds = team is None or accounts.user_budgets_bind_in_teams
        yield ScopeBudgets(Scope(ScopeKind.USER, (key.user,)), user.budgets, binds)
    if project is not None and key.project is not None:
        yield ScopeBudgets(Scope(ScopeKind.PROJECT, (key.project,)), project.budgets)
    yield ScopeBudgets(Scope(ScopeKind.KEY, (key.sha256,)), key.budgets)
    for tag in dict.fromkeys((*key.tags, *(team.tags if team is not None else ()))):
        if tag in accounts.tags:
            yield ScopeBudgets(Scope(ScopeKind.TAG, (tag,)), accounts.tags[tag].budgets)


class Elsewhere:
    """All payers of some accounts, as another directory knows them."""

    def __init__(self, accounts: Accounts) -> None:
        named = (
            (ScopeKind.ORGANIZATION, accounts.organizations),
            (ScopeKind.TEAM, accounts.teams),
            (ScopeKind.USER, accounts.users),
            (ScopeKind.PROJECT, accounts.projects),
            (ScopeKind.TAG, accounts.tags),
        )
        self.records: dict[Scope, Record] = {Scope(ScopeKind.KEY, (key.sha256,)): key for key in accounts.keys}
        for kind, of_kind in named:
            self.records |= {Scope(kind, (name,)): record for name, record in of_kind.items()}
        for name, team in accounts.teams.items():
            self.records |= {Scope(ScopeKind.MEMBER, (name, user)): one for user, one in team.members.items()}

    def record(self, scope: Scope) -> Record | None:
        """Give a payer."""
        return self.records.get(scope)

    def successor(self, _: str) -> Key | None:
        """Give no key: none takes another's place."""
        return None

    def called(self, alias: str) -> Iterator[Key]:
        """List keys with an alias."""
        keys = (record for record in self.records.values() if isinstance(record, Key))
        return (key for key in keys if key.alias == alias)

    def limited(self) -> Iterator[tuple[Scope, Record] | None]:
        """List everybody with budgets."""
        return ((scope, record) if record.budgets else None for scope, record in self.records.items())


@settings(max_examples=200)
@given(accounts_of_all_sorts)
def test_principals(accounts: Accounts) -> None:
    """Scopes, their budgets, and what of them binds are as the rules say, in their order."""
    directory = Directory(accounts)
    for key in accounts.keys:
        found = directory.find(key.sha256)

        assert found is not None
        assert found.scopes == tuple(expected(key, accounts))


@settings(max_examples=200)
@given(accounts_of_all_sorts)
def test_files_and_others(accounts: Accounts) -> None:
    """Whether payers stand in files or are known elsewhere makes no difference to anybody."""
    in_files = Directory(accounts)
    no_payers = Accounts(
        global_budgets=accounts.global_budgets, user_budgets_bind_in_teams=accounts.user_budgets_bind_in_teams
    )
    elsewhere = Directory(no_payers).beside(Elsewhere(accounts))

    assert [in_files.find(sha256) for sha256 in KEYS] == [elsewhere.find(sha256) for sha256 in KEYS]
    known = {scope for scope in in_files.budgeted() if scope.kind is not ScopeKind.GLOBAL}
    assert known == set(elsewhere.budgeted_elsewhere()) - {None}
