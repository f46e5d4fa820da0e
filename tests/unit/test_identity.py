"""The credential and the end user in a request's headers."""

from hashlib import sha256

import pytest

from extauthz.domain.body import Unreadable
from extauthz.domain.identity import KEY_BYTES_MAX, AmbiguousCredential, Credential, credential_of, end_user_of

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
        pytest.param({"authorization": ("Basic dTpw",)}, id="another scheme"),
        pytest.param({"authorization": ("sk-1",)}, id="no scheme"),
        pytest.param({"authorization": ("Bearer",)}, id="no key"),
        pytest.param({"x-api-key": ("k" * (KEY_BYTES_MAX + 1),)}, id="too long"),
    ],
)
def test_no_key(headers: Headers) -> None:
    """What is no key of ours is none, which leads to 401."""
    assert credential_of(headers) is None


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
    assert end_user == end_user_of(headers, "X-OpenWebUI-User-Email")


def test_an_end_user_header_must_be_configured() -> None:
    """Nobody's own header counts unless the operator says so."""
    assert end_user_of({"x-openwebui-user-email": ("ana",)}, None) is None


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
    assert isinstance(end_user_of({name: values}, "X-User"), Unreadable)
