"""The credentials in a request's headers."""

from hashlib import sha256

import pytest

from extauthz.domain.claimed import Claimed
from extauthz.domain.credentials import (
    KEY_BYTES_MAX,
    AmbiguousCredential,
    Credential,
    TrustedHeaders,
    UnusableCredential,
    credential_of,
    has_key_elsewhere,
    trusted_of,
)

KEY = Credential(sha256(b"sk-1").hexdigest())
Headers = dict[str, tuple[str, ...]]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"authorization": ("Bearer sk-1",)}, id="bearer"),
        pytest.param({"authorization": ("bEARER  sk-1 ",)}, id="scheme in any case"),
        pytest.param({"x-api-key": ("sk-1",)}, id="x-api-key"),
        pytest.param({"x-litellm-api-key": ("sk-1",)}, id="LiteLLM's own"),
        pytest.param({"x-litellm-api-key": ("Bearer sk-1",)}, id="LiteLLM's own, with the scheme"),
        pytest.param({"x-goog-api-key": ("sk-1",)}, id="Google's"),
        pytest.param({"api-key": (" sk-1",)}, id="api-key"),
        pytest.param({"authorization": ("Bearer sk-1",), "x-api-key": ("sk-1",)}, id="the same twice"),
        pytest.param({"authorization": ("Bearer ",), "api-key": ("sk-1",)}, id="beside an empty one"),
        pytest.param({"authorization": ("Basic dTpw",), "api-key": ("sk-1",)}, id="beside another scheme"),
    ],
)
def test_a_key_is_found(headers: Headers) -> None:
    """A key is taken from three headers, and only its SHA-256 is kept."""
    found = credential_of(headers)

    assert found == KEY
    assert "sk-1" not in repr(found)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"authorization": ("",), "x-api-key": ("",)}, id="empty headers"),
        pytest.param({"authorization": ("Bearer",)}, id="no key"),
    ],
)
def test_no_key(headers: Headers) -> None:
    """Where nothing is said, nobody asks."""
    assert credential_of(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"authorization": ("Basic dTpw",)}, id="another scheme"),
        pytest.param({"authorization": ("sk-1",)}, id="no scheme"),
        pytest.param({"x-api-key": ("k" * (KEY_BYTES_MAX + 1),)}, id="too long"),
    ],
)
def test_no_key_of_ours(headers: Headers) -> None:
    """Whoever sends something that cannot be a key is refused, and not taken for nobody."""
    assert isinstance(credential_of(headers), UnusableCredential)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"authorization": ("Bearer sk-1",), "x-api-key": ("sk-2",)}, id="two places"),
        pytest.param(
            {"authorization": ("Bearer sk-1",), "x-litellm-api-key": ("sk-2",)}, id="LiteLLM would obey another"
        ),
        pytest.param({"x-api-key": ("sk-1",), "api-key": ("sk-2",)}, id="two other places"),
        pytest.param({"authorization": ("Bearer sk-1", "Bearer sk-2")}, id="one header twice"),
        pytest.param({"authorization": ("Bearer sk-1", "Bearer sk-1")}, id="one header twice with the same"),
        pytest.param({"authorization": ("Bearer sk-1,Bearer sk-2",)}, id="joined by Envoy"),
        pytest.param({"api-key": ("sk-1, sk-1",)}, id="api-key joined by Envoy"),
        pytest.param({"authorization": ("Basic dTpw", "Bearer sk-1")}, id="another scheme first"),
    ],
)
def test_ambiguous_keys(headers: Headers) -> None:
    """Two keys are refused with a reason that repeats neither."""
    found = credential_of(headers)

    assert isinstance(found, AmbiguousCredential)
    assert "sk-" not in found.message


def test_the_longest_key_is_a_key() -> None:
    """The limit itself is still allowed."""
    assert isinstance(credential_of({"api-key": ("k" * KEY_BYTES_MAX,)}), Credential)


@pytest.mark.parametrize(
    ("text", "is_token"),
    [
        ("aa.bb.cc", True),
        ("aa.bb.", True),
        ("aa.bb.cc.dd.ee", True),
        ("a" * 5000 + ".b.c", True),
        ("aa.bb", False),
        ("aa.bb.cc.dd", False),
        ("aa.b b.cc", False),
        ("aa.bb.c+", False),
        ("aa.bb.cé", False),
        (".bb.cc", False),
    ],
)
def test_what_is_written_as_a_token(text: str, is_token: bool) -> None:  # noqa: FBT001 - a column of the table
    """Three or five parts of base64url may be a token; it is kept out of what is printed."""
    found = credential_of({"x-api-key": (text,)})

    assert isinstance(found, Credential)
    assert (text if is_token else None) == found.token
    assert text not in repr(found)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models", False),
        ("/v1?key=AIza", True),
        ("/v1?a=b&key=", True),
        ("/v1?%6bey=x", True),
        ("/key", False),
        ("/v1?api-key=x", True),
    ],
)
def test_a_key_in_the_query(path: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    """Whoever writes a key into the path is not nobody."""
    assert expected == has_key_elsewhere(path, {})


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        (("realtime",), False),
        (("realtime, OpenAI-insecure-API-key.sk-x",), True),
        (
            (
                "a",
                "openai-insecure-api-key.",
            ),
            True,
        ),
    ],
)
def test_a_key_in_the_protocols(protocols: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001 - a column of the table
    """Nor is a browser that opens a WebSocket with a key of the upstream's."""
    assert expected == has_key_elsewhere("/v1/realtime", {"sec-websocket-protocol": protocols})


TRUSTED = TrustedHeaders(user="x-user", team="x-team", end_user="x-customer")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-user": ("",)}, None),
        ({"x-customer": ("dora",)}, None),
        ({"x-organization": ("acme",)}, None),
        ({"x-user": (" ana ",)}, Claimed(user="ana")),
        ({"x-user": ("ana",), "x-team": ("research",)}, Claimed("ana", "research")),
        ({"x-team": ("research",), "x-customer": ("dora",)}, Claimed(team="research", end_user="dora")),
    ],
)
def test_what_an_earlier_filter_says(headers: Headers, expected: Claimed | None) -> None:
    """The configured headers name payers; an end user alone pays for nobody."""
    assert expected == trusted_of(headers, TRUSTED)


@pytest.mark.parametrize("values", [("ana", "ben"), ("ana", "ana"), ("ana,ben",), ("a" * 257,)])
def test_an_earlier_filter_says_one_thing(values: tuple[str, ...]) -> None:
    """A header that stands there twice was not written by one filter alone."""
    assert isinstance(trusted_of({"x-user": values}, TRUSTED), AmbiguousCredential)
