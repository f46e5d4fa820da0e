"""The table of what binds, walked row by row: each kind of credential against each field that names a payer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import pytest

from extauthz.domain.bindings import RULE_OF, RULES, Namer, Proof, Rule, When
from extauthz.domain.budgets import Budget, Scope, ScopeBudgets, ScopeKind
from extauthz.domain.claimed import Claimed
from extauthz.domain.directory import Directory
from extauthz.domain.identity import Principal
from extauthz.domain.payers import Accounts, Anonymous, Key, Payer, Project, Team, User
from extauthz.domain.windows import WindowRule

KEY, ADMIN = "aa" * 32, "00" * 32
# Whom a token names that names nobody else.
SOMEBODY = "somebody"
BUDGETS = (Budget(1, WindowRule()),)
MODELS = ("gpt",)
FIELDS = {
    ScopeKind.ORGANIZATION: "organization",
    ScopeKind.TEAM: "team",
    ScopeKind.USER: "user",
    ScopeKind.PROJECT: "project",
}
# Whoever names another one has to be named itself, under an id of its own.
HOLDERS = {Namer.TEAM: ScopeKind.TEAM, Namer.PROJECT: ScopeKind.PROJECT, Namer.USER: ScopeKind.USER}


@dataclass
class Scene:
    """Who names whom: by namer and kind, the ids."""

    proof: Proof
    names: dict[tuple[Namer, ScopeKind], tuple[str, ...]] = field(default_factory=dict)
    asked: bool = False

    def name(self, namer: Namer, kind: ScopeKind, *ids: str) -> None:
        """Have somebody name a payer, and be named, where it is a payer itself."""
        if namer in HOLDERS and self.one(Namer.PROOF, HOLDERS[namer]) is None:
            self.name(Namer.PROOF, HOLDERS[namer], f"the-{HOLDERS[namer]}")
        self.names[namer, kind] = ids

    def one(self, namer: Namer, kind: ScopeKind) -> str | None:
        """Give the id of one payer that somebody names."""
        return next(iter(self.names.get((namer, kind), ())), None)

    def of(self, namer: Namer) -> Mapping[str, str | None]:
        """Give the fields of one who names others."""
        return {name: self.one(namer, kind) for kind, name in FIELDS.items()}

    def principal(self) -> Principal:
        """Put it all into a directory in which everybody has a budget and a list of models, and ask that."""
        ids = {
            kind: {name for (_, of), names in self.names.items() if of is kind for name in names} for kind in ScopeKind
        }
        named = self.of(Namer.PROOF)
        payer = Payer(BUDGETS, models=MODELS)
        team = Team(
            BUDGETS,
            self.one(Namer.TEAM, ScopeKind.ORGANIZATION),
            dict.fromkeys(ids[ScopeKind.USER], payer),
            models=MODELS,
            tags=self.names.get((Namer.TEAM, ScopeKind.TAG), ()),
        )
        user = User(BUDGETS, self.one(Namer.USER, ScopeKind.ORGANIZATION), models=MODELS)
        project = Project(BUDGETS, self.one(Namer.PROJECT, ScopeKind.TEAM), models=MODELS)
        tags = self.names.get((Namer.PROOF, ScopeKind.TAG), ())
        key = Key(
            KEY,
            budgets=BUDGETS,
            organization=named["organization"],
            team=named["team"],
            user=named["user"],
            models=MODELS,
            project=named["project"],
            tags=tags,
        )
        accounts = Accounts(
            global_budgets=BUDGETS,
            organizations=dict.fromkeys(ids[ScopeKind.ORGANIZATION], payer),
            teams=dict.fromkeys(ids[ScopeKind.TEAM], team),
            users=dict.fromkeys((SOMEBODY, *ids[ScopeKind.USER]), user),
            projects=dict.fromkeys(ids[ScopeKind.PROJECT], project),
            keys=(key,),
            tags=dict.fromkeys(ids[ScopeKind.TAG], Payer(BUDGETS)),
            end_users=dict.fromkeys(ids[ScopeKind.END_USER], payer),
            anonymous=Anonymous(BUDGETS, MODELS),
            admin_sha256=ADMIN,
            user_budgets_bind_in_teams=self.asked,
        )
        principal = self._found(Directory(accounts))
        for kind in (ScopeKind.END_USER, ScopeKind.TAG):
            for name in self.names.get((Namer.REQUEST, kind), ()):
                principal = Directory(accounts).with_payer(principal, Scope(kind, (name,)))
        return principal

    def _found(self, directory: Directory) -> Principal:
        match self.proof:
            case Proof.ADMIN:
                found = directory.find(ADMIN)
            case Proof.KEY:
                found = directory.find(KEY)
            case Proof.CLAIM:
                names = self.of(Namer.PROOF)
                end_user = self.one(Namer.PROOF, ScopeKind.END_USER)
                user = names["user"] if names["team"] or names["organization"] else names["user"] or SOMEBODY
                found = directory.claimed(Claimed(user, names["team"], names["organization"], end_user))
            case Proof.NONE:
                found = directory.anonymous()
        assert found is not None
        return found


def scopes_of(scene: Scene, kind: ScopeKind) -> list[ScopeBudgets]:
    """Give the scopes of one kind that a request is counted on."""
    return [scope for scope in scene.principal().scopes if scope.scope.kind is kind]


def can_name(proof: Proof, namer: Namer, rule: Rule) -> bool:
    """Tell whether there is such a thing: tokens name no tags, say, and only a key has a project."""
    if proof not in rule.proofs:
        return False
    if namer is Namer.REQUEST:
        return True
    if namer in HOLDERS and proof not in RULE_OF[HOLDERS[namer]].proofs:
        return False
    if namer is Namer.PROOF and rule.kind is ScopeKind.END_USER:
        return proof is Proof.CLAIM
    if namer is Namer.PROOF and rule.kind is ScopeKind.TAG:
        return proof is Proof.KEY
    return namer is not Namer.PROOF or proof in (Proof.KEY, Proof.CLAIM)


NAMED = [rule for rule in RULES if rule.named_by and rule.kind is not ScopeKind.KEY]
SINGLE = [
    (rule, proof, namer) for rule in NAMED for proof in Proof for namer in rule.named_by if can_name(proof, namer, rule)
]
PAIRS = [
    (rule, proof, *pair)
    for rule in NAMED
    for proof in Proof
    for pair in combinations(rule.named_by, 2)
    if all(can_name(proof, namer, rule) for namer in pair)
]


@pytest.mark.parametrize(
    ("rule", "proof", "namer"), SINGLE, ids=[f"{rule.kind}-{proof.name}-{namer}" for rule, proof, namer in SINGLE]
)
def test_named(rule: Rule, proof: Proof, namer: Namer) -> None:
    """Whoever a row lets name a payer has its scope counted, with its budgets."""
    scene = Scene(proof)
    scene.name(namer, rule.kind, "x")
    found = scopes_of(scene, rule.kind)

    assert [scope.scope.ids for scope in found] == [("x",)]
    assert found[0].budgets == BUDGETS


@pytest.mark.parametrize(
    ("rule", "proof", "first", "second"),
    PAIRS,
    ids=[f"{rule.kind}-{proof.name}-{first}-{second}" for rule, proof, first, second in PAIRS],
)
def test_several_name_one(rule: Rule, proof: Proof, first: Namer, second: Namer) -> None:
    """Of several who name a payer the one counts that stands first in the row, or all where the row says so."""
    scene = Scene(proof)
    scene.name(second, rule.kind, "second")
    scene.name(first, rule.kind, "first")
    names = [scope.scope.ids[0] for scope in scopes_of(scene, rule.kind)]

    if rule.every:
        assert names == ["first", "second"]
    elif Namer.REQUEST in (first, second):
        # Nobody asks for the end user of a request whose credential has one: see Authenticator.complete.
        assert names[0] == "first"
    else:
        assert names == ["first"]


@pytest.mark.parametrize("proof", Proof, ids=[proof.name for proof in Proof])
@pytest.mark.parametrize("rule", RULES, ids=[rule.kind for rule in RULES])
def test_proofs(rule: Rule, proof: Proof) -> None:
    """A scope is counted with the proofs of its row, and with no other, whatever records say."""
    scene = Scene(proof)
    for other in NAMED:
        for namer in other.named_by:
            if namer is not Namer.REQUEST or other.kind is rule.kind:
                scene.name(namer, other.kind, f"{namer}-{other.kind}")

    assert bool(scopes_of(scene, rule.kind)) is (proof in rule.proofs)


@pytest.mark.parametrize("asked", [False, True], ids=["", "users bind in teams"])
@pytest.mark.parametrize("team", [False, True], ids=["no team", "a team"])
@pytest.mark.parametrize("proof", [Proof.KEY, Proof.CLAIM], ids=lambda proof: proof.name)
@pytest.mark.parametrize("rule", RULES, ids=[rule.kind for rule in RULES])
def test_binds(rule: Rule, proof: Proof, *, team: bool, asked: bool) -> None:
    """Budgets and lists of models bind when their row says so."""
    if proof not in rule.proofs or (rule.kind in (ScopeKind.TEAM, ScopeKind.MEMBER) and not team):
        return
    scene = Scene(proof, asked=asked)
    scene.name(Namer.PROOF, ScopeKind.USER, "ana")
    if team:
        scene.name(Namer.PROOF, ScopeKind.TEAM, "research")
    for namer in rule.named_by[:1]:
        if can_name(proof, namer, rule) and rule.kind is not ScopeKind.USER:
            if namer in HOLDERS and not team:
                namer = Namer.PROOF  # noqa: PLW2901 - whoever can without a team
            scene.name(namer, rule.kind, "x")
    if rule.kind in (ScopeKind.END_USER, ScopeKind.TAG) and not scopes_of(scene, rule.kind):
        scene.name(Namer.REQUEST, rule.kind, "x")
    (found,) = scopes_of(scene, rule.kind)

    holds = {
        When.ALWAYS: True,
        When.WITHOUT_TEAM: not team,
        When.WITHOUT_TEAM_OR_ASKED: not team or asked,
    }
    assert found.binds is holds[rule.budgets]
    if rule.kind is ScopeKind.USER:
        others = {ScopeKind.TEAM: team, ScopeKind.MEMBER: team, ScopeKind.KEY: proof is Proof.KEY}
        assert len(scene.principal().models) == sum(others.values()) + holds[rule.models]


def test_the_admin_is_bound_by_nothing() -> None:
    """Nothing binds with the master key, and none of the lists count."""
    scene = Scene(Proof.ADMIN)
    scene.name(Namer.REQUEST, ScopeKind.END_USER, "vip")
    scene.name(Namer.REQUEST, ScopeKind.TAG, "night")
    principal = scene.principal()

    assert [(scope.scope.text, scope.binds) for scope in principal.scopes] == [
        ("global", False),
        ("end_user:vip", False),
        ("tag:night", False),
    ]
    assert principal.models == ()


def test_a_member() -> None:
    """A member is the user inside the team, when both are there, whoever names the team."""
    scene = Scene(Proof.KEY)
    scene.name(Namer.PROJECT, ScopeKind.TEAM, "research")
    assert not scopes_of(scene, ScopeKind.MEMBER)
    scene.name(Namer.PROOF, ScopeKind.USER, "ana")

    assert [scope.scope.text for scope in scopes_of(scene, ScopeKind.MEMBER)] == ["member:research/ana"]


def test_every_kind_has_its_row() -> None:
    """There is one row for each kind of scope."""
    assert sorted(rule.kind for rule in RULES) == sorted(ScopeKind)
