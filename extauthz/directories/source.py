"""The seam of a directory that is no file: what it is asked, and what it tells of its own accord.

What a directory knows of a payer has the shape that the configuration file has, so that there is one path from there
to who pays: KeyFields (with its `key_sha256`) for a key, TeamFields for a team, and so on. FIELDS says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from extauthz.config.payers import (
    BudgetFields,
    EndUserFields,
    KeyFields,
    MemberFields,
    OrganizationFields,
    ProjectFields,
    TagFields,
    TeamFields,
    UserFields,
)
from extauthz.domain.budgets import Scope, ScopeKind

# A source is asked for no more payers at once.
FETCH_MAX = 256
# A source that has seen more changes than these says that everything has changed.
CHANGED_MAX = 4096

FIELDS: Mapping[ScopeKind, type[BudgetFields]] = {
    ScopeKind.KEY: KeyFields,
    ScopeKind.TEAM: TeamFields,
    ScopeKind.MEMBER: MemberFields,
    ScopeKind.USER: UserFields,
    ScopeKind.ORGANIZATION: OrganizationFields,
    ScopeKind.PROJECT: ProjectFields,
    ScopeKind.END_USER: EndUserFields,
    ScopeKind.TAG: TagFields,
}

# Nobody is let through for what cannot be read: these are refused as such, the others as those whose money is spent.
_BLOCKED: Mapping[str, object] = {"blocked": True}
_EXHAUSTED: Mapping[str, object] = {"max_budget": 0}


@dataclass(frozen=True, slots=True)
class Changes:
    """Whose records are others by now, or are there or gone: these, or `everything` where a source cannot say."""

    scopes: frozenset[Scope] = frozenset()
    everything: bool = False


NOTHING_CHANGED = Changes()
EVERYTHING_CHANGED = Changes(everything=True)


class Source(Protocol):
    """A directory that is asked over a wire. Whoever calls it sets a deadline."""

    async def fetch(self, scopes: Sequence[Scope]) -> Mapping[Scope, BudgetFields]:
        """Give what is known of payers now, each in the class that FIELDS says; who is missing is unknown.

        `scopes` are at most FETCH_MAX, of the kinds in FIELDS. Raises DirectoryUnavailableError.
        """

    async def changes(self) -> Changes | None:
        """Tell what has changed since the last call; None where entries are read again because they are old.

        Raises DirectoryUnavailableError, after which everything may have changed.
        """

    async def close(self) -> None:
        """Let go of what it holds open."""


def stand_in(kind: ScopeKind) -> BudgetFields | None:
    """Give what holds in the place of a payer who is there and cannot be read; None for a key, which is then unknown.

    Whoever names it would otherwise be bound by nothing of it.
    """
    if kind is ScopeKind.KEY:
        return None
    model = FIELDS[kind]
    return model.model_validate(_BLOCKED if "blocked" in model.model_fields else _EXHAUSTED)
