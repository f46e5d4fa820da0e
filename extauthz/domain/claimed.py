"""Whom a credential that is no key says to be, before anybody has looked whether such a payer is known.

A token, a client certificate and an earlier filter name payers by ids: read from claims, or out of a subject by rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX
from extauthz.domain.templates import Template


@dataclass(frozen=True, slots=True)
class Claimed:
    """The payers that a credential names.

    `teams` are those that may pay, of which one does: the one that the request chooses, or that is listed first.
    `admin` when no budget is to bind. With `unlisted`, payers that are not listed pay by what `default` has.
    """

    user: str | None = None
    team: str | None = None
    organization: str | None = None
    end_user: str | None = None
    teams: tuple[str, ...] = ()
    admin: bool = False
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class PayerRule:
    """Whoever has a `subject` like this is this user, of this team and organization."""

    subject: Template
    user: Template | None = None
    team: Template | None = None
    organization: Template | None = None

    def claimed(self, subject: str) -> Claimed | None:
        """Tell who a subject is, None when the rule is for others."""
        names = self.subject.read(subject)
        if names is None:
            return None
        user, team, organization = (
            None if template is None else template.filled(names)
            for template in (self.user, self.team, self.organization)
        )
        return Claimed(user, team, organization)


def by_rules(subject: str, rules: Sequence[PayerRule], *, unlisted: bool = False) -> Claimed | None:
    """Tell who a subject is by the first rule that is for it, None when there is none, or nobody has such an id."""
    claimed = next((claimed for rule in rules if (claimed := rule.claimed(subject)) is not None), None)
    ids = () if claimed is None else (claimed.user, claimed.team, claimed.organization)
    if claimed is None or not all(fits_a_scope(name) for name in ids if name is not None):
        return None
    return replace(claimed, unlisted=unlisted)


def with_team(claimed: Claimed, chosen: str | None, listed: Iterable[str]) -> Claimed | None:
    """Settle which of several teams pays: the one that the request chose, else the first of the `listed` ones.

    None when the request chose one that is not among them.
    """
    possible = {*claimed.teams, *([] if claimed.team is None else [claimed.team])}
    if chosen is not None:
        return replace(claimed, team=chosen, teams=()) if chosen in possible else None
    if claimed.team is not None or not possible:
        return claimed
    return replace(claimed, team=next((team for team in listed if team in possible), None), teams=())


def fits_a_scope(name: str) -> bool:
    """Tell whether a text can be the id of a payer."""
    return 0 < len(name.encode(errors="surrogatepass")) <= SCOPE_ID_BYTES_MAX
