"""The end user of a request: LiteLLM's order, from a header to the last place in the body."""

import pytest

from extauthz.domain.end_users import UnclearEndUser, end_user_in, end_user_of

Headers = dict[str, tuple[str, ...]]


@pytest.mark.parametrize(
    ("headers", "end_user"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"x-litellm-end-user-id": ("ana",)}, "ana", id="end user"),
        pytest.param(
            {"x-litellm-customer-id": ("acme",), "x-litellm-end-user-id": ("ana",)}, "acme", id="customer first"
        ),
        pytest.param({"x-openwebui-user-email": (" ana@x.org",)}, "ana@x.org", id="the operator's header"),
        pytest.param({"x-litellm-end-user-id": ("ana",), "x-openwebui-user-email": ("bo",)}, "ana", id="it comes last"),
        pytest.param({"x-litellm-customer-id": ("",), "x-openwebui-user-email": ("bo",)}, "bo", id="empty is absent"),
        pytest.param({"x-litellm-customer-id": ("ana", "ana")}, "ana", id="the same twice"),
        pytest.param({"x-litellm-customer-id": ("é" * 128,)}, "é" * 128, id="256 bytes"),
    ],
)
def test_end_user(headers: Headers, end_user: str | None) -> None:
    """The first header of LiteLLM's order that names an end user counts."""
    assert end_user == end_user_of(headers, ["X-OpenWebUI-User-Email"])


def test_an_end_user_header_must_be_configured() -> None:
    """Nobody's own header counts unless the operator says so."""
    assert end_user_of({"x-openwebui-user-email": ("ana",)}) is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(("ana", "bo"), id="two"),
        pytest.param(("ana,bo",), id="joined by Envoy"),
        pytest.param(("é" * 128 + "a",), id="257 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["x-litellm-customer-id", "x-litellm-end-user-id", "x-user"])
def test_ambiguous_end_user(name: str, values: tuple[str, ...]) -> None:
    """A header with two end users, or with one that fits no scope, is refused."""
    assert isinstance(end_user_of({name: values}, ["X-User"]), UnclearEndUser)


def test_the_operators_headers_in_their_order() -> None:
    """Of several headers of the operator's, the first that names somebody counts."""
    headers = {"x-second": ("ben",), "x-third": ("cleo",)}

    assert end_user_of(headers, ["x-first", "x-second", "x-third"]) == "ben"


# Each names the one before it away; see LiteLLM's documentation, "Customers / end-users".
PLACES = (
    ({"safety_identifier": "last"}, "last"),
    ({"metadata": {"user_id": "third"}}, "third"),
    ({"litellm_metadata": {"user": "second"}}, "second"),
    ({"user": "first"}, "first"),
)


def test_the_order_in_a_body() -> None:
    """Place by place, from the last to the first, each goes before what was there."""
    body: dict[str, object] = {}
    for more, expected in PLACES:
        body |= more
        assert end_user_in(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, None),
        ({"user": None, "metadata": None}, None),
        ({"user": "", "safety_identifier": "x"}, "x"),
        ({"metadata": "text", "safety_identifier": "x"}, "x"),
        ({"metadata": {"user_id": 42}}, "42"),
        ({"metadata": {"user": "not here"}}, None),
        ({"user": "é" * 128}, "é" * 128),
    ],
)
def test_a_body(body: dict[str, object], expected: str | None) -> None:
    """What is empty, or no object, names nobody; a number is a name, as in LiteLLM."""
    assert expected == end_user_in(body)


@pytest.mark.parametrize(
    "body",
    [
        {"user": "é" * 128 + "a"},
        {"user": 42},
        {"user": ["ana"]},
        {"metadata": {"user_id": {"id": "ana"}}},
        {"metadata": {"user_id": True}},
        {"safety_identifier": "a" * 257},
    ],
)
def test_an_unclear_body(body: dict[str, object]) -> None:
    """An end user that fits no scope is refused, and not left out."""
    assert isinstance(end_user_in(body), UnclearEndUser)
