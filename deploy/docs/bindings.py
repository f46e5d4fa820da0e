"""Writes the table of what binds in docs/identity.md from the program's own, or tells if it is stale (`--check`)."""

from __future__ import annotations

import sys

from deploy.docs.tables import Table
from extauthz.domain.bindings import RULES, Namer, Proof, Rule, When
from extauthz.domain.budgets import ScopeKind

HEADINGS = ("scope", "with", "named by", "its budgets bind", "its list of models counts")
SCOPES = {
    ScopeKind.GLOBAL: "global",
    ScopeKind.ANONYMOUS: "anonymous",
    ScopeKind.MEMBER: "member:<team>/<user>",
    ScopeKind.KEY: "key:<hash>",
    ScopeKind.TAG: "tag:<name>",
}
NAMERS = {
    Namer.PROOF: "the key or other credential",
    Namer.TEAM: "its team",
    Namer.PROJECT: "its project",
    Namer.USER: "its user",
    Namer.REQUEST: "the request",
}
WHENS = {
    When.ALWAYS: "always",
    When.WITHOUT_TEAM: "where no team pays",
    When.WITHOUT_TEAM_OR_ASKED: "where no team pays, or with `apply_user_budget_to_team_keys`",
}
NOTHING = "\N{EN DASH}"
# Nobody writes a list for these.
WITHOUT_LIST = (ScopeKind.GLOBAL, ScopeKind.TAG)


def named_by(rule: Rule) -> str:
    """Tell where the id of a payer comes from."""
    if rule.of:
        return " and ".join(f"the {kind}" for kind in rule.of) + ", when both are there"
    named = (", and " if rule.every else ", else ").join(NAMERS[namer] for namer in rule.named_by) or NOTHING
    return named + (", of those that are listed" if rule.listed else "")


def cells(rule: Rule) -> tuple[str, ...]:
    """Give what the table says of a row."""
    scope = SCOPES.get(rule.kind, f"{rule.kind}:<id>")
    proofs = "anything" if set(rule.proofs) == set(Proof) else "; ".join(rule.proofs)
    models = NOTHING if rule.kind in WITHOUT_LIST else WHENS[rule.models]
    return f"`{scope}`", proofs, named_by(rule), WHENS[rule.budgets], models


if __name__ == "__main__":
    sys.exit(Table("identity.md", "bindings", HEADINGS, map(cells, RULES)).write_or_check())
