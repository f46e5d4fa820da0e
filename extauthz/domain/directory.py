"""Who a request belongs to: whose key is this, whom does a token name, and what do an end user and tags add.

A principal has every scope that its spend is counted on, limited or not; which those are is said by the table in
bindings.py. Principals are put together when they are asked for, out of records of the roster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from urllib.parse import quote

from extauthz.domain.bindings import Proof
from extauthz.domain.budgets import Scope, ScopeBudgets, ScopeKind
from extauthz.domain.claimed import Claimed, with_team
from extauthz.domain.identity import Principal
from extauthz.domain.payers import Accounts, Budgets, Key
from extauthz.domain.roster import NO_PAYER, Others, Roster, counted_on
from extauthz.domain.search import NOBODY, Found, Search

# A key without an alias is named by the beginning of its hash: enough to find it, nothing that opens a door.
KEY_NAME_LENGTH = 8

ADMIN_NAME = "admin"

# Principals of keys that are kept, so that they are not put together for each request.
PRINCIPALS_MAX = 20_000

_WORD = {ScopeKind.USER: "user", ScopeKind.TEAM: "team", ScopeKind.ORGANIZATION: "organization"}


class Directory:
    """Finds principals. Raises ValueError when an id is too long for a scope.

    Where there are `others`, they have to be asked first for those whom `asked_of_key` and the like name; each answer
    may lead to more.
    """

    def __init__(self, known: Accounts | Roster, *, principals_max: int = PRINCIPALS_MAX) -> None:
        self._roster = known if isinstance(known, Roster) else Roster(known)
        self._principals_max = principals_max
        self._kept: dict[str, Found] = {}

    def beside(self, others: Others | None) -> Directory:
        """Give the same files beside what is known elsewhere."""
        return Directory(self._roster.beside(others), principals_max=self._principals_max)

    @property
    def accounts(self) -> Accounts:
        """What the operator wrote."""
        return self._roster.accounts

    @property
    def has_tags(self) -> bool:
        """Whether any tag may count."""
        return self._roster.others is not None or bool(self.accounts.tags)

    def find(self, key_sha256: str) -> Principal | None:
        """Find who a key belongs to, by its SHA-256 in lower-case hex; None when nobody knows it."""
        return self._of_key(key_sha256).principal

    def asked_of_key(self, key_sha256: str) -> Sequence[Scope]:
        """Name those of whom the others have to be asked to find a key."""
        return self._of_key(key_sha256).asked

    def claimed(self, claimed: Claimed) -> Principal | None:
        """Find the principal that a credential names by ids, its team settled; None when one of them is not listed.

        No budget binds an admin, whose ids need not be listed.
        """
        return self._of_claimed(claimed).principal

    def asked_of_claimed(self, claimed: Claimed) -> Sequence[Scope]:
        """Name those of whom the others have to be asked to find whom a credential names."""
        teams = (Scope(ScopeKind.TEAM, (team,)) for team in claimed.teams)
        return (*self._roster.asked(teams), *self._of_claimed(claimed).asked)

    def with_team(self, claimed: Claimed, chosen: str | None) -> Claimed | None:
        """Settle which of several teams pays: the one that the request chose, else the first that is known.

        Those in files come first, in their order. None when the request chose one that is not among them.
        """
        elsewhere = (team for team in claimed.teams if self._roster.elsewhere(Scope(ScopeKind.TEAM, (team,))))
        return with_team(claimed, chosen, chain(self.accounts.teams, elsewhere))

    def anonymous(self) -> Principal | None:
        """Give the principal of requests without any credential; None where these are refused."""
        if self.accounts.anonymous is None:
            return None
        return Search(self._roster, Proof.NONE).principal(str(ScopeKind.ANONYMOUS))

    def with_payer(self, principal: Principal, scope: Scope) -> Principal:
        """Add the scope of an end user or a tag that a request names, unless it is there; a tag only where it is known.

        An end user has its own budgets or the default ones. None of them binds an admin.
        """
        record = self._roster.record(scope)
        if scope in principal.payers or (record is None and scope.kind is ScopeKind.TAG):
            return principal
        record = record or NO_PAYER
        added = ScopeBudgets(scope, record.budgets, binds=not principal.admin)
        models = (self._roster.expanded(record.models),) if record.models and not principal.admin else ()
        return replace(
            principal,
            scopes=(*principal.scopes, added),
            models=(*principal.models, *models),
            blocked=principal.blocked or (scope if record.blocked else None),
        )

    def asked(self, scopes: Iterable[Scope]) -> Sequence[Scope]:
        """Name those of some payers of whom the others have to be asked."""
        return self._roster.asked(scopes)

    def budgets_on(self, scope: Scope) -> Budgets:
        """List the budgets of a scope, whether or not they bind; none for one that is not known."""
        record = self._roster.counting_on(scope)
        return () if record is None else record.budgets

    def counted_on(self, scope: Scope) -> Scope:
        """Give the scope that a payer is counted on: a key that took the place of another has that one's."""
        record = self._roster.record(scope)
        return scope if record is None else counted_on(scope, record)

    def is_stranger(self, scope: Scope) -> bool:
        """Tell whether a scope has the budgets that all have who are not listed."""
        return self._roster.default(scope) is not None and not self._knows(scope, unlisted=False)

    def is_listed(self, scope: Scope) -> bool:
        """Tell whether a payer stands in files, or one that took its place."""
        return self._roster.stands_in_files(scope)

    @property
    def takes_strangers(self) -> bool:
        """Whether there can be such scopes."""
        accounts = self.accounts
        unlisted = (
            accounts.default_end_user,
            accounts.default_user,
            accounts.default_team,
            accounts.default_organization,
        )
        return any(payer is not None for payer in unlisted)

    def sha256_of(self, alias: str) -> str | None:
        """Find the SHA-256 of the key with an alias; None when no key has it that is known by now, or several do."""
        named = [*self._roster.called(alias)]
        found = {key.sha256 for key in named} - {key.counts_as for key in named}
        return found.pop() if len(found) == 1 else None

    def shown(self, scope: Scope) -> str:
        """Write a scope for people: a key by its alias, or by the beginning of its hash."""
        if scope.kind is not ScopeKind.KEY:
            return scope.text
        key = self._roster.counting_on(scope)
        alias = key.alias if isinstance(key, Key) else None
        return f"{scope.kind}:{quote(alias or scope.ids[0][:KEY_NAME_LENGTH], safe='')}"

    def budgeted(self) -> Iterator[Scope]:
        """List the scopes of files that have budgets, one after the other; end users only where they are named."""
        return self._roster.budgeted()

    def budgeted_elsewhere(self) -> Iterator[Scope | None]:
        """List the scopes with budgets that only the others have, as far as they are known here by now.

        None stands for each of those others who have none, so that whoever goes through all of them can pause.
        """
        return self._roster.budgeted_elsewhere()

    def _of_key(self, key_sha256: str) -> Found:
        """Find a key. What was found is kept until one of those who were asked for has changed."""
        found = self._kept.get(key_sha256)
        if found is not None and all(self._roster.elsewhere(scope) is record for scope, record in found.answers):
            return found
        if key_sha256 == self.accounts.admin_sha256:
            return self._keep(key_sha256, Found(Search(self._roster, Proof.ADMIN).principal(ADMIN_NAME)))
        own = Scope(ScopeKind.KEY, (key_sha256,))
        asked = self._roster.asked((own,))
        key = self._roster.record(own)
        if not isinstance(key, Key):
            self._kept.pop(key_sha256, None)
            return Found(None, tuple((scope, None) for scope in asked)) if asked else NOBODY
        search = Search(self._roster, Proof.KEY, key)
        principal = search.principal(key.alias or f"key {key_sha256[:KEY_NAME_LENGTH]}")
        answers = (*((scope, key) for scope in asked), *search.answers)
        return self._keep(key_sha256, Found(replace(principal, expires_ms=key.expires_ms), answers))

    def _keep(self, key_sha256: str, found: Found) -> Found:
        self._kept.pop(key_sha256, None)
        while len(self._kept) >= self._principals_max:
            del self._kept[next(iter(self._kept))]
        self._kept[key_sha256] = found
        return found

    def _of_claimed(self, claimed: Claimed) -> Found:
        named = {
            ScopeKind.USER: claimed.user,
            ScopeKind.TEAM: claimed.team,
            ScopeKind.ORGANIZATION: claimed.organization,
        }
        scopes = [Scope(kind, (name,)) for kind, name in named.items() if name is not None]
        if not scopes:
            return NOBODY
        first, *_ = scopes
        search = Search(self._roster, Proof.CLAIM, claimed)
        principal = search.principal(f"{_WORD[first.kind]} {first.ids[0]}")
        if claimed.admin:
            return Found(replace(principal, admin=True).unlimited(), search.answers)
        known = all(self._knows(scope, unlisted=claimed.unlisted) for scope in scopes)
        return Found(principal if known else None, search.answers)

    def _knows(self, scope: Scope, *, unlisted: bool) -> bool:
        """Tell whether a payer is listed, or may be one that is not."""
        known = self._roster.listed(scope) or self._roster.elsewhere(scope)
        return known is not None or (unlisted and self._roster.default(scope) is not None)
