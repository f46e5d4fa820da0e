"""Patterns of model names, and lists of what may be used."""

import pytest

from extauthz.domain.model_names import allowed, captured, filled, most_specific


@pytest.mark.parametrize(
    ("pattern", "name", "texts"),
    [
        ("gpt-4o", "gpt-4o", ()),
        ("gpt-4o", "gpt-4o-mini", None),
        ("openai/*", "openai/gpt-4o", ("gpt-4o",)),
        ("openai/*", "openai/", ("",)),
        ("openai/*", "azure/gpt-4o", None),
        ("*", "a/b/c", ("a/b/c",)),
        ("*-mini", "gpt-4o-mini", ("gpt-4o",)),
        ("openai/*-4*-mini", "openai/gpt-4o-mini", ("gpt", "o")),
        ("a*a", "a", None),
        ("a*b*a", "aba", ("", "")),
        ("a*ab*b", "aab", None),
        ("a.c", "abc", None),
        ("[a-z]*", "gpt", None),
    ],
)
def test_captured(pattern: str, name: str, texts: tuple[str, ...] | None) -> None:
    """Only `*` is special, and a part of a name is used once."""
    assert texts == captured(pattern, name)


def test_filled() -> None:
    """What one pattern left open goes into another, in order."""
    assert filled("azure/*/v*", ("gpt", "2")) == "azure/gpt/v2"
    assert filled("azure/fixed", ("gpt",)) == "azure/fixed"


def test_most_specific_pattern_wins() -> None:
    """The pattern with the most of its own characters is chosen, wherever its `*` stands."""
    assert most_specific(("*", "openai/*", "*/gpt-4o-mini"), "openai/gpt-4o-mini") == "*/gpt-4o-mini"
    assert most_specific(("openai/*",), "gpt-4o") is None


@pytest.mark.parametrize(
    ("name", "lists", "is_allowed"),
    [
        pytest.param("gpt-4o", (), True, id="no list allows everything"),
        pytest.param("gpt-4o", (("gpt-4o",),), True, id="on the list"),
        pytest.param("gpt-4o", (("llama",),), False, id="not on the list"),
        pytest.param("gpt-4o", (("gpt-4o",), ("llama",)), False, id="must be on every list"),
        pytest.param("gpt-4o", ((), ("gpt-4o",)), True, id="an empty list allows everything"),
        pytest.param("openai/gpt-4o", (("openai/*",),), True, id="a pattern"),
        pytest.param("gpt-4o", (("all-proxy-models",),), True, id="LiteLLM's word for all"),
        pytest.param("gpt-4o", (("all-team-models",), ("llama",)), False, id="all of the team's: its list decides"),
    ],
)
def test_allowed(name: str, lists: tuple[tuple[str, ...], ...], *, is_allowed: bool) -> None:
    """Each list that is written must have the model."""
    assert is_allowed is allowed(name, lists)
