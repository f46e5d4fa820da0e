"""What the JSON body of an inference request asks for."""

import json
from dataclasses import replace

import pytest

from extauthz.domain.ask import CHOICES_MAX, OUTPUT_TOKENS_MAX, Ask, Unreadable
from extauthz.domain.body import DOCUMENTS_MAX, PROMPTS_MAX, read_ask
from extauthz.domain.document import KEYS_MAX
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.named import FALLBACKS_MAX, MODELS_MAX, agree_on_model
from extauthz.domain.prices import Units
from extauthz.domain.reading import BYTES_PER_PICTURE, VALUES_MAX

PICTURE = "data:image/png;base64,iVBORw0KGgo="
Fields = dict[str, object]


def read(raw: bytes, *, truncated: bool = False, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS) -> Ask | Unreadable:
    """Read a body that came as JSON."""
    return read_ask(raw, truncated=truncated, endpoint=endpoint, content_type="application/json")


def ask(endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, /, **fields: object) -> Ask:
    """Read the body of these fields, which is readable; its model is `m` unless they name another."""
    found = read(json.dumps({"model": "m"} | fields).encode(), endpoint=endpoint)
    assert isinstance(found, Ask), found
    return found


def refusal(raw: bytes, *, truncated: bool = False) -> str:
    """Read a body that is refused, and give the reason."""
    found = read(raw, truncated=truncated)
    assert isinstance(found, Unreadable), found
    return found.message


def test_everything_that_a_body_asks_for() -> None:
    """A chat with all its settings is read in one go."""
    found = ask(
        model="gpt-4o",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        max_tokens=100,
        n=2,
        user="ana",
        fallbacks=["gpt-4o-mini"],
    )

    assert replace(found, text_bytes=0) == Ask(
        models=("gpt-4o",),
        fallbacks=("gpt-4o-mini",),
        stream=True,
        output_tokens_max=100,
        choices=2,
        end_user="ana",
        stream_options='{"include_usage":true}',
    )


def test_a_bare_body() -> None:
    """Everything but the model may be absent, or null."""
    nulls: Fields = dict.fromkeys(("stream", "stream_options", "n", "max_tokens", "user", "fallbacks", "extra_body"))

    assert replace(ask(), text_bytes=0) == Ask(models=("m",))
    assert replace(ask(**nulls), text_bytes=0) == Ask(models=("m",))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="no body"),
        pytest.param(b"model=gpt-4o", id="a form"),
        pytest.param(b'"gpt-4o"', id="a text"),
        pytest.param(b'[{"model":"m"}]', id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"model":"m"', id="cut"),
        pytest.param(b'{"model":"m"}{}', id="two objects"),
        pytest.param(b'{"model":"m","n":NaN}', id="NaN"),
        pytest.param(b'{"model":"m","n":Infinity}', id="infinity"),
        pytest.param(b'{"model":"m","n":01}', id="octal"),
        pytest.param(b'{"model":"\xff"}', id="invalid UTF-8"),
        pytest.param(b'{"model":"\\ud800"}', id="lone surrogate"),
        pytest.param(b'\xef\xbb\xbf{"model":"m"}', id="byte order mark"),
        pytest.param('{"model":"m"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"model":"m","x":' + b"[" * 5000 + b"]" * 5000 + b"}", id="deep"),
        pytest.param(b'{"model":"free","model":"paid"}', id="two models"),
        pytest.param(b'{"model":"free","mod\\u0065l":"paid"}', id="two models, one escaped"),
        pytest.param(b'{"model":"m","messages":[{"role":"a","role":"b"}]}', id="a nested key twice"),
    ],
)
def test_what_is_no_unambiguous_json(raw: bytes) -> None:
    """Two parsers must not be able to read a body differently; the reason does not quote it."""
    message = refusal(raw)

    assert message.startswith("The body must be one JSON object in UTF-8")
    assert "paid" not in message


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; Charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/vnd.api+json",
    ],
)
def test_json_content_types(content_type: str | None) -> None:
    """JSON is taken under its own names, and without one."""
    found = read_ask(b'{"model":"m"}', truncated=False, endpoint=Endpoint.OPAQUE, content_type=content_type)

    assert isinstance(found, Ask)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json, text/plain",
        "application/xml,application/x+json",
        "application/json; charset=utf-8, text/plain",
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
    ],
)
def test_other_content_types(content_type: str) -> None:
    """A body under another name is refused even when it is JSON: the upstream would read it by that name."""
    for endpoint in (Endpoint.CHAT_COMPLETIONS, Endpoint.OPAQUE, Endpoint.TRANSCRIPTIONS):
        found = read_ask(b'{"model":"m"}', truncated=False, endpoint=endpoint, content_type=content_type)

        assert isinstance(found, Unreadable)
        assert "application/json" in found.message or "multipart/form-data" in found.message


@pytest.mark.parametrize(
    "key",
    [
        "MODEL",
        "Model",
        "\uff4dodel",
        "u\u017fer",
        "Stream",
        "N",
        "MAX_TOKENS",
        "max_to\u212aens",
        "FallBacks",
        "Extra_Body",
    ],
)
def test_a_steering_key_in_another_spelling(key: str) -> None:
    """A key that some parsers would fold to one that steers is refused, alone and beside it."""
    for body in ({key: "paid"}, {"model": "free", key: "paid"}):
        assert "exactly so" in refusal(json.dumps(body, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    ("model", "models"),
    [
        ("gpt-4o", ("gpt-4o",)),
        ("openai/gpt 4:x", ("openai/gpt 4:x",)),
        ("a,b", ("a", "b")),
        ("a, b", ("a", "b")),
        (["a", "b"], ("a", "b")),
        (["a"] * MODELS_MAX, ("a",) * MODELS_MAX),
        ("é" * 128, ("é" * 128,)),
    ],
)
def test_models(model: object, models: tuple[str, ...]) -> None:
    """A model is a text, several are a list or stand between commas."""
    assert models == ask(model=model).models


@pytest.mark.parametrize(
    "model",
    [
        None,
        "",
        " ",
        " gpt-4o",
        "gpt-4o ",
        "gpt-4o\n",
        "a,",
        ",",
        "a,,b",
        7,
        True,
        {"name": "a"},
        [],
        ["a", 7],
        ["a", ""],
        ["a,b"],
        ["a"] * (MODELS_MAX + 1),
        "é" * 128 + "a",
    ],
)
def test_models_that_are_none(model: object) -> None:
    """Anything that is not surely a model's name is refused."""
    assert "model" in refusal(json.dumps({"model": model}).encode())


def test_a_model_in_the_path_is_enough() -> None:
    """The body need not name the model where the path does; one that is cut could still name another."""
    raw = b'{"messages":[]}'
    whole = read_ask(raw, truncated=False, endpoint=Endpoint.OPAQUE, content_type=None, model_required=False)
    cut = read_ask(raw, truncated=True, endpoint=Endpoint.OPAQUE, content_type=None, model_required=False)

    assert isinstance(whole, Ask)
    assert whole.models == ()
    assert isinstance(cut, Unreadable)


@pytest.mark.parametrize(
    ("fields", "fallbacks"),
    [
        ({"fallbacks": []}, ()),
        ({"fallbacks": ["a", "b"]}, ("a", "b")),
        ({"fallbacks": [{"model": "a"}, "b"]}, ("a", "b")),
        ({"fallbacks": [{"m": ["a", "b"], "x": ["c"]}]}, ("a", "b", "c")),
        ({"fallbacks": [{"model": ["a"]}]}, ("a",)),
        ({"context_window_fallbacks": [{"m": ["a"]}], "content_policy_fallbacks": ["b"]}, ("a", "b")),
        ({"default_fallbacks": ["a"]}, ("a",)),
        ({"router_settings_override": {"fallbacks": [{"m": ["a"]}], "num_retries": 2}}, ("a",)),
        ({"fallbacks": ["a"], "router_settings_override": {"default_fallbacks": ["b"]}}, ("a", "b")),
    ],
)
def test_fallbacks(fields: Fields, fallbacks: tuple[str, ...]) -> None:
    """Fallbacks are found in all of LiteLLM's keys and ways to write them."""
    assert fallbacks == ask(**fields).fallbacks


@pytest.mark.parametrize(
    "fallbacks",
    [
        "a",
        {"m": ["a"]},
        [7],
        [""],
        ["a,b"],
        [["a"]],
        [{"m": "a"}],
        [{"m": [7]}],
        [{"m": [{"model": "a"}]}],
        [{"model": "a", "max_tokens": 100000}],
        ["a"] * (FALLBACKS_MAX + 1),
    ],
)
@pytest.mark.parametrize("key", ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
def test_fallbacks_that_are_not_understood(key: str, fallbacks: object) -> None:
    """A fallback that is not understood could be a paid model behind a free one, so it is refused."""
    assert "fallbacks" in refusal(json.dumps({"model": "m", key: fallbacks}).encode())


@pytest.mark.parametrize(
    ("fields", "maximum"),
    [
        ({}, None),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 16}, 16),
        ({"max_completion_tokens": 16.0}, 16),
        ({"max_output_tokens": OUTPUT_TOKENS_MAX}, OUTPUT_TOKENS_MAX),
        ({"max_tokens": 16, "max_completion_tokens": 4096, "max_output_tokens": 1}, 4096),
        ({"max_tokens": None, "max_completion_tokens": 8}, 8),
    ],
)
def test_output_maximum(fields: Fields, maximum: int | None) -> None:
    """Of several maxima the largest counts."""
    assert maximum == ask(**fields).output_tokens_max


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"])
@pytest.mark.parametrize(
    "number", ["true", '"16"', "1.5", "-1", "-1e0", "1e999", "-1e999", "2147483649", "9" * 30, "[]", "{}"]
)
def test_numbers_that_are_none(key: str, number: str) -> None:
    """A number that is not a whole one in its range is refused, infinity included."""
    assert f"`{key}` must be a whole number" in refusal(f'{{"model":"m","{key}":{number}}}'.encode())


@pytest.mark.parametrize(
    ("endpoint", "fields", "choices"),
    [
        (Endpoint.CHAT_COMPLETIONS, {}, 1),
        (Endpoint.CHAT_COMPLETIONS, {"n": CHOICES_MAX}, CHOICES_MAX),
        (Endpoint.CHAT_COMPLETIONS, {"n": 2, "prompt": ["a", "b"]}, 2),
        (Endpoint.CHAT_COMPLETIONS, {"n": 2, "model": ["a", "b", "c"]}, 6),
        (Endpoint.COMPLETIONS, {"prompt": "a"}, 1),
        (Endpoint.COMPLETIONS, {"prompt": []}, 1),
        (Endpoint.COMPLETIONS, {"prompt": ["a", "b", "c"], "n": 2, "best_of": 3}, 9),
        (Endpoint.COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (Endpoint.COMPLETIONS, {"prompt": [[1, 2], [3]], "n": 2}, 4),
        (Endpoint.COMPLETIONS, {"prompt": ["a"] * PROMPTS_MAX}, PROMPTS_MAX),
        (Endpoint.EMBEDDINGS, {"input": ["a", "b"]}, 1),
    ],
)
def test_choices(endpoint: Endpoint, fields: Fields, choices: int) -> None:
    """Answers are counted for each prompt and each model; several ways to ask for more count once."""
    assert choices == ask(endpoint, **fields).choices


@pytest.mark.parametrize("fields", [{"n": 0}, {"best_of": 0}, {"n": CHOICES_MAX + 1}])
def test_choices_out_of_range(fields: Fields) -> None:
    """No answer at all, or more than anybody needs, is refused."""
    assert "whole number from 1" in refusal(json.dumps({"model": "m"} | fields).encode())


def test_too_many_prompts() -> None:
    """The prompts of one request are bounded."""
    raw = json.dumps({"model": "m", "prompt": ["a"] * (PROMPTS_MAX + 1)}).encode()

    assert isinstance(read(raw, endpoint=Endpoint.COMPLETIONS), Unreadable)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"stream": "true"}, "`stream`"),
        ({"stream": 1}, "`stream`"),
        ({"stream_options": True}, "`stream_options`"),
        ({"stream_options": [], "stream": True}, "`stream_options`"),
        ({"stream_options": {f"k{i}": 1 for i in range(KEYS_MAX + 1)}}, "`stream_options`"),
        ({"user": 7}, "`user`"),
        ({"user": "é" * 128 + "a"}, "`user`"),
        ({"extra_body": {"model": "paid"}}, "`extra_body`"),
        ({"extra_body": {"N": 100}}, "`extra_body`"),
        ({"extra_body": "model"}, "`extra_body`"),
        ({"router_settings_override": {"model_group_alias": {"free": "paid"}}}, "`router_settings_override`"),
        ({"router_settings_override": [{"fallbacks": ["paid"]}]}, "`router_settings_override`"),
        ({"extra_body": {"router_settings_override": {}}}, "`extra_body`"),
        ({"extra_body": {f"k{i}": 1 for i in range(KEYS_MAX + 1)}}, "`extra_body`"),
        ({f"k{i}": 1 for i in range(KEYS_MAX)}, "keys"),
    ],
)
def test_settings_that_are_not_understood(body: Fields, word: str) -> None:
    """A setting of the wrong kind is refused by its name."""
    assert word in refusal(json.dumps({"model": "m"} | body).encode())


@pytest.mark.parametrize(
    "key", ["user_config", "model_list", "models", "deployment_id", "input_cost_per_token", "output_cost_per_second"]
)
@pytest.mark.parametrize("value", [None, 0, "gpt-4o", {}])
def test_deployments_and_prices_of_the_client(key: str, value: object) -> None:
    """Nobody brings a deployment of his own, which LiteLLM would run, or a price, which it would report."""
    assert "operator" in refusal(json.dumps({"model": "m", key: value}).encode())
    assert "operator" in refusal(json.dumps({"model": "m", "extra_body": {key: value}}).encode())


def test_a_stored_prompt() -> None:
    """A prompt that is stored upstream may name another model than the request."""
    assert ask(prompt_id="p").templated
    assert not ask(prompt_id=None).templated


def test_a_key_that_takes_long_to_fold() -> None:
    """A long key is no steering key, and costs no more than its length: normalizing this one takes many minutes."""
    marks = "\u0301" * 100_000 + "\u0316" * 100_000

    assert ask(**{marks: 1, "extra_body": {marks: 1}}).models == ("m",)


def test_extra_body_without_steering_keys() -> None:
    """Other extras pass, and their text counts."""
    assert ask(extra_body={"top_k": "x" * 90}).text_bytes > 90


@pytest.mark.parametrize(("user", "end_user"), [("ana", "ana"), ("", None), (None, None), ("é" * 128, "é" * 128)])
def test_end_user(user: object, end_user: str | None) -> None:
    """The body may name the end user."""
    assert end_user == ask(user=user).end_user


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, '{"include_usage":true}'),
        ({}, '{"include_usage":true}'),
        ({"include_usage": True}, None),
        ({"include_usage": False}, '{"include_usage":true}'),
        ({"include_usage": "yes", "a": "é"}, '{"include_usage":true,"a":"\\u00e9"}'),
        ({"a": "x" * 1024}, '{"include_usage":true}'),
    ],
)
def test_stream_options(endpoint: Endpoint, options: object, expected: str | None) -> None:
    """A stream is made to report its usage and keeps the client's own options while they are short."""
    assert expected == ask(endpoint, stream=True, stream_options=options).stream_options


def test_stream_options_that_no_json_can_hold() -> None:
    """Infinity in the client's options does not end up in ours."""
    found = read(b'{"model":"m","stream":true,"stream_options":{"a":1e999}}')

    assert isinstance(found, Ask)
    assert found.stream_options == '{"include_usage":true}'


@pytest.mark.parametrize(
    ("endpoint", "stream"),
    [(Endpoint.CHAT_COMPLETIONS, False), (Endpoint.EMBEDDINGS, True), (Endpoint.OPAQUE, True)],
)
def test_no_stream_options(endpoint: Endpoint, stream: bool) -> None:  # noqa: FBT001 - a column of the table
    """Where nothing streams usage that we know of, the body stays as it is."""
    assert ask(endpoint, stream=stream).stream_options is None


def counted(**fields: object) -> tuple[int, int]:
    """Give text bytes and images that these fields add to a bare body."""
    found = ask(**fields)
    return found.text_bytes - ask().text_bytes, found.images


@pytest.mark.parametrize(
    ("fields", "text_bytes", "images"),
    [
        ({"messages": [{"role": "user", "content": "hé"}]}, 4 + 4 + 7 + 3, 0),
        ({"prompt": ["ab", "c"]}, 3, 0),
        ({"prompt": [101, 7592, 102]}, 9, 0),
        ({"input": [[1, 2], [3]]}, 9, 0),
        ({"tools": [{"a": "b"}]}, 2, 0),
        ({"messages": [{"image_url": {"url": PICTURE}}]}, 9, 1),
        ({"messages": [{"image_url": {"url": PICTURE, "detail": "low"}}] * 2}, 2 * (9 + 6 + 3), 2),
        ({"input": [{"image_url": PICTURE}]}, 0, 1),
        ({"messages": [{"file": {"file_data": "data:application/pdf;base64,JVBE"}}]}, 4, 1),
        ({"messages": [{"input_audio": {"data": "UklGR", "format": "wav"}}]}, 0, 1),
        ({"messages": [{"content": PICTURE}]}, 7 + len(PICTURE), 0),
        ({"messages": [{"url": "data:image/png;base64,not base64"}]}, 3 + 32, 0),
        ({"messages": [{"image_url": {"url": "https://x.org/y.png"}}]}, 9, 1),
        ({"input": [{"type": "input_image", "file_id": "file-1"}]}, 4 + 11, 1),
        ({"messages": [{"url": "https://x.org/y z"}]}, 3 + 17, 0),
        ({"messages": [{"content": "https://x.org/y.png"}]}, 7 + 19, 0),
        ({"tools": [{"url": PICTURE}]}, 3 + len(PICTURE), 0),
        ({"tools": [{"input_audio": {"data": "text"}}]}, 11 + 4 + 4, 0),
    ],
)
def test_text_and_images(fields: Fields, text_bytes: int, images: int) -> None:
    """All text counts by its UTF-8 bytes, a token as three, and a picture of a conversation as a picture."""
    assert (text_bytes, images) == counted(**fields)


def test_a_body_of_very_many_values() -> None:
    """Beyond a number of values the body counts by its length."""
    raw = json.dumps({"model": "m", "input": [1] * (VALUES_MAX + 1)}).encode()
    found = read(raw)

    assert isinstance(found, Ask)
    assert found.text_bytes == len(raw)


def test_a_truncated_body() -> None:
    """The beginning of a body tells what it holds, and is never given stream options."""
    found = read(b'{"model":"m","stream":true,"max_tokens":16,"messages":[{"content":"hello wor', truncated=True)

    assert found == Ask(models=("m",), stream=True, output_tokens_max=16, text_bytes=1 + 3 + 3 + 7 + 9, truncated=True)


def test_a_whole_body_that_may_be_truncated() -> None:
    """A body that ends exactly where the buffer does is read to its end and still counts as truncated."""
    found = read(b'{"messages":[],"max_tokens":16,"model":"m"}', truncated=True)

    assert isinstance(found, Ask)
    assert (found.models, found.output_tokens_max, found.truncated) == (("m",), 16, True)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"messages":["x', id="no model"),
        pytest.param(b'{"messages":[],"model":"gpt-4', id="cut in the name"),
        pytest.param(b'{"messages":[],"model":["a","b"', id="cut in the list"),
        pytest.param(b"{", id="nothing"),
    ],
)
def test_a_truncated_body_without_its_model(raw: bytes) -> None:
    """A name that may be cut names no model; the reason says what helps."""
    assert "put `model` first" in refusal(raw, truncated=True)


def test_a_cut_number_is_not_believed() -> None:
    """1 may be the beginning of 16384."""
    found = read(b'{"model":"m","max_tokens":1', truncated=True)

    assert isinstance(found, Ask)
    assert found.output_tokens_max is None


@pytest.mark.parametrize("raw", [b"", b'{"model":"m","model":"x', b'{"model":"m","MODEL":"x', b"[1,", b'{"model":\xff'])
def test_an_ambiguous_truncated_body(raw: bytes) -> None:
    """Truncation excuses nothing that is there."""
    assert refusal(raw, truncated=True)


@pytest.mark.parametrize(
    ("body", "path", "query", "header", "models"),
    [
        pytest.param(("a",), None, (), (), ("a",), id="body alone"),
        pytest.param(("a", "b"), None, (), (), ("a", "b"), id="a list"),
        pytest.param((), "a", (), (), ("a",), id="path alone"),
        pytest.param((), None, ("a",), ("a",), ("a",), id="query and header"),
        pytest.param(("a",), "a", ("a",), ("a",), ("a",), id="everywhere the same"),
        pytest.param(("a",), None, (), ("",), ("a",), id="an empty header names none"),
    ],
)
def test_models_that_agree(
    body: tuple[str, ...],
    path: str | None,
    query: tuple[str, ...],
    header: tuple[str, ...],
    models: tuple[str, ...],
) -> None:
    """Wherever a model is named, it is the same one."""
    found = agree_on_model(Ask(body), path_model=path, query_models=query, header_models=header)

    assert isinstance(found, Ask)
    assert models == found.models


@pytest.mark.parametrize(
    ("body", "path", "query", "header"),
    [
        pytest.param((), None, (), (), id="nowhere"),
        pytest.param(("free",), "paid", (), (), id="path"),
        pytest.param(("free",), None, ("paid",), (), id="query"),
        pytest.param(("free",), None, (), ("paid",), id="header"),
        pytest.param(("free",), None, ("free", "paid"), (), id="query twice"),
        pytest.param((), None, (), ("free", "paid"), id="header twice"),
        pytest.param((), None, (), ("free,paid",), id="header joined by Envoy"),
        pytest.param(("free", "paid"), None, (), ("free",), id="one of a list"),
        pytest.param(("free",), "Free", (), (), id="another case"),
        pytest.param((), "x" * 257, (), (), id="no name"),
    ],
)
def test_models_that_disagree(
    body: tuple[str, ...], path: str | None, query: tuple[str, ...], header: tuple[str, ...]
) -> None:
    """Two models for one request are refused: upstreams differ in which they obey."""
    found = agree_on_model(Ask(body), path_model=path, query_models=query, header_models=header)

    assert isinstance(found, Unreadable)


@pytest.mark.parametrize(
    ("endpoint", "fields", "units"),
    [
        (Endpoint.IMAGE_GENERATIONS, {}, Units(images=1)),
        (Endpoint.IMAGE_GENERATIONS, {"n": 4}, Units(images=4)),
        (Endpoint.IMAGE_GENERATIONS, {"n": 4, "model": ["a", "b"]}, Units(images=8)),
        (Endpoint.SPEECH, {"input": "grüße"}, Units(characters=5)),
        (Endpoint.SPEECH, {"input": ["no text"]}, Units()),
        (Endpoint.VIDEOS, {}, Units(milliseconds=8_000)),
        (Endpoint.VIDEOS, {"seconds": "4"}, Units(milliseconds=4_000)),
        (Endpoint.VIDEOS, {"seconds": 12, "n": 2}, Units(milliseconds=24_000)),
        (Endpoint.RERANK, {"query": "q"}, Units(queries=1)),
        (Endpoint.RERANK, {"query": "q", "documents": ["d"] * 100}, Units(queries=1)),
        (Endpoint.RERANK, {"query": "q", "documents": ["d"] * 101}, Units(queries=2)),
        (Endpoint.CHAT_COMPLETIONS, {"n": 3}, Units()),
        (Endpoint.EMBEDDINGS, {"input": ["a", "b"]}, Units()),
        (Endpoint.MODERATIONS, {"input": ["a", "b"]}, Units()),
    ],
)
def test_units(endpoint: Endpoint, fields: Fields, units: Units) -> None:
    """What is asked for besides tokens is counted."""
    assert units == ask(endpoint, **fields).units


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (Endpoint.VIDEOS, {"seconds": "8s"}),
        (Endpoint.VIDEOS, {"seconds": 0}),
        (Endpoint.VIDEOS, {"seconds": "99999"}),
        (Endpoint.RERANK, {"documents": ["d"] * (DOCUMENTS_MAX + 1)}),
        (Endpoint.IMAGE_GENERATIONS, {"n": "4"}),
        (Endpoint.RESPONSES, {"service_tier": 1}),
        (Endpoint.RESPONSES, {"service_tier": "x" * 33}),
    ],
)
def test_units_that_are_none(endpoint: Endpoint, fields: Fields) -> None:
    """A number of seconds, pictures or documents that is not understood is refused."""
    assert isinstance(read(json.dumps({"model": "m"} | fields).encode(), endpoint=endpoint), Unreadable)


def test_a_reranker_reads_its_query_with_every_document() -> None:
    """Each of three documents is read with the query."""
    once, thrice = (ask(Endpoint.RERANK, query="a query", documents=["d"] * count) for count in (1, 3))

    assert thrice.text_bytes == once.text_bytes + 2 * (len("a query") + len("d"))


@pytest.mark.parametrize("settings", ["generationConfig", "generation_config"])
@pytest.mark.parametrize(
    ("fields", "maximum", "choices"),
    [
        ({}, None, 1),
        ({"maxOutputTokens": 64}, 64, 1),
        ({"max_output_tokens": 64, "candidateCount": 2}, 64, 2),
        ({"maxOutputTokens": 64, "max_output_tokens": 128, "candidateCount": 2, "candidate_count": 3}, 128, 3),
    ],
)
def test_settings_of_gemini(settings: str, fields: Fields, maximum: int | None, choices: int) -> None:
    """Gemini's settings count in both of their spellings, the largest of each."""
    raw = json.dumps({"contents": [], settings: fields}).encode()
    found = read_ask(raw, truncated=False, endpoint=Endpoint.GENERATE_CONTENT, content_type=None, model_required=False)

    assert isinstance(found, Ask)
    assert (found.models, found.output_tokens_max, found.choices) == ((), maximum, choices)


@pytest.mark.parametrize(
    "body",
    [
        {"generationConfig": []},
        {"GenerationConfig": {}},
        {"generationConfig": {"MaxOutputTokens": 1}},
        {"generationConfig": {"maxOutputTokens": "1"}},
        {"generationConfig": {"candidateCount": 0}},
        {"extra_body": {"generationConfig": {}}},
    ],
)
def test_settings_of_gemini_that_are_not_understood(body: Fields) -> None:
    """Another spelling, or another kind of value, is refused."""
    found = read(json.dumps({"model": "m"} | body).encode(), endpoint=Endpoint.GENERATE_CONTENT)

    assert isinstance(found, Unreadable)


@pytest.mark.parametrize("key", ["previous_response_id", "conversation", "prompt"])
def test_what_is_stored_upstream_is_read_too(key: str) -> None:
    """A response may build on a conversation that nobody sees here."""
    assert ask(Endpoint.RESPONSES, **{key: "resp_1"}).recalls
    assert not ask(Endpoint.RESPONSES, **{key: None}).recalls
    assert not ask(Endpoint.CHAT_COMPLETIONS, **{key: "resp_1"}).recalls


def test_a_service_tier() -> None:
    """The tier that is asked for is known."""
    assert ask(service_tier="flex").service_tier == "flex"
    assert ask(service_tier=None).service_tier is None


def test_a_body_that_nobody_reads() -> None:
    """A WebSocket begins without a body."""
    found = read_ask(b"x", truncated=False, endpoint=Endpoint.REALTIME, content_type="text/plain")

    assert found == Ask(())


def test_an_unknown_call_without_a_body() -> None:
    """What is not known may have no body; what is known must have one."""
    found = read_ask(b"", truncated=False, endpoint=Endpoint.OPAQUE, content_type=None, model_required=False)

    assert found == Ask(())
    assert isinstance(read(b"", endpoint=Endpoint.OPAQUE), Unreadable)
    assert isinstance(
        read_ask(b"", truncated=False, endpoint=Endpoint.RESPONSES, content_type=None, model_required=False), Unreadable
    )


BIG = "A" * (3 * BYTES_PER_PICTURE)


@pytest.mark.parametrize(
    ("fields", "images"),
    [
        ({"messages": [{"source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}]}, 1),
        ({"messages": [{"source": {"type": "base64", "media_type": "application/pdf", "data": BIG}}]}, 4),
        ({"messages": [{"source": {"type": "text", "media_type": "text/plain", "data": "words"}}]}, 0),
        ({"messages": [{"source": {"type": "url", "url": "https://x.org/y.png"}}]}, 1),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBO"}}]}]}, 1),
        ({"contents": [{"parts": [{"inline_data": {"mime_type": "audio/mp3", "data": BIG}}]}]}, 4),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/x.mp4"}}]}]}, 1),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "no base64"}}]}]}, 0),
        ({"messages": [{"input_audio": {"data": BIG, "format": "wav"}}]}, 4),
        ({"tools": [{"source": {"media_type": "image/png", "data": "iVBO"}}]}, 0),
    ],
)
def test_pictures_of_every_api(fields: Fields, images: int) -> None:
    """Anthropic's and Gemini's pictures are pictures; longer media count as several, and a wrapped text as text."""
    found = counted(**fields)

    assert images == found[1]
    assert images or found[0] > 0
