"""Scopes and counters as texts: the names that every store and every label knows them by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX, Budget, Counter, Increase, Scope, ScopeKind
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.domain.windows import LIFETIME, Window, WindowRule

FOREVER = Window(LIFETIME, 0, None)
MONTH = Window("1mo", 1_788_000_000_000, 1_790_592_000_000)


def a_scope(kind: ScopeKind, *ids: str) -> Scope:
    """Give a scope."""
    return Scope(kind, ids)


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        pytest.param(a_scope(ScopeKind.GLOBAL), "global", id="global"),
        pytest.param(a_scope(ScopeKind.ANONYMOUS), "anonymous", id="anonymous"),
        pytest.param(a_scope(ScopeKind.ORGANIZATION, "acme"), "org:acme", id="organization"),
        pytest.param(a_scope(ScopeKind.TEAM, "research"), "team:research", id="team"),
        pytest.param(a_scope(ScopeKind.MEMBER, "research", "ana"), "member:research/ana", id="member"),
        pytest.param(a_scope(ScopeKind.USER, "ana@acme.org"), "user:ana%40acme.org", id="user"),
        pytest.param(a_scope(ScopeKind.KEY, "9f86d081"), "key:9f86d081", id="key"),
        pytest.param(a_scope(ScopeKind.END_USER, "42"), "end_user:42", id="end user"),
        pytest.param(a_scope(ScopeKind.TEAM, "a|b"), "team:a%7Cb", id="a bar"),
        pytest.param(a_scope(ScopeKind.MEMBER, "a/b", "c/d"), "member:a%2Fb/c%2Fd", id="slashes"),
        pytest.param(a_scope(ScopeKind.USER, "team:a"), "user:team%3Aa", id="a colon"),
        pytest.param(a_scope(ScopeKind.END_USER, " a b\n"), "end_user:%20a%20b%0A", id="blanks"),
        pytest.param(a_scope(ScopeKind.TEAM, "Üm"), "team:%C3%9Cm", id="unicode"),
        pytest.param(a_scope(ScopeKind.TEAM, "\u00a0\u2003"), "team:%C2%A0%E2%80%83", id="blanks of unicode"),
        pytest.param(a_scope(ScopeKind.TEAM, "100%25"), "team:100%2525", id="what looks encoded"),
        pytest.param(a_scope(ScopeKind.TEAM, "a+b{c}"), "team:a%2Bb%7Bc%7D", id="a plus and a hash tag"),
        pytest.param(a_scope(ScopeKind.END_USER, ""), "end_user:", id="an empty id"),
    ],
)
@pytest.mark.parametrize(
    ("window", "bounds"),
    [
        pytest.param(FOREVER, "|lifetime", id="for ever"),
        pytest.param(MONTH, "|1mo|1788000000000|1790592000000", id="a month"),
        pytest.param(Window("1d", -86_400_000, 0), "|1d|-86400000|0", id="before 1970"),
    ],
)
def test_a_key_says_all(scope: Scope, text: str, window: Window, bounds: str) -> None:
    """A counter's key is its scope and its window, and reads back as what it was made of."""
    counter = Counter(scope, window)

    assert text == scope.text == str(scope)
    assert scope == Scope.parse(text)
    assert text + bounds == counter.key
    assert counter == Counter.parse(counter.key)


IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=SCOPE_ID_BYTES_MAX // 4)
SCOPES = st.one_of(
    st.sampled_from([Scope(ScopeKind.GLOBAL), Scope(ScopeKind.ANONYMOUS)]),
    st.builds(lambda team, user: Scope(ScopeKind.MEMBER, (team, user)), IDS, IDS),
    st.builds(
        lambda kind, id_: Scope(kind, (id_,)),
        st.sampled_from([*{*ScopeKind} - {ScopeKind.GLOBAL, ScopeKind.ANONYMOUS, ScopeKind.MEMBER}]),
        IDS,
    ),
)
INSTANTS = st.integers(-(10**15), 10**15)
WINDOWS = st.one_of(st.just(FOREVER), st.builds(Window, st.sampled_from(["15m", "1d", "1mo"]), INSTANTS, INSTANTS))


@given(SCOPES, WINDOWS)
def test_every_key_reads_back(scope: Scope, window: Window) -> None:
    """Whatever an id has in it the key is one printable word of ASCII, and comes back as it went."""
    counter = Counter(scope, window)

    assert counter == Counter.parse(counter.key)
    assert scope == Scope.parse(scope.text)
    assert counter.key.isascii()
    assert counter.key.isprintable()
    assert " " not in counter.key


@given(SCOPES, SCOPES, WINDOWS, WINDOWS)
def test_no_two_counters_share_a_key(scope: Scope, other: Scope, window: Window, later: Window) -> None:
    """Nobody can choose an id that is booked on somebody else's counter."""
    assert (Counter(scope, window) == Counter(other, later)) == (
        Counter(scope, window).key == Counter(other, later).key
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("tema:research", id="a kind that is none"),
        pytest.param("TEAM:research", id="a kind in capitals"),
        pytest.param("team", id="a team without an id"),
        pytest.param("global:a", id="more than all"),
        pytest.param("global:", id="all, with an empty id"),
        pytest.param("team:a/b", id="a team with two ids"),
        pytest.param("member:research", id="a member of nothing"),
        pytest.param("member:a/b/c", id="a member with three ids"),
        pytest.param(f"team:{'x' * (SCOPE_ID_BYTES_MAX + 1)}", id="an id that is too long"),
    ],
)
def test_a_text_that_is_no_scope(text: str) -> None:
    """What no scope would write is refused, alone and in a key."""
    with pytest.raises(ValueError, match=r"."):
        Scope.parse(text)
    with pytest.raises(ValueError, match=r"."):
        Counter.parse(f"{text}|lifetime")


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="nothing"),
        pytest.param("team:a", id="no window"),
        pytest.param("team:a|1mo", id="a window without its bounds"),
        pytest.param("team:a|1mo|1788000000000", id="a window without its end"),
        pytest.param("team:a|1mo|now|later", id="bounds that are no numbers"),
        pytest.param("team:a|1mo||", id="empty bounds"),
        pytest.param("team:a|1mo|1|2|3", id="three bounds"),
        pytest.param("team:a|1mo|1| 2", id="a blank"),
        pytest.param("team:a|1mo|+1|2_0", id="numbers in another spelling"),
        pytest.param("team:a|lifetime|1|2", id="a lifetime with an end"),
        pytest.param("team:a b|lifetime", id="an id that is not encoded"),
        pytest.param("team:%61|lifetime", id="an id in another spelling"),
    ],
)
def test_a_text_that_is_no_key(key: str) -> None:
    """A key is one text exactly: two spellings would be two counters in a store, and one here."""
    with pytest.raises(ValueError, match=r"."):
        Counter.parse(key)


@given(st.one_of(st.text(), st.from_regex(r"(team|member|global):?[a|/%: 0-9-]{0,12}\|(lifetime|1d\|[0-9]+\|[0-9]+)?")))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever stands there, it is the key of the counter that it gives, or it is a ValueError."""
    try:
        counter = Counter.parse(text)
    except ValueError:
        return

    assert text == counter.key


@pytest.mark.parametrize("kind", [ScopeKind.TEAM, ScopeKind.MEMBER])
def test_ids_are_bounded(kind: ScopeKind) -> None:
    """An id has a maximum in bytes, whichever place of a scope it stands in."""
    fits = "ü" * (SCOPE_ID_BYTES_MAX // 2)
    ids = ("a",) * (kind is ScopeKind.MEMBER)

    assert (*ids, fits) == Scope(kind, (*ids, fits)).ids
    with pytest.raises(ValueError, match="longer than 256 bytes"):
        Scope(kind, (*ids, f"{fits}x"))


@given(
    limit=st.integers(0, AMOUNT_NANOUSD_MAX),
    amount=st.integers(0, AMOUNT_NANOUSD_MAX),
    until_ms=st.integers(0, 2**42),
    distance_ms=st.sampled_from([0, 1]) | st.integers(0, 2**42),
)
def test_an_increase_ends_to_the_millisecond(limit: int, amount: int, until_ms: int, distance_ms: int) -> None:
    """Before its end the limit is so much higher, from then on what it was, and nothing else ever changes."""
    plain = Budget(limit, WindowRule(), strict=True, soft_limit=7)
    increased = replace(plain, increase=Increase(amount, until_ms))

    assert replace(plain, limit=limit + amount) == increased.at(until_ms - 1 - distance_ms)
    assert plain == increased.at(until_ms + distance_ms)
    assert plain is plain.at(until_ms)
