"""From a credential to all who pay, from record to record by the table in bindings.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extauthz.domain.bindings import RULE_OF, RULES, Namer, Proof, Rule
from extauthz.domain.budgets import Scope, ScopeBudgets, ScopeKind
from extauthz.domain.claimed import Claimed
from extauthz.domain.identity import Principal
from extauthz.domain.payers import Key, Record, Team
from extauthz.domain.roster import NO_PAYER, Roster

# The field of a record, or of a credential, that names a payer, and the one that names several.
_FIELD: Mapping[ScopeKind, str] = {
    ScopeKind.ORGANIZATION: "organization",
    ScopeKind.TEAM: "team",
    ScopeKind.USER: "user",
    ScopeKind.PROJECT: "project",
    ScopeKind.KEY: "counted_as",
    ScopeKind.END_USER: "end_user",
    ScopeKind.TAG: "tags",
}
_HOLDER: Mapping[Namer, ScopeKind] = {
    Namer.TEAM: ScopeKind.TEAM,
    Namer.PROJECT: ScopeKind.PROJECT,
    Namer.USER: ScopeKind.USER,
}

Answers = tuple[tuple[Scope, Record | None], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a credential belongs to, None for nobody, and whom the others were asked for, with their answers."""

    principal: Principal | None
    answers: Answers = ()

    @property
    def asked(self) -> tuple[Scope, ...]:
        """Those of whom the others have to be asked."""
        return tuple(scope for scope, _ in self.answers)


NOBODY = Found(None)


class Search:
    """One search, with all whom it asked the others for."""

    def __init__(self, roster: Roster, proof: Proof, credential: Key | Claimed | None = None) -> None:
        self._roster = roster
        self._proof = proof
        self._credential = credential
        self._answers: dict[Scope, Record | None] = {}

    @property
    def answers(self) -> Answers:
        """Whom the others were asked for by now."""
        return tuple(self._answers.items())

    def record(self, scope: Scope) -> Record | None:
        """Find a payer; the key of this search is there already, under whatever name it counts."""
        if scope.kind is ScopeKind.KEY and isinstance(self._credential, Key):
            return self._credential
        if self._roster.asked((scope,)):
            self._answers[scope] = self._roster.elsewhere(scope)
        return self._roster.record(scope)

    def principal(self, name: str) -> Principal:
        """Put all who pay together."""
        admin = self._proof is Proof.ADMIN
        in_team = self._id(ScopeKind.TEAM) is not None
        asked = self._roster.accounts.user_budgets_bind_in_teams
        scopes: list[ScopeBudgets] = []
        lists: list[tuple[str, ...]] = []
        blocked: Scope | None = None
        for rule in RULES:
            for scope in self._scopes(rule):
                record = self.record(scope)
                if record is None and rule.listed:
                    continue
                record = record or NO_PAYER
                binds = not admin and rule.budgets.holds(in_team=in_team, asked=asked)
                scopes.append(ScopeBudgets(scope, record.budgets, binds=binds))
                if record.models and rule.models.holds(in_team=in_team, asked=asked):
                    lists.append(self._roster.expanded(record.models))
                if record.blocked and blocked is None:
                    blocked = scope
        team = self._holder(Namer.TEAM)
        return Principal(
            name,
            tuple(scopes),
            tuple(reversed(lists)),
            admin=admin,
            shadow_mode=isinstance(team, Team) and team.shadow_mode,
            blocked=blocked,
        )

    def _scopes(self, rule: Rule) -> Iterator[Scope]:
        """Give the scopes of one row: none, one, or with `every` several."""
        if self._proof not in rule.proofs:
            return
        if rule.of:
            ids = tuple(name for kind in rule.of if (name := self._id(kind)) is not None)
            if len(ids) == len(rule.of):
                yield Scope(rule.kind, ids)
        elif not rule.named_by:
            yield Scope(rule.kind)
        elif rule.every:
            names = (name for namer in rule.named_by for name in self._names(namer, rule.kind))
            yield from (Scope(rule.kind, (name,)) for name in dict.fromkeys(names))
        elif (name := self._id(rule.kind)) is not None:
            yield Scope(rule.kind, (name,))

    def _id(self, kind: ScopeKind) -> str | None:
        """Find the id of a payer: the first that somebody names."""
        for namer in RULE_OF[kind].named_by:
            name: str | None = getattr(self._holder(namer), _FIELD[kind], None)
            if name is not None:
                return name
        return None

    def _names(self, namer: Namer, kind: ScopeKind) -> tuple[str, ...]:
        names: tuple[str, ...] = getattr(self._holder(namer), _FIELD[kind], ())
        return names

    def _holder(self, namer: Namer) -> Record | Claimed | None:
        if namer is Namer.PROOF:
            return self._credential
        kind = _HOLDER.get(namer)
        name = None if kind is None else self._id(kind)
        return None if kind is None or name is None else self.record(Scope(kind, (name,)))
