"""Who a key belongs to, what its spend is counted on, and which budgets bind."""

import pytest

from extauthz.domain.budgets import Budget, Scope, ScopeKind
from extauthz.domain.directory import Accounts, Directory, Key, Team, User
from extauthz.domain.identity import Principal
from extauthz.domain.windows import WindowRule


def usd(limit: int) -> tuple[Budget, ...]:
    """Make the budgets of a scope: one, with a limit that tells whose it is."""
    return (Budget(limit, WindowRule()),)


ACCOUNTS = Accounts(
    global_budgets=usd(1),
    organizations={"acme": usd(2), "other": usd(3)},
    teams={
        "research": Team(usd(4), "acme", {"ana": usd(5)}, models=("gpt", "llama")),
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
    end_users={"vip": usd(8), "unlimited": ()},
    default_end_user=usd(9),
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
            {"global": (1,), "org:acme": (2,), "team:research": (4,), "key": ()},
            id="the team's organization wins",
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
    admin = Directory(ACCOUNTS).with_end_user(principal("00"), "vip")

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
    who = Directory(ACCOUNTS).with_end_user(principal("ff"), end_user)

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
