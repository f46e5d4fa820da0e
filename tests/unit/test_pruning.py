"""Model lists with only what may be seen."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.pruning import model_list, prune

FREE = {"local-llama", "team/free"}
EMPTY = {"object": "list", "data": []}


def visible(name: str) -> bool:
    """Tell the free models of these tests."""
    return name in FREE


def test_only_visible_models_stay_and_they_stay_as_they_were() -> None:
    """An entry that may be seen keeps every field that the upstream gave it."""
    free = {"id": "local-llama", "object": "model", "created": 1, "owned_by": "us", "max_model_len": 8192}
    body = json.dumps({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}, free]})

    assert {"object": "list", "data": [free]} == json.loads(prune(body.encode(), visible))


def test_the_ends_of_a_list_name_what_is_left() -> None:
    """`first_id` and `last_id` must not tell of models that are hidden."""
    data = [{"id": "gpt-4o"}, {"id": "team/free"}, {"id": "local-llama"}, {"id": "o3"}]
    body = json.dumps({"data": data, "first_id": "gpt-4o", "last_id": "o3", "has_more": False})

    pruned = json.loads(prune(body.encode(), visible))

    assert {"first_id": "team/free", "last_id": "local-llama", "has_more": False, "data": data[1:3]} == pruned


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>gpt-4o</html>", id="not JSON"),
        pytest.param(b'["gpt-4o"]', id="not an object"),
        pytest.param(b'{"models":[{"id":"gpt-4o"}]}', id="no data"),
        pytest.param(b'{"data":{"id":"gpt-4o"}}', id="data is one model"),
        pytest.param(b'{"data":[{"id":"local-llama"}],"data":[{"id":"gpt-4o"}]}', id="data twice"),
        pytest.param(b'{"data":[{"id":"gpt-4o"}]', id="cut off"),
        pytest.param(b"\x1f\x8b\x08\x00gpt-4o", id="compressed"),
        pytest.param(b"[" * 5000, id="too deep"),
    ],
)
def test_what_cannot_be_understood_becomes_an_empty_list(body: bytes) -> None:
    """Nothing is ever passed through unread."""
    assert json.loads(prune(body, visible)) == EMPTY


def test_fields_beside_the_list_do_not_tell_of_hidden_models() -> None:
    """A field that is not known could name paid models, so it goes."""
    body = json.dumps({"object": "list", "data": [], "fallbacks": ["gpt-4o"]}).encode()

    assert b"gpt-4o" not in prune(body, visible)


@given(st.binary(max_size=200))
def test_no_body_raises(body: bytes) -> None:
    """Whatever an upstream sends, a list comes out."""
    assert isinstance(json.loads(prune(body, visible))["data"], list)


@given(st.lists(st.text(max_size=12)))
def test_a_pruned_list_holds_visible_models_only(names: list[str]) -> None:
    """No list of any names lets a paid one through."""
    body = model_list([*names, "local-llama"])

    assert {entry["id"] for entry in json.loads(prune(body, visible))["data"]} <= FREE
