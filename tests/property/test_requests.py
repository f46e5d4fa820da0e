"""What holds for every request, however it is written."""

import json
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.domain.ask import Ask, Unreadable
from extauthz.domain.body import STEERING_KEYS, read_ask
from extauthz.domain.credentials import credential_of
from extauthz.domain.end_users import end_user_of
from extauthz.domain.endpoints import Charge, Endpoint
from extauthz.domain.routes import Route, RouteClass, classify

CALLS = ("chat/completions", "completions", "embeddings", "responses", "messages")

texts = st.text() | st.text("/.;%\\?#:av1 \x00é", max_size=40)
pieces = st.sampled_from(
    [
        "",
        "v1",
        "openai",
        "models",
        "gpt-4o",
        ".",
        "..",
        "%2e%2e",
        ";x",
        "health",
        "ui",
        "model",
        "info",
        "files",
        "batches",
        "x",
        "cancel",
        "count_tokens",
        "threads",
        "m:countTokens",
        "%2F",
        "%252F",
        "\\",
        *CALLS,
    ]
)
paths = (
    texts | st.lists(pieces, max_size=8).map("/".join) | st.lists(pieces, max_size=8).map(lambda x: "/" + "/".join(x))
)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", ""])


@given(methods | st.text(), paths, st.tuples(texts) | st.just(()))
def test_every_request_is_classified(method: str, path: str, prefixes: tuple[str, ...]) -> None:
    """No method, path or prefix is beyond classification."""
    assert isinstance(classify(method, path, {}, prefixes), Route)


@given(methods, paths)
@example("POST", "/v1/models")
def test_only_reading_is_discovery(method: str, path: str) -> None:
    """Discovery and info are read, never posted."""
    if method not in {"GET", "HEAD"}:
        assert classify(method, path, {}).route_class in {RouteClass.INFERENCE, RouteClass.OTHER}


@given(paths, st.sampled_from(CALLS), paths, st.integers(0, 3))
def test_no_call_is_waved_through(before: str, call: str, after: str, quoted: int) -> None:
    """A path with a call in it, escaped or not, is never discovery and never info."""
    for _ in range(quoted):
        call = quote(call, safe="")
    path = f"/{before}/{call}/{after}".replace("?", "")

    assert classify("GET", path, {}).route_class not in {RouteClass.DISCOVERY, RouteClass.INFO}


@given(paths)
def test_discovery_has_one_reading(path: str) -> None:
    """What is discovery is spelled as it is meant."""
    route = classify("GET", path, {})

    if route.route_class is RouteClass.DISCOVERY:
        decoded = unquote(path.partition("?")[0])
        expected = f"models/{route.model}" if route.model else "models"
        lists = (expected, "model/info", "model_group/info", "api/tags")
        assert decoded.removesuffix("/").casefold().endswith(tuple(f"/{name}".casefold() for name in lists))
        assert not {"", ".", ".."} & set(decoded.removesuffix("/").split("/")[1:])


@given(methods | st.text(), paths, st.tuples(texts) | st.just(()))
@example("POST", "/v1/files/x/../../chat/completions", ())
@example("POST", "/v1/batches/chat%2Fcompletions/cancel", ())
def test_nothing_that_is_paid_costs_nothing(method: str, path: str, prefixes: tuple[str, ...]) -> None:
    """What is passed unbilled is written as a row of the table that costs nothing, and has no other reading."""
    route = classify(method, path, {}, prefixes)

    if route.charge is Charge.NOTHING and route.endpoint is not None:
        written = path.partition("?")[0].removesuffix("/")
        assert method in {"GET", "HEAD", "POST", "DELETE"}
        assert method in {"GET", "HEAD"} or "%" not in written
        assert not {"", ".", ".."} & set(unquote(written).split("/")[1:])
        last = written.casefold().rpartition("/")[2]
        assert method != "POST" or last not in {"completions", "embeddings", "responses", "runs", "speech"}


boundaries = st.sampled_from(["b", "--", "----WebKitFormBoundary"])
fragments = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"--",
        b"--b",
        b"\r\n--b\r\n",
        b"--b\r\n",
        b"\r\n--b--",
        b"--b--\r\n",
        b"Content-Disposition: form-data; ",
        b'name="model"',
        b'name="n"',
        b'filename="x"',
        b"\r\n\r\n",
        b"free",
        b"paid",
        b"2",
    ]
)


@given(st.lists(fragments | st.binary(max_size=4), max_size=24).map(b"".join), st.booleans(), boundaries | st.text())
def test_every_form_is_read(raw: bytes, truncated: bool, boundary: str) -> None:  # noqa: FBT001 - drawn by hypothesis
    """No form is beyond reading: it is an ask or a refusal."""
    for endpoint in (Endpoint.TRANSCRIPTIONS, Endpoint.OPAQUE, Endpoint.IMAGE_EDITS, Endpoint.VIDEOS):
        found = read_ask(
            raw,
            truncated=truncated,
            endpoint=endpoint,
            content_type=f"multipart/form-data; boundary={boundary}",
            model_required=False,
        )
        assert isinstance(found, Ask | Unreadable)


@given(
    st.lists(st.tuples(st.sampled_from(["model", "prompt", "n", "file", "Model"]), st.binary(max_size=12)), max_size=5)
)
def test_a_form_reads_as_email_does(fields: list[tuple[str, bytes]]) -> None:
    """Whatever is taken names the model that another parser, which forgives more, finds as well."""
    raw = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value + b"\r\n"
        for name, value in fields
    )
    found = read_ask(
        raw + b"--b--\r\n",
        truncated=False,
        endpoint=Endpoint.TRANSCRIPTIONS,
        content_type="multipart/form-data; boundary=b",
    )
    other = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + raw + b"--b--\r\n"
    )
    models = [
        bytes(part.get_payload(decode=True) or b"")
        for part in other.iter_parts()
        if part.get_param("name", header="content-disposition") == "model"
    ]

    if isinstance(found, Ask):
        assert len(models) == 1
        assert ",".join(found.models) == b"".join(models).decode().replace(", ", ",")


@given(
    st.dictionaries(
        st.sampled_from(["authorization", "x-api-key", "api-key", "x-user"]), st.lists(st.text()).map(tuple)
    )
)
def test_every_set_of_headers_is_read(headers: dict[str, tuple[str, ...]]) -> None:
    """No header value is beyond reading."""
    credential_of(headers)
    end_user_of(headers, ["X-User"])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from([*sorted(STEERING_KEYS), "messages", "prompt", "input", "MODEL"]) | st.text()
bodies = st.dictionaries(keys, values, max_size=8).map(lambda body: json.dumps(body).encode())
raws = st.binary() | bodies | bodies.map(lambda raw: b'{"model":"m",' + raw[1:])


@given(raws, st.booleans(), st.sampled_from(Endpoint), st.none() | st.just("application/json") | st.text())
def test_every_body_is_read(raw: bytes, truncated: bool, endpoint: Endpoint, content_type: str | None) -> None:  # noqa: FBT001 - drawn by hypothesis
    """No body is beyond reading: it is an ask or a refusal."""
    found = read_ask(raw, truncated=truncated, endpoint=endpoint, content_type=content_type)

    assert isinstance(found, Ask | Unreadable)


def test_a_body_cut_at_every_byte() -> None:
    """Cut anywhere, a body is refused or says nothing that the whole one does not say."""
    body = {
        "model": "gpt-4o",
        "max_tokens": 16384,
        "n": 12,
        "user": "ané",
        "stream": True,
        "fallbacks": ["gpt-4o-mini", {"gpt-4o": ["o1"]}],
        "messages": [{"role": "user", "content": "grüße 🎈"}, {"image_url": {"url": "data:image/png;base64,iVBORw0K"}}],
    }
    raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    whole = read_ask(raw, truncated=False, endpoint=Endpoint.CHAT_COMPLETIONS, content_type=None)
    assert isinstance(whole, Ask)

    for cut in range(len(raw) + 1):
        part = read_ask(raw[:cut], truncated=True, endpoint=Endpoint.CHAT_COMPLETIONS, content_type=None)
        named = cut > raw.index(b'"max_tokens":') + len(b'"max_tokens":')
        assert isinstance(part, Ask) or not named
        if isinstance(part, Ask):
            assert part.models == whole.models
            assert part.output_tokens_max in (None, whole.output_tokens_max)
            assert part.choices in (1, whole.choices)
            assert part.end_user in (None, whole.end_user)
            assert part.fallbacks in ((), whole.fallbacks)
            assert part.text_bytes <= cut
            assert part.stream_options is None


@given(st.sampled_from(["model", "user", "n", "stream", "max_tokens"]), st.data())
def test_a_steering_key_stands_once(key: str, data: st.DataObject) -> None:
    """However a second key is escaped or folded, the body is refused."""

    def spellings(letter: str) -> st.SearchStrategy[str]:
        codes = [f"\\u{ord(form):04x}" for form in (letter, letter.upper())]
        fullwidth = chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter
        return st.sampled_from([letter, letter.upper(), fullwidth, *codes, codes[0].upper().replace("\\U", "\\u")])

    second = "".join(data.draw(spellings(letter)) for letter in key)
    fields = (
        ['"model":"m"', f'"{key}":null', f'"{second}":null'] if key != "model" else ['"model":"m"', f'"{second}":"p"']
    )
    raw = ("{" + ",".join(data.draw(st.permutations(fields))) + "}").encode()

    for truncated in (False, True):
        found = read_ask(raw, truncated=truncated, endpoint=Endpoint.CHAT_COMPLETIONS, content_type=None)
        assert isinstance(found, Unreadable)


@pytest.mark.parametrize("bits", range(2**5))
def test_every_escape_of_model(bits: int) -> None:
    """Each letter of a second `model` may be escaped or not: it is the same key."""
    second = "".join(f"\\u{ord(c):04X}" if bits >> i & 1 else c for i, c in enumerate("model"))
    raw = f'{{"model":"free","{second}":"paid"}}'.encode()

    assert isinstance(read_ask(raw, truncated=False, endpoint=Endpoint.CHAT_COMPLETIONS, content_type=None), Unreadable)
