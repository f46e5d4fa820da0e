"""Texts with holes: what is read out of one, and put into another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.claimed import Claimed, PayerRule, by_rules, with_team
from extauthz.domain.templates import Template

ACCOUNT = "system:serviceaccount:{namespace}:{name}"
SPIFFE = "spiffe://cluster.local/ns/{namespace}/sa/{name}"


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("plain", "plain", {}),
        ("plain", "plain ", None),
        ("plain", "Plain", None),
        ("{all}", "anything", {"all": "anything"}),
        ("{all}", "", None),
        ("{all}", "a/b", None),
        (ACCOUNT, "system:serviceaccount:research:notebook", {"namespace": "research", "name": "notebook"}),
        (ACCOUNT, "system:serviceaccount:research:a:b", None),
        (ACCOUNT, "system:serviceaccount::b", None),
        (SPIFFE, "spiffe://cluster.local/ns/a/sa/b", {"namespace": "a", "name": "b"}),
        (SPIFFE, "spiffe://cluster.local/ns/a/sa/b/c", None),
        (SPIFFE, "spiffe://cluster.local.evil/ns/a/sa/b", None),
        ("{user}@example.com", "ana@example.com", {"user": "ana"}),
        ("{user}@example.com", "ana@evil.com@example.com", None),
        ("{user}@example.com", "ana@example.com.evil", None),
        ("{a}-{b}", "x-y", {"a": "x", "b": "y"}),
        ("{a}-{b}", "x-y-z", {"a": "x", "b": "y-z"}),
        ("CN={user},O={team}", "CN=ana,O=research", {"user": "ana", "team": "research"}),
    ],
)
def test_what_stands_in_the_holes(template: str, text: str, expected: dict[str, str] | None) -> None:
    """A hole ends where the text behind it begins, and nothing may be left over."""
    assert expected == Template.parse(template).read(text)


@pytest.mark.parametrize("template", ["{a}{b}", "{a}-{a}", "{", "}", "{A}", "{}", "{a", "a}", "{a b}", "{{a}}"])
def test_what_is_no_template(template: str) -> None:
    """What could be read in two ways, or not at all, is refused in a sentence."""
    with pytest.raises(ValueError, match="`"):
        Template.parse(template)


names = st.text(st.characters(exclude_characters="/:-"), min_size=1)


@given(names, names, st.text())
def test_reading_is_the_reverse_of_filling(first: str, second: str, other: str) -> None:
    """Whatever the names are, they come out as they went in; any text is read or is another one."""
    template = Template.parse("x:{a}-{b}/y")

    assert {"a": first, "b": second} == template.read(template.filled({"a": first, "b": second}))
    found = template.read(other)
    assert found is None or other == template.filled(found)


def rule(subject: str, **payers: str) -> PayerRule:
    """Write a rule."""
    return PayerRule(Template.parse(subject), **{kind: Template.parse(text) for kind, text in payers.items()})


RULES = (
    rule(ACCOUNT.replace("{namespace}", "research"), user="{name}", team="science"),
    rule(ACCOUNT, team="{namespace}", organization="all"),
)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("system:serviceaccount:research:ana", Claimed("ana", "science")),
        ("system:serviceaccount:kitchen:ana", Claimed(None, "kitchen", "all")),
        ("system:node:a", None),
        (f"system:serviceaccount:{'n' * 257}:a", None),
    ],
)
def test_the_first_rule_that_fits(subject: str, expected: Claimed | None) -> None:
    """The narrower rule stands first; an id that fits no scope is nobody."""
    assert expected == by_rules(subject, RULES)


LISTED = ("kitchen", "research", "garden")


@pytest.mark.parametrize(
    ("claimed", "chosen", "expected"),
    [
        (Claimed(teams=("garden", "research", "unlisted")), None, "research"),
        (Claimed(teams=("garden", "research")), "garden", "garden"),
        (Claimed(teams=("unlisted",)), None, None),
        (Claimed(team="garden", teams=("kitchen",)), None, "garden"),
        (Claimed(team="garden", teams=("kitchen",)), "kitchen", "kitchen"),
        (Claimed("ana"), None, None),
    ],
)
def test_which_team_pays(claimed: Claimed, chosen: str | None, expected: str | None) -> None:
    """The one that the request chose among those of its token, else the first in the configuration's order."""
    settled = with_team(claimed, chosen, LISTED)

    assert settled is not None
    assert expected == settled.team


@pytest.mark.parametrize("claimed", [Claimed(teams=("garden",)), Claimed("ana"), Claimed(team="garden")])
def test_a_team_of_others_cannot_be_chosen(claimed: Claimed) -> None:
    """What the token does not name, the request cannot have."""
    assert with_team(claimed, "kitchen", LISTED) is None
