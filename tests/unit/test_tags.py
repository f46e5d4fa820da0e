"""The tags that a request gives itself: where they are looked for, and how many of them."""

from __future__ import annotations

import json

import pytest

from extauthz.domain.ask import Ask
from extauthz.domain.body import read_ask
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.tags import TAGS_MAX, tags_in, tags_of


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        ((), ()),
        (("night",), ("night",)),
        (("night, day,,night ",), ("night", "day")),
        (("night", "day"), ("night", "day")),
        (("x" * 257,), ()),
    ],
    ids=["none", "one", "several", "several headers", "longer than any id"],
)
def test_headers(values: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """A header has several with commas between, each once; what cannot be the name of a tag is none."""
    assert tags_of({"x-litellm-tags": values}) == tags


@pytest.mark.parametrize(
    ("document", "tags"),
    [
        ({}, ()),
        ({"metadata": {"tags": ["a"]}, "litellm_metadata": {"tags": ["b", "a"]}, "tags": ["c"]}, ("a", "b", "c")),
        ({"metadata": "text", "litellm_metadata": ["list"], "tags": "a"}, ()),
        ({"tags": ["a", 1, None, ["b"], {"c": 1}, ""]}, ("a",)),
    ],
    ids=["none", "everywhere", "other shapes", "other entries"],
)
def test_bodies(document: dict[str, object], tags: tuple[str, ...]) -> None:
    """All places of a body count, and what is no list, or no text, is no tag."""
    assert tags_in(document) == tags


def test_too_many() -> None:
    """Of too many, one more than there may be is enough to know; and no list is looked through to its end."""
    names = [f"t{number}" for number in range(100_000)]

    assert len(tags_of({"x-litellm-tags": (",".join(names),)})) == TAGS_MAX + 1
    assert len(tags_in({"tags": names})) == TAGS_MAX + 1
    assert tags_in({"tags": ["same"] * 100_000}) == ("same",)


def test_of_an_ask() -> None:
    """An ask has the tags of its body."""
    body = json.dumps({"model": "gpt-4o", "messages": [], "metadata": {"tags": ["night"]}}).encode()
    ask = read_ask(
        body,
        truncated=False,
        endpoint=Endpoint.CHAT_COMPLETIONS,
        content_type="application/json",
        model_required=True,
    )

    assert isinstance(ask, Ask)
    assert ask.tags == ("night",)
