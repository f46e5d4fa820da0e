"""The tags that a request gives itself, where LiteLLM looks for them. They add to who pays, and never take away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from extauthz.domain.claimed import fits_a_scope

HEADER = "x-litellm-tags"

# Where a body may have a list of them: a key, or a key in an object.
BODY: tuple[tuple[str, ...], ...] = (("metadata", "tags"), ("litellm_metadata", "tags"), ("tags",))
_KEYS = frozenset(path[0] for path in BODY)

# A request with more is refused: which of them would count depends on who reads it.
TAGS_MAX = 16
# So many are looked at, to find different ones.
_LOOKED_AT_MAX = 1000
TOO_MANY = f"Send at most {TAGS_MAX} tags with a request."


def tags_of(headers: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Find the tags in the headers; one more than TAGS_MAX where there are more."""
    if HEADER not in headers:
        return ()
    return _some(name.strip() for value in headers[HEADER] for name in value.split(","))


def tags_in(document: Mapping[str, object]) -> tuple[str, ...]:
    """Find the tags in a body; one more than TAGS_MAX where there are more. What is no list, or no text, is no tag."""
    if _KEYS.isdisjoint(document):
        return ()
    return _some(chain.from_iterable(_at(document, path) for path in BODY))


def _some(names: Iterator[str]) -> tuple[str, ...]:
    distinct = dict.fromkeys(name for name in islice(names, _LOOKED_AT_MAX) if fits_a_scope(name))
    return tuple(islice(distinct, TAGS_MAX + 1))


def _at(document: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    *outer, last = path
    value: object = document
    for step in outer:
        value = value.get(step) if isinstance(value, dict) else None
    listed = value.get(last) if isinstance(value, Mapping) else None
    return (name for name in listed if isinstance(name, str)) if isinstance(listed, list) else iter(())
