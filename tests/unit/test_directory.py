"""Who a key belongs to, what its spend is counted on, and which budgets bind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from extauthz.domain.budgets import Budget, Scope, ScopeKind
from extauthz.domain.directory import Directory
from extauthz.domain.identity import Principal
from extauthz.domain.payers import Accounts, Key, Payer, Project, Record, Team, User
from extauthz.domain.windows import WindowRule


def usd(limit: int) -> tuple[Budget, ...]:
    """Make the budgets of a scope: one, with a limit that tells whose it is."""
    return (Budget(limit, WindowRule()),)


ACCOUNTS = Accounts(
    global_budgets=usd(1),
    organizations={"acme": Payer(usd(2)), "other": Payer(usd(3))},
    teams={
        "research": Team(usd(4), "acme", {"ana": Payer(usd(5))}, models=("gpt", "llama")),
        "loose": Team(),
    },
    users={"ana": User(usd(6), "other"), "ben": User()},
    keys=(
        Key("aa" * 32, "laptop", usd(7), team="research", user="ana", models=("gpt",)),
        Key("bb" * 32, team="research", user="ben"),
        Key("cc" * 32, user="ana"),
        Key("dd" * 32, organization="acme", user="ana"),
        Key("ee" * 32, team="loose", organization="acme"),
        Key("ff" * 32),
        Key("ab" * 32, team="research", organization="other"),
    ),
    end_users={"vip": Payer(usd(8)), "unlimited": Payer()},
    default_end_user=Payer(usd(9)),
    admin_sha256="00" * 32,
)


def principal(digits: str, accounts: Accounts = ACCOUNTS) -> Principal:
    """Find the principal of a key by the two digits that its hash repeats."""
    found = Directory(accounts).find(digits * 32)
    assert found is not None
    return found


def limits(who: Principal) -> dict[str, tuple[int, ...]]:
    """Tell the limits that bind, by scope (the key's is `key`); () for a scope that only counts."""
    return {
        "key" if scope.scope.kind is ScopeKind.KEY else str(scope.scope): (
            tuple(budget.limit for budget in scope.budgets) if scope.binds else ()
        )
        for scope in who.scopes
    }


def with_end_user(directory: Directory, who: Principal, end_user: str) -> Principal:
    """Add an end user."""
    return directory.with_payer(who, Scope(ScopeKind.END_USER, (end_user,)))


@pytest.mark.parametrize(
    ("digits", "binding"),
    [
        pytest.param(
            "aa",
            {
                "global": (1,),
                "org:acme": (2,),
                "team:research": (4,),
                "member:research/ana": (5,),
                "user:ana": (),
                "key": (7,),
            },
            id="key of a user in a team: the user's own budget does not bind",
        ),
        pytest.param(
            "bb",
            {
                "global": (1,),
                "org:acme": (2,),
                "team:research": (4,),
                "member:research/ben": (),
                "user:ben": (),
                "key": (),
            },
            id="a member without a budget is counted",
        ),
        pytest.param(
            "cc", {"global": (1,), "org:other": (3,), "user:ana": (6,), "key": ()}, id="key of a user: its organization"
        ),
        pytest.param(
            "dd", {"global": (1,), "org:acme": (2,), "user:ana": (6,), "key": ()}, id="the key's organization wins"
        ),
        pytest.param(
            "ee", {"global": (1,), "org:acme": (2,), "team:loose": (), "key": ()}, id="a team without organization"
        ),
        pytest.param(
            "ab",
            {"global": (1,), "org:other": (3,), "team:research": (4,), "key": ()},
            id="the key's organization goes before the team's, as in LiteLLM",
        ),
        pytest.param("ff", {"global": (1,), "key": ()}, id="a key of nobody"),
    ],
)
def test_scopes(digits: str, binding: dict[str, tuple[int, ...]]) -> None:
    """A principal has every scope that its spend is counted on, from the widest to the narrowest."""
    found = limits(principal(digits))

    assert binding == found
    assert list(binding) == list(found)


def test_user_budget_in_teams() -> None:
    """`apply_user_budget_to_team_keys` makes a user's own budget bind on the keys of teams as well."""
    accounts = Accounts(
        teams={"t": Team()},
        users={"ana": User(usd(6))},
        keys=(Key("aa" * 32, team="t", user="ana"),),
        user_budgets_bind_in_teams=True,
    )

    assert limits(principal("aa", accounts))["user:ana"] == (6,)


def test_a_budget_that_does_not_bind_still_counts() -> None:
    """The spend of a team's key is counted in the windows of its user's own budget."""
    user = next(scope for scope in principal("aa").scopes if scope.scope.kind is ScopeKind.USER)

    assert (usd(6), False) == (user.budgets, user.binds)


def test_models() -> None:
    """The lists of key and team both apply; a list that is not written does not."""
    assert principal("aa").models == (("gpt",), ("gpt", "llama"))
    assert principal("bb").models == (("gpt", "llama"),)
    assert principal("ff").models == ()


def test_names() -> None:
    """A key is called by its alias, or by the beginning of its hash."""
    assert [principal(digits).name for digits in ("aa", "bb", "00")] == ["laptop", "key bbbbbbbb", "admin"]


def test_aliases() -> None:
    """A key is found by its alias, where no other has the same."""
    twins = Directory(Accounts(keys=(Key("aa" * 32, "twin"), Key("bb" * 32, "twin"), Key("cc" * 32, "only"))))

    assert [twins.sha256_of(alias) for alias in ("only", "twin", "nobody")] == ["cc" * 32, None, None]


def test_admin() -> None:
    """No budget binds the admin, and its spend is counted."""
    admin = with_end_user(Directory(ACCOUNTS), principal("00"), "vip")

    assert admin.admin
    assert limits(admin) == {"global": (), "end_user:vip": ()}


def test_unknown_key() -> None:
    """Nobody is found for a hash that is not there."""
    assert Directory(ACCOUNTS).find("12" * 32) is None


@pytest.mark.parametrize(
    ("end_user", "limit"),
    [
        pytest.param("vip", (8,), id="its own budget"),
        pytest.param("unlimited", (), id="listed without a budget"),
        pytest.param("somebody", (9,), id="the default"),
    ],
)
def test_end_user(end_user: str, limit: tuple[int, ...]) -> None:
    """An end user adds a scope with its own budgets, or the default ones if it is not listed."""
    who = with_end_user(Directory(ACCOUNTS), principal("ff"), end_user)

    assert limits(who)[f"end_user:{end_user}"] == limit
    assert len(who.scopes) == len(principal("ff").scopes) + 1


@pytest.mark.parametrize(
    ("scope", "limit"),
    [
        (Scope(ScopeKind.GLOBAL), 1),
        (Scope(ScopeKind.ORGANIZATION, ("acme",)), 2),
        (Scope(ScopeKind.TEAM, ("research",)), 4),
        (Scope(ScopeKind.MEMBER, ("research", "ana")), 5),
        (Scope(ScopeKind.USER, ("ana",)), 6),
        (Scope(ScopeKind.KEY, ("aa" * 32,)), 7),
        (Scope(ScopeKind.END_USER, ("vip",)), 8),
    ],
    ids=str,
)
def test_budgets_on(scope: Scope, limit: int) -> None:
    """The budgets of every kind of scope can be asked for; one that nobody has heard of has none."""
    directory = Directory(ACCOUNTS)
    nobody = Scope(scope.kind, tuple("nobody" for _ in scope.ids))

    assert usd(limit) == directory.budgets_on(scope)
    if scope.ids and scope.kind is not ScopeKind.END_USER:
        assert directory.budgets_on(nobody) == ()


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (Scope(ScopeKind.GLOBAL), "global"),
        (Scope(ScopeKind.MEMBER, ("research", "ana b")), "member:research/ana%20b"),
        (Scope(ScopeKind.KEY, ("aa" * 32,)), "key:laptop"),
        (Scope(ScopeKind.KEY, ("bb" * 32,)), "key:bbbbbbbb"),
        (Scope(ScopeKind.KEY, ("12" * 32,)), "key:12121212"),
    ],
    ids=str,
)
def test_scopes_are_shown_to_people(scope: Scope, shown: str) -> None:
    """A scope is written in ASCII without blanks, a key by its alias or by the beginning of its hash."""
    assert shown == Directory(ACCOUNTS).shown(scope)


def test_the_scopes_with_budgets() -> None:
    """Those that have a budget are listed, the widest first; an end user that is not named is not among them."""
    directory = Directory(ACCOUNTS)

    assert [
        "global",
        *("org:acme", "org:other"),
        "team:research",
        "member:research/ana",
        "user:ana",
        "key:" + "aa" * 32,
        "end_user:vip",
    ] == [scope.text for scope in directory.budgeted()]
    anybody = Scope(ScopeKind.END_USER, ("anybody",))
    assert (usd(9), True) == (directory.budgets_on(anybody), directory.is_stranger(anybody))


RICH = Accounts(
    teams={"research": Team(tags=("team-tag", "unlisted"))},
    projects={"rocket": Project(usd(3), "research", models=("gpt", "group"))},
    tags={"key-tag": Payer(usd(4)), "team-tag": Payer(usd(5)), "night": Payer(usd(6))},
    keys=(
        Key("aa" * 32, project="rocket", tags=("key-tag",)),
        Key("bb" * 32, expires_ms=5000),
        Key("cc" * 32, counts_as="dd" * 32, alias="new", budgets=usd(7)),
    ),
    end_users={"out": Payer(blocked=True), "few": Payer(models=("llama",))},
    access_groups={"group": ("llama", "gpt-4o")},
)


def test_a_project() -> None:
    """A key of a project is counted on it, its list holds with those of its groups, and its team pays."""
    found = principal("aa", RICH)

    assert limits(found) == {
        "global": (),
        "team:research": (),
        "project:rocket": (3,),
        "key": (),
        "tag:key-tag": (4,),
        "tag:team-tag": (5,),
    }
    assert found.models == (("gpt", "group", "llama", "gpt-4o"),)


def test_tags_of_a_request() -> None:
    """A tag of a request adds its scope where it is listed, and only once."""
    directory = Directory(RICH)
    found = principal("aa", RICH)
    for name in ("night", "key-tag", "nothing"):
        found = directory.with_payer(found, Scope(ScopeKind.TAG, (name,)))

    assert [scope.ids[0] for scope in found.payers if scope.kind is ScopeKind.TAG] == ["key-tag", "team-tag", "night"]


@pytest.mark.parametrize(
    ("blocked", "scope"),
    [
        (Accounts(keys=(Key("aa" * 32, blocked=True),)), "key:" + "aa" * 32),
        (Accounts(keys=(Key("aa" * 32, team="t"),), teams={"t": Team(blocked=True)}), "team:t"),
        (
            Accounts(keys=(Key("aa" * 32, organization="o"),), organizations={"o": Payer(blocked=True)}),
            "org:o",
        ),
        (Accounts(keys=(Key("aa" * 32, project="p"),), projects={"p": Project(blocked=True)}), "project:p"),
    ],
    ids=["key", "team", "organization", "project"],
)
def test_blocked(blocked: Accounts, scope: str) -> None:
    """A principal knows who of those that pay is blocked."""
    assert str(principal("aa", blocked).blocked) == scope
    assert principal("bb", RICH).blocked is None


def test_a_blocked_end_user() -> None:
    """So it does of an end user, the admin's included; an end user's own list of models counts."""
    directory = Directory(replace(RICH, admin_sha256="00" * 32))
    admin = directory.find("00" * 32)
    assert admin is not None

    assert str(with_end_user(directory, admin, "out").blocked) == "end_user:out"
    assert with_end_user(directory, principal("bb", RICH), "few").models == (("llama",),)
    assert with_end_user(directory, admin, "few").models == ()


def test_a_key_in_the_place_of_another() -> None:
    """A key that was rotated goes on with the scope of the one before; that one is unknown."""
    directory = Directory(RICH)
    old = Scope(ScopeKind.KEY, ("dd" * 32,))

    assert principal("cc", RICH).payers[-1] == old
    assert directory.find("dd" * 32) is None
    assert (directory.budgets_on(old), directory.shown(old)) == (usd(7), "key:new")
    assert (old in directory.budgeted(), directory.is_listed(old)) == (True, True)


@dataclass
class Others:
    """Who is known elsewhere, and how often that was asked."""

    records: dict[Scope, Record] = field(default_factory=dict)

    def record(self, scope: Scope) -> Record | None:
        """Give a payer."""
        return self.records.get(scope)

    def successor(self, key_sha256: str) -> Key | None:
        """Give a key that took the place of another."""
        keys = (record for record in self.records.values() if isinstance(record, Key))
        return next((key for key in keys if key.counts_as == key_sha256), None)

    def called(self, alias: str) -> Iterator[Key]:
        """List keys with an alias."""
        keys = (record for record in self.records.values() if isinstance(record, Key))
        return (key for key in keys if key.alias == alias)

    def limited(self) -> Iterator[tuple[Scope, Record] | None]:
        """List everybody with budgets."""
        return ((scope, record) if record.budgets else None for scope, record in self.records.items())


KEY, TEAM = Scope(ScopeKind.KEY, ("ee" * 32,)), Scope(ScopeKind.TEAM, ("away",))
AWAY: Mapping[Scope, Record] = {
    KEY: Key("ee" * 32, "remote", usd(1), team="away", user="ana"),
    TEAM: Team(usd(2), "acme"),
    Scope(ScopeKind.ORGANIZATION, ("acme",)): Payer(usd(3)),
    Scope(ScopeKind.MEMBER, ("away", "ana")): Payer(usd(4)),
}


def test_who_is_known_elsewhere() -> None:
    """Those who are known elsewhere are found like those in files, and files go before."""
    directory = Directory(Accounts(organizations={"acme": Payer(usd(30))})).beside(Others(dict(AWAY)))
    found = directory.find("ee" * 32)

    assert found is not None
    assert limits(found) == {
        "global": (),
        "org:acme": (30,),
        "team:away": (2,),
        "member:away/ana": (4,),
        "user:ana": (),
        "key": (1,),
    }
    assert (directory.shown(KEY), directory.sha256_of("remote")) == ("key:remote", "ee" * 32)
    budgeted = {str(scope) for scope in directory.budgeted_elsewhere() if scope is not None}
    assert budgeted == {str(KEY), "team:away", "member:away/ana"}


def test_who_has_to_be_asked_for() -> None:
    """Each answer leads to more who have to be asked for, and payers in files are none of them."""
    others = Others()
    directory = Directory(Accounts(organizations={"acme": Payer()}, keys=(Key("aa" * 32),))).beside(others)
    asked = [{scope.kind for scope in directory.asked_of_key("ee" * 32)}]
    for scope in (KEY, TEAM):
        others.records[scope] = AWAY[scope]
        asked.append({scope.kind for scope in directory.asked_of_key("ee" * 32)})

    everybody = {ScopeKind.KEY, ScopeKind.TEAM, ScopeKind.MEMBER, ScopeKind.USER}
    assert asked == [{ScopeKind.KEY}, everybody, everybody]
    assert directory.asked_of_key("aa" * 32) == ()


def test_what_was_found_is_kept() -> None:
    """A principal is put together once, and anew when one of those who pay has changed; only so many are kept."""
    others = Others(dict(AWAY))
    directory = Directory(replace(RICH, teams={}), principals_max=2).beside(others)
    before = directory.find("ee" * 32)
    assert directory.find("ee" * 32) is before
    others.records[TEAM] = Team(usd(5))
    changed = directory.find("ee" * 32)
    assert changed is not None
    assert limits(changed)["team:away"] == (5,)
    del others.records[KEY]
    assert directory.find("ee" * 32) is None

    bb = directory.find("bb" * 32)
    for digits in ("aa", "cc"):
        directory.find(digits * 32)
    assert directory.find("bb" * 32) == bb
    assert directory.find("bb" * 32) is not bb
