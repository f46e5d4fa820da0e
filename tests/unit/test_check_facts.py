"""The facts that are taken out of Envoy's CheckRequest."""

from collections.abc import Sequence

import pytest

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz.adapters.check import BODY_BYTES_MAX, UNSEEN_BYTES_ASSUMED, facts_of

MAX = 16


def attributes(
    headers: dict[str, str] | None = None, *, raw: Sequence[tuple[str, bytes]] = (), body: bytes = b""
) -> AttributeContext:
    """Make what Envoy sends, with joined headers or with raw ones."""
    pairs = [HeaderValue(key=key, raw_value=value) for key, value in raw]
    http = AttributeContext.HttpRequest(
        method="POST", path="/v1/models?x", headers=headers or {}, raw_body=body, header_map=HeaderMap(headers=pairs)
    )
    return AttributeContext(request=AttributeContext.Request(http=http))


def test_joined_headers_are_read() -> None:
    """Without encode_raw_headers each name has one value."""
    facts = facts_of(attributes({"authorization": "Bearer a,Bearer b"}), MAX)

    assert facts.headers == {"authorization": ("Bearer a,Bearer b",)}
    assert (facts.method, facts.path) == ("POST", "/v1/models?x")


def test_repeated_headers_stay_apart() -> None:
    """With encode_raw_headers a repeated header keeps its values, in any spelling of its name."""
    facts = facts_of(attributes(raw=[("authorization", b"Bearer a"), ("Authorization", b"Bearer \xff")]), MAX)

    assert facts.headers == {"authorization": ("Bearer a", "Bearer ÿ")}


@pytest.mark.parametrize(
    ("headers", "body", "unseen"),
    [
        pytest.param({"content-length": "5"}, b"12345", 0, id="whole"),
        pytest.param({"content-length": "40"}, b"1" * MAX, 24, id="longer than the buffer"),
        pytest.param({"content-length": str(MAX)}, b"1" * MAX, 0, id="ends exactly at the buffer's limit"),
        pytest.param({"content-length": "9" * 18}, b"1" * MAX, BODY_BYTES_MAX - MAX, id="longer than any body"),
        pytest.param({}, b"1" * MAX, UNSEEN_BYTES_ASSUMED, id="chunked, fills the buffer"),
        pytest.param({}, b"1" * (MAX - 1), 0, id="chunked, fits"),
        pytest.param({"content-length": "many"}, b"1" * MAX, UNSEEN_BYTES_ASSUMED, id="a length that is none"),
        pytest.param({"content-length": "²"}, b"", 0, id="a digit that is none"),
        pytest.param(
            {"content-length": "40", "x-envoy-auth-partial-body": "false"}, b"1" * MAX, 24, id="Envoy says it is whole"
        ),
    ],
)
def test_what_was_not_seen_of_the_body(headers: dict[str, str], body: bytes, unseen: int) -> None:
    """Truncation shows in lengths; nothing else is believed."""
    facts = facts_of(attributes(headers, body=body), MAX)

    assert facts.unseen_bytes == unseen
    assert facts.truncated is (unseen > 0)


def test_a_body_packed_as_text_is_read_too() -> None:
    """Envoy Gateway cannot pack the body as bytes."""
    text = AttributeContext.HttpRequest(body="ü!")
    facts = facts_of(AttributeContext(request=AttributeContext.Request(http=text)), MAX)

    assert facts.body == "ü!".encode()
