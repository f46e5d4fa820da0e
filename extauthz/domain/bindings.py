"""Which scopes a request is counted on, and whose budgets and lists of models bind: LiteLLM's rules, as one table.

A scope is counted whenever it has a row here that applies; a budget that does not bind only counts. The table in
docs/identity.md is written from this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from extauthz.domain.budgets import ScopeKind


class Proof(StrEnum):
    """How a request says who pays."""

    ADMIN = "master key"
    KEY = "key"
    CLAIM = "token, certificate, trusted headers"
    NONE = "nothing"


class Namer(StrEnum):
    """Who may name a payer. A record names another one by the field that is called like it."""

    PROOF = "proof"  # the key, or what the credential says
    TEAM = "team"
    PROJECT = "project"
    USER = "user"
    REQUEST = "request"


class When(StrEnum):
    """When the budgets, or the list of models, of a scope bind."""

    ALWAYS = "always"
    WITHOUT_TEAM = "without a team"
    WITHOUT_TEAM_OR_ASKED = "without a team, or where budgets of users are to bind in teams"

    def holds(self, *, in_team: bool, asked: bool) -> bool:
        """Tell whether it is so; `asked` says that budgets of users are to bind in teams."""
        match self:
            case When.ALWAYS:
                return True
            case When.WITHOUT_TEAM:
                return not in_team
            case When.WITHOUT_TEAM_OR_ASKED:
                return not in_team or asked


_ANY = (Proof.ADMIN, Proof.KEY, Proof.CLAIM, Proof.NONE)
_KNOWN = (Proof.KEY, Proof.CLAIM)


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of scope: with which proofs it is counted, who names the payer, and when it binds.

    The first of `named_by` who names one counts; with `every`, all do. The scope of `of` is made of the ids of others.
    With `listed`, one that is not known is not counted either.
    """

    kind: ScopeKind
    proofs: tuple[Proof, ...]
    named_by: tuple[Namer, ...] = ()
    of: tuple[ScopeKind, ...] = ()
    every: bool = False
    listed: bool = False
    budgets: When = When.ALWAYS
    models: When = When.ALWAYS


# From the widest scope to the narrowest. No budget binds the admin.
RULES = (
    Rule(ScopeKind.GLOBAL, _ANY),
    Rule(ScopeKind.ORGANIZATION, _KNOWN, (Namer.PROOF, Namer.TEAM, Namer.USER)),
    Rule(ScopeKind.TEAM, _KNOWN, (Namer.PROOF, Namer.PROJECT)),
    Rule(ScopeKind.MEMBER, _KNOWN, of=(ScopeKind.TEAM, ScopeKind.USER)),
    Rule(
        ScopeKind.USER,
        _KNOWN,
        (Namer.PROOF,),
        budgets=When.WITHOUT_TEAM_OR_ASKED,
        models=When.WITHOUT_TEAM,
    ),
    Rule(ScopeKind.PROJECT, (Proof.KEY,), (Namer.PROOF,)),
    Rule(ScopeKind.KEY, (Proof.KEY,), (Namer.PROOF,)),
    Rule(ScopeKind.ANONYMOUS, (Proof.NONE,)),
    Rule(ScopeKind.END_USER, _ANY, (Namer.PROOF, Namer.REQUEST)),
    Rule(ScopeKind.TAG, _ANY, (Namer.PROOF, Namer.TEAM, Namer.REQUEST), every=True, listed=True),
)
RULE_OF = {rule.kind: rule for rule in RULES}
