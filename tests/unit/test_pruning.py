"""Model lists of upstreams with only what may be seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.listings import Listing, Page, Shape
from extauthz.domain.model_lists import model_list
from extauthz.domain.pruning import prune

FREE = ("local-llama", "team/free", "open/*")
PAID = ("gpt-4o", "o3", "openai/*", "model_name_team-1_5f8e")

OPENAI, ANTHROPIC = Listing(), Listing(shape=Shape.ANTHROPIC)


def visible(name: str) -> bool:
    """Tell the free models of these tests."""
    return name in FREE


def pruned(document: object, listing: Listing = OPENAI, visible: Callable[[str], bool] = visible) -> dict[str, Any]:
    """Prune a document, and read what is left."""
    answer: dict[str, Any] = json.loads(prune(json.dumps(document).encode(), listing, visible))
    return answer


# ------------------------------------------------------------------------------------------------------- the shapes


@dataclass(frozen=True, slots=True)
class Way:
    """A way to write a list: an entry with a name, and the document around entries, given the visible ones' names."""

    listing: Listing
    entry: Callable[[str], dict[str, Any]]
    around: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __str__(self) -> str:
        return self.listing.shape


def _data(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": entries}


def _anthropic(entries: list[dict[str, Any]]) -> dict[str, Any]:
    names = [entry["id"] for entry in entries]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"data": entries, "has_more": False, **ends}


def _pages(entries: list[dict[str, Any]]) -> dict[str, Any]:
    totals = {"total_count": len(entries), "current_page": 1, "total_pages": 1 if entries else 0, "size": 50}
    return {"data": entries, **totals}


def _row(name: str) -> dict[str, Any]:
    return {
        "model_name": name,
        "litellm_params": {"model": "openai/llama", "input_cost_per_token": 2.5e-06},
        "model_info": {"id": "d43c", "db_model": False, "max_tokens": None, "cost_per_second": 12345678901234567890},
    }


WAYS = (
    Way(
        OPENAI,
        lambda name: {"id": name, "object": "model", "created": 1, "owned_by": "us", "max_model_len": 8192},
        lambda entries: {"object": "list", "data": entries},
    ),
    Way(
        ANTHROPIC,
        lambda name: {"type": "model", "id": name, "display_name": name, "created_at": "2025-02-19T00:00:00Z"},
        _anthropic,
    ),
    Way(
        Listing(shape=Shape.CODEX),
        lambda name: {"slug": name, "display_name": name, "upgrade": None, "base_instructions": "Be precise."},
        lambda entries: {"models": entries},
    ),
    Way(
        Listing(shape=Shape.OLLAMA),
        lambda name: {"name": name, "model": name, "size": 7, "details": {"families": ["llama"]}},
        lambda entries: {"models": entries},
    ),
    Way(Listing(shape=Shape.DEPLOYMENTS), _row, _data),
    Way(Listing(shape=Shape.DEPLOYMENT_PAGES, page=Page(50)), _row, _pages),
    Way(
        Listing(shape=Shape.GROUPS),
        lambda name: {"model_group": name, "providers": ["openai"], "input_cost_per_token": 1e-05, "mode": None},
        _data,
    ),
)
in_each_way = pytest.mark.parametrize("way", WAYS, ids=str)


def test_every_shape_is_in_the_table() -> None:
    """A shape that nobody tries here would be tried by clients."""
    assert set(Shape) == {way.listing.shape for way in WAYS}


@in_each_way
def test_only_visible_models_stay_and_they_stay_as_they_were(way: Way) -> None:
    """An entry that may be seen keeps every field that the upstream gave it, and what counts entries counts these."""
    everything = way.around([way.entry(name) for name in ("gpt-4o", "team/free", "o3", "local-llama", "openai/*")])

    assert way.around([way.entry("team/free"), way.entry("local-llama")]) == pruned(everything, way.listing)


@in_each_way
def test_a_list_of_paid_models_alone_is_an_empty_one(way: Way) -> None:
    """Nothing is left of it, and nothing tells that something was there."""
    expected = way.around([])

    assert expected == pruned(way.around([way.entry(name) for name in PAID]), way.listing)
    assert expected == json.loads(model_list(way.listing, ()))


@in_each_way
def test_every_deployment_of_a_visible_model_stays(way: Way) -> None:
    """A name may stand in several entries: each is judged by itself."""
    twice = way.around([way.entry(name) for name in ("local-llama", "gpt-4o", "local-llama")])

    assert way.around([way.entry("local-llama")] * 2) == pruned(twice, way.listing)


@in_each_way
@pytest.mark.parametrize("name", [None, 7, ["local-llama"], {"local-llama": 1}, True, "", "LOCAL-LLAMA", "gpt-4o "])
def test_an_entry_without_a_visible_name_goes(way: Way, name: object) -> None:
    """A name is text, and exactly the one that may be seen."""
    entries = [way.entry("local-llama"), json.loads(json.dumps(way.entry("?")).replace('"?"', json.dumps(name)))]

    assert way.around(entries[:1]) == pruned({**way.around(entries[:1]), **_lists(way, entries)}, way.listing)


def _lists(way: Way, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the list of a way alone, whatever its entries are called."""
    key = next(key for key, value in way.around([]).items() if value == [])
    return {key: entries}


@in_each_way
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>gpt-4o</html>", id="not JSON"),
        pytest.param(b'["gpt-4o"]', id="not an object"),
        pytest.param(b'{"list":[{"id":"gpt-4o","slug":"gpt-4o"}]}', id="no list"),
        pytest.param(b'{"data":{"id":"gpt-4o"},"models":{"slug":"gpt-4o"}}', id="one model"),
        pytest.param(b'{"data":[{"id":"local-llama"}],"data":[{"id":"gpt-4o"}]}', id="data twice"),
        pytest.param(b'{"data":[{"id":"local-llama","id":"gpt-4o"}]}', id="id twice"),
        pytest.param(b'{"data":[{"id":"gpt-4o"}]', id="cut off"),
        pytest.param(b'{"data":[NaN]}', id="not a number"),
        pytest.param(b"\x1f\x8b\x08\x00gpt-4o", id="compressed"),
        pytest.param(b'{"data":[{"id":"\xff"}]}', id="not UTF-8"),
        pytest.param(b'{"data":[{"id":"\\ud800"}]}', id="half a character"),
        pytest.param(b"[" * 5000, id="too deep"),
    ],
)
def test_what_cannot_be_understood_becomes_an_empty_list(way: Way, body: bytes) -> None:
    """Nothing is ever passed through unread; the client gets the shape that it asked for."""
    assert way.around([]) == json.loads(prune(body, way.listing, visible))


@in_each_way
def test_fields_beside_the_list_do_not_tell_of_hidden_models(way: Way) -> None:
    """A field that is not known could name paid models, so it goes."""
    document = {**way.around([]), "fallbacks": ["gpt-4o"], "object": "gpt-4o", "default": {"gpt-4o": 1}}

    assert b"gpt-4o" not in prune(json.dumps(document).encode(), way.listing, visible)


# ---------------------------------------------------------------------------------------- what is special to a shape


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ({"metadata": {"fallbacks": ["gpt-4o", "team/free"]}}, {"metadata": {"fallbacks": ["team/free"]}}),
        ({"context_window_fallbacks": [{"local-llama": ["gpt-4o"]}]}, {"context_window_fallbacks": []}),
        ({"context_window_fallback_dict": {"gpt-4o": "team/free"}}, {"context_window_fallback_dict": None}),
        ({"litellm_params": {"fallbacks": "gpt-4o"}}, {"litellm_params": {"fallbacks": None}}),
        ({"upgrade": {"model": "gpt-4o", "notice": 1}}, {"upgrade": None}),
        ({"parent": "gpt-4o", "root": "local-llama"}, {"parent": None, "root": "local-llama"}),
        ({"supports_fallbacks": True, "parent": None}, {"supports_fallbacks": True, "parent": None}),
        ({"more": [{"fallbacks": ["team/free"]}]}, {"more": [{"fallbacks": ["team/free"]}]}),
        ({"tiers": [{"default_fallbacks": ["o3"]}]}, {"tiers": [{"default_fallbacks": []}]}),
    ],
)
def test_a_visible_model_does_not_tell_of_hidden_ones(told: dict[str, Any], left: dict[str, Any]) -> None:
    """What an entry falls back to, comes from or should be replaced by is named only if it may be seen itself."""
    document = {"data": [{"id": "local-llama", **told}]}

    assert {"data": [{"id": "local-llama", **left}]} == pruned(document)


def test_an_upstream_that_does_not_know_codex_answers_in_openais_shape() -> None:
    """Its list is pruned as what it is."""
    document = {"object": "list", "data": [{"id": "gpt-4o"}, {"id": "local-llama"}]}

    assert {"object": "list", "data": [{"id": "local-llama"}]} == pruned(document, Listing(shape=Shape.CODEX))


def test_codexs_list_is_judged_by_its_slugs() -> None:
    """An `id` or a list of the other shape beside them changes nothing."""
    document = {"models": [{"slug": "gpt-4o", "id": "local-llama"}], "data": [{"id": "gpt-4o"}]}

    assert {"models": []} == pruned(document, Listing(shape=Shape.CODEX))


def test_both_names_of_ollama_must_be_visible() -> None:
    """Clients take either."""
    entries = [{"name": "local-llama", "model": "gpt-4o"}, {"name": "gpt-4o", "model": "local-llama"}]

    assert {"models": []} == pruned({"models": entries}, Listing(shape=Shape.OLLAMA))
    assert {"models": [{"name": "local-llama"}]} == pruned(
        {"models": [{"name": "local-llama"}, {"model": "local-llama"}]}, Listing(shape=Shape.OLLAMA)
    )


@pytest.mark.parametrize(("name", "left"), [("local-llama", _row("local-llama")), ("gpt-4o", []), ("*", [])])
def test_litellm_with_one_model_for_all_names_answers_one_row(name: str, left: object) -> None:
    """With `user_model` set, `data` is a row and no list: it stays one, or the list is empty."""
    assert {"data": left} == pruned({"data": _row(name)}, Listing(shape=Shape.DEPLOYMENTS))


@pytest.mark.parametrize(
    ("page", "shown", "total_pages"),
    [
        (Page(2, 1), [0, 1], 3),
        (Page(2, 2), [2, 3], 3),
        (Page(2, 3), [4], 3),
        (Page(2, 4), [], 3),
        (Page(50, 1), [0, 1, 2, 3, 4], 1),
        (Page(999_999_999, 999_999_999), [], 1),
    ],
)
def test_pages_are_cut_after_pruning(page: Page, shown: list[int], total_pages: int) -> None:
    """The upstream was asked for all rows; pages and totals count the visible ones, whatever it counted itself."""
    free = [{"model_name": "local-llama", "row": row} for row in range(5)]
    rows = [row for each in free for row in ({"model_name": "gpt-4o"}, each)]
    document = {"data": rows, "total_count": 10, "current_page": 1, "total_pages": 1, "size": 10_000}
    totals = {"total_count": 5, "current_page": page.number, "total_pages": total_pages, "size": page.size}

    assert {"data": [free[row] for row in shown], **totals} == pruned(
        document, Listing(shape=Shape.DEPLOYMENT_PAGES, page=page)
    )


@pytest.mark.parametrize(
    ("page", "more", "shown", "has_more"),
    [
        (None, False, ["a", "b", "c"], False),
        (None, True, ["a", "b", "c"], True),
        (Page(2), False, ["a", "b"], True),
        (Page(3), False, ["a", "b", "c"], False),
        (Page(2, last=True), False, ["b", "c"], True),
    ],
)
def test_anthropics_limit_counts_visible_models(
    page: Page | None,
    more: bool,  # noqa: FBT001 - a column of the table
    shown: list[str],
    has_more: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """A client that goes on from `last_id` misses nothing: what `limit` leaves out is still to come."""
    data = [{"id": name} for name in ("gpt-4o", "a", "o3", "b", "c")]
    document = {"data": data, "has_more": more, "first_id": "gpt-4o", "last_id": "c"}

    answer = pruned(document, replace(ANTHROPIC, page=page), lambda name: len(name) == 1)

    assert shown == [entry["id"] for entry in answer["data"]]
    assert (has_more, shown[0], shown[-1]) == (answer["has_more"], answer["first_id"], answer["last_id"])


def test_nothing_follows_a_page_without_models() -> None:
    """A client asks for the next page by the last model's name, and there is none."""
    document = {"data": [{"id": "gpt-4o"}], "has_more": True, "first_id": "gpt-4o", "last_id": "gpt-4o"}

    assert {"data": [], "has_more": False, "first_id": None, "last_id": None} == pruned(document, ANTHROPIC)


# --------------------------------------------------------------------------------------------------------- any list

WORDS = st.sampled_from(
    ["fallbacks", "metadata", "parent", "upgrade", "root", "data", "models", "x", "default_fallbacks"]
)
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
)
NAMES = st.sampled_from([*FREE, *PAID])
# Whatever stands where an entry names other models.
LED = st.recursive(NAMES | PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2))
LEADING = st.sampled_from(["fallbacks", "content_policy_fallbacks", "default_fallbacks", "parent", "root", "upgrade"])
BESIDE = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metadata", "x", "litellm_params"]), inner, max_size=2)
        | st.dictionaries(LEADING, LED, max_size=2)
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Way, object]:
    """Write a list, and spoil some of it: entries, names and what stands around the list."""
    way = draw(st.sampled_from(WAYS))
    entries: list[Any] = []
    for _ in range(draw(st.integers(0, 5))):
        entry = way.entry(draw(NAMES))
        entry |= draw(st.dictionaries(LEADING, LED, max_size=2))
        entry |= draw(st.dictionaries(st.sampled_from(["metadata", "x"]), BESIDE, max_size=2))
        for key in draw(st.sets(st.sampled_from(sorted(entry)), max_size=2)):
            entry[key] = draw(LED) if key in entry and isinstance(entry[key], str) else draw(BESIDE)
        entries.append(draw(st.sampled_from([entry, [entry], entry, entry, None])))
    whole = way.around([entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)])
    document: Any = {**whole, **_lists(way, entries)}
    document |= draw(st.dictionaries(WORDS, LED, max_size=1))
    return way, draw(st.sampled_from([document, document, document, [document], {"data": document}]))


def names_shown(way: Way, answer: dict[str, Any]) -> list[str]:
    """List the names of the entries of an answer, by which a client would choose."""
    entries = answer["data" if "data" in answer else "models"]
    keys = ("id", "slug", "name", "model", "model_name", "model_group")
    rows = entries if isinstance(entries, list) else [entries]
    return [entry[key] for entry in rows for key in keys if key in entry]


@given(damaged())
def test_no_damage_lets_a_paid_model_through(case: tuple[Way, object]) -> None:
    """Whatever is wrong with a list, what comes out is a list of visible models only."""
    way, document = case
    answer = json.loads(prune(json.dumps(document).encode(), way.listing, visible))

    assert set(names_shown(way, answer)) <= set(FREE)


def _texts(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for each in value for text in _texts(each)]
        case dict():
            return [*value, *(text for each in value.values() for text in _texts(each))]
        case _:
            return []


@given(st.sampled_from(WAYS), st.lists(st.tuples(NAMES, st.dictionaries(LEADING, LED, max_size=2), BESIDE), max_size=5))
def test_no_word_of_a_list_names_a_paid_model(
    way: Way, given_entries: list[tuple[str, dict[str, Any], object]]
) -> None:
    """Where entries name others in the ways that are known, at any depth, no paid name is left anywhere."""
    entries = [{**way.entry(name), **leading, "metadata": more} for name, leading, more in given_entries]
    answer = json.loads(prune(json.dumps({**way.around([]), **_lists(way, entries)}).encode(), way.listing, visible))

    assert set(PAID).isdisjoint(_texts(answer))


@given(st.sampled_from(WAYS), st.binary(max_size=200))
def test_no_body_raises(way: Way, body: bytes) -> None:
    """Whatever an upstream sends, a list comes out."""
    assert isinstance(json.loads(prune(body, way.listing, visible)), dict)


@given(st.sampled_from(WAYS), st.lists(st.text(max_size=12)))
def test_a_list_of_any_names_holds_visible_ones_only(way: Way, names: list[str]) -> None:
    """No list of any names lets a paid one through, and none loses a visible one."""
    everything = way.around([way.entry(name) for name in [*names, "local-llama"]])

    shown = names_shown(way, pruned(everything, way.listing))

    assert "local-llama" in shown
    assert set(shown) <= set(FREE)
