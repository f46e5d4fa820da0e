"""What the JSON body of an inference request asks for.

The upstream reads the same bytes with another parser, so nothing is accepted here that two parsers could read in two
ways: a key that stands twice, a key in another case, a number that is no whole number. What is refused is a value,
`Unreadable`, with the sentence for the client; it never quotes the body.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jiter

from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX
from extauthz.domain.routes import Endpoint

MODEL_NAME_BYTES_MAX = 256
MODELS_MAX = 16
FALLBACKS_MAX = 32
CHOICES_MAX = 128
PROMPTS_MAX = 2048
OUTPUT_TOKENS_MAX = 2**31
STREAM_OPTIONS_BYTES_MAX = 1024
KEYS_MAX = 256
# Counting text looks at so many values (about 4 ms); a body with more is counted by its length.
VALUES_MAX = 20_000
# What a value that is no text counts: the numbers of a prompt given as tokens are one token each.
TOKEN_BYTES = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """What an inference request asks for, read from its body.

    `models` are all that it names (usually one; none when only the path does), `fallbacks` those that it names in case
    these fail. `output_tokens_max` is the client's own maximum, None when it sets none. `choices` is how many answers
    it wants of each prompt, times the prompts, times the models. `text_bytes` are the bytes of all text that the model
    will read, `images` the pictures, sounds and files, whose bytes do not count as text. Of a `truncated` body all this
    is what its visible part says.

    `stream_options` is None when the client already asks for usage in its stream (or does not stream); otherwise the
    JSON object that the upstream must get so that it reports usage: the client's own options with include_usage true.
    """

    models: tuple[str, ...]
    fallbacks: tuple[str, ...] = ()
    stream: bool = False
    output_tokens_max: int | None = None
    choices: int = 1
    end_user: str | None = None
    text_bytes: int = 0
    images: int = 0
    stream_options: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A request that is refused because it can be read in no way or in several, with the reason for the client."""

    message: str


class _RefusedError(Exception):
    """Carries the sentence of an Unreadable out of the functions below; it never leaves this module."""


_Json = dict[str, object]

_OUTPUT_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks")
# LiteLLM takes settings of its router from the body. Apart from fallbacks, these do not decide which model answers.
_OVERRIDE = "router_settings_override"
_HARMLESS_OVERRIDES = frozenset(
    {"num_retries", "timeout", "stream_timeout", "retry_policy", "model_group_retry_policy"}
)
# The keys that decide what a request costs and who pays. Each must stand once, in this spelling.
STEERING_KEYS = frozenset(
    {"model", "user", "stream", "stream_options", "n", "best_of", "extra_body", _OVERRIDE, *_OUTPUT_MAXIMA, *_FALLBACKS}
)

_NOT_JSON = "The body must be one JSON object in UTF-8, nested at most 200 deep, in which no key stands twice."
_NO_MODEL = "Name the model: the body needs a `model` that is a text or a list of texts."
_DISAGREEING = "Name one and the same model in path, query, `x-litellm-model` and body, or name it in the body alone."
_MODEL_UNSEEN = "The body is too large to be read to its end: put `model` first, or send a smaller body."
_BAD_FALLBACKS = (
    '`{}` must be a list of names, of {{"model": name}} objects without further keys, or of {{name: [names]}} objects.'
)

_USAGE_ASKED = '{"include_usage":true}'
_STREAMS_USAGE = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS})

# Pictures, sounds and files of a conversation are not text. Elsewhere, in a tool's schema say, the same string is.
_CONVERSATION = frozenset({"messages", "input"})
_DATA_URL_KEYS = frozenset({"url", "image_url", "file_data"})
_LINK_KEYS = frozenset({"url", "image_url"})
_LINK = re.compile(r"https?://\S{1,2048}", re.ASCII)
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,[A-Za-z0-9+/=_-]*+", re.ASCII)


def read_ask(
    raw: bytes, *, truncated: bool, endpoint: Endpoint, content_type: str | None, model_required: bool = True
) -> Ask | Unreadable:
    """Read what a request asks for.

    `raw` may be only the beginning of the body: `truncated` says so. `content_type` is the header, all its values
    joined. `model_required` is False where something else, the path, names the model.
    """
    try:
        _refuse_content_type(content_type)
        document, settled = _parse(raw, truncated=truncated)
        _refuse_misspelt(document)
        text_bytes, images = _text_and_images(document, len(raw))
        models = _models(settled, required=model_required or truncated, truncated=truncated)
        stream = _flag(settled, "stream")
        return Ask(
            models=models,
            fallbacks=_fallbacks(settled),
            stream=stream,
            output_tokens_max=_output_tokens_max(settled),
            choices=_choices(settled, endpoint) * max(1, len(models)),
            end_user=_end_user(settled),
            text_bytes=text_bytes,
            images=images,
            stream_options=_stream_options(settled, wanted=stream and not truncated and endpoint in _STREAMS_USAGE),
            truncated=truncated,
        )
    except _RefusedError as refused:
        return Unreadable(str(refused))


def agree_on_model(
    ask: Ask, *, path_model: str | None, query_models: tuple[str, ...], header_models: tuple[str, ...]
) -> Ask | Unreadable:
    """Make sure that every place that names a model names the same one: upstreams differ in which they obey.

    `header_models` are the values of `x-litellm-model`. A body that names none gets the model of the other places.
    """
    elsewhere = {*query_models, *header_models, path_model or ""} - {""}
    match sorted(elsewhere), ask.models:
        case [], ():
            return Unreadable(_NO_MODEL)
        case [], _:
            return ask
        case [name], () if _is_model_name(name):
            return replace(ask, models=(name,))
        case [name], (named,) if name == named:
            return ask
        case _:
            return Unreadable(_DISAGREEING)


def _is_model_name(text: str) -> bool:
    """Whether nobody reads anything else into a text: several models, say, or the same one without its spaces."""
    if not text.isprintable() or "," in text or text != text.strip():
        return False
    return 0 < len(text.encode()) <= MODEL_NAME_BYTES_MAX


def _folded(key: str) -> str:
    """Fold a key as far as any parser does that compares without case or normalizes Unicode."""
    return unicodedata.normalize("NFKC", key).casefold()


def _refuse_content_type(content_type: str | None) -> None:
    if content_type is None:
        return
    media, _, parameters = content_type.casefold().partition(";")
    media = media.strip()
    json_like = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    charset = re.search(r"charset\s*=\s*\"?([^\s;\",]*)", parameters)
    if not json_like or "," in content_type or (charset and charset[1] not in ("utf-8", "utf8")):
        raise _RefusedError("This endpoint takes JSON: send the body in UTF-8 with `content-type: application/json`.")


def _parse(raw: bytes, *, truncated: bool) -> tuple[_Json, _Json]:
    """Give the JSON object, and that of it which is surely whole."""
    try:
        document = _object(jiter.from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys"))
    except ValueError:
        if not truncated:
            raise _RefusedError(_NOT_JSON) from None
        document = _parse_beginning(raw)
        # The last value may be cut: `gpt-4` of `gpt-4o`, 1 of 16384.
        return document, dict(list(document.items())[:-1])
    return document, document


def _parse_beginning(raw: bytes) -> _Json:
    try:
        return _object(
            jiter.from_json(
                raw,
                catch_duplicate_keys=True,
                allow_inf_nan=False,
                cache_mode="keys",
                partial_mode="trailing-strings",
            )
        )
    except ValueError:
        raise _RefusedError(_NOT_JSON) from None


def _object(value: object) -> _Json:
    if not isinstance(value, dict):
        raise _RefusedError(_NOT_JSON)
    return value


def _refuse_misspelt(document: _Json) -> None:
    """Refuse a steering key in another spelling (`MODEL`): some parsers read it, so it would steer unseen."""
    if len(document) > KEYS_MAX:
        raise _RefusedError(f"The body has more than {KEYS_MAX} keys.")
    for key in document:
        if key not in STEERING_KEYS and _folded(key) in STEERING_KEYS:
            raise _RefusedError(f"Write the key `{_folded(key)}` exactly so: another spelling of it is ambiguous.")
    # LiteLLM and the OpenAI SDK lay extra_body over the body that they send upstream.
    match document.get("extra_body"):
        case None:
            pass
        case dict(extra) if len(extra) <= KEYS_MAX and STEERING_KEYS.isdisjoint(map(_folded, extra)):
            pass
        case _:
            raise _RefusedError("`extra_body` must be an object that does not repeat keys such as `model` or `n`.")


def _models(document: _Json, *, required: bool, truncated: bool) -> tuple[str, ...]:
    model = document.get("model")
    if model is None:
        if required:
            raise _RefusedError(_MODEL_UNSEEN if truncated else _NO_MODEL)
        return ()
    # LiteLLM takes several models as a list or with commas between them.
    match model:
        case str():
            names = [name.strip() for name in model.split(",")] if "," in model else [model]
        case list():
            names = model
        case _:
            raise _RefusedError(_NO_MODEL)
    return _checked_names(names, key="model", count_max=MODELS_MAX)


def _fallbacks(document: _Json) -> tuple[str, ...]:
    sources = (document, _override(document))
    names = [name for source in sources for key in _FALLBACKS for name in _fallback_names(key, source.get(key))]
    return _checked_names(names, key="fallbacks", count_max=FALLBACKS_MAX) if names else ()


def _override(document: _Json) -> _Json:
    match document.get(_OVERRIDE):
        case None:
            return {}
        case dict(settings) if settings.keys() <= _HARMLESS_OVERRIDES.union(_FALLBACKS):
            return settings
        case _:
            raise _RefusedError(f"`{_OVERRIDE}` may only set fallbacks, retries and timeouts here.")


def _fallback_names(key: str, value: object) -> Iterator[object]:
    """Give the names in LiteLLM's three ways to write them: `a`, `{"model": "a"}`, `{"for-model": ["a"]}`."""
    for entry in _entries(key, value):
        match entry:
            case str():
                yield entry
            case {"model": str(name), **rest} if not rest:
                yield name
            case dict():
                for instead in entry.values():
                    yield from _entries(key, instead)
            case _:
                raise _RefusedError(_BAD_FALLBACKS.format(key))


def _entries(key: str, value: object) -> list[object]:
    match value:
        case None:
            return []
        case list():
            return value
        case _:
            raise _RefusedError(_BAD_FALLBACKS.format(key))


def _checked_names(names: Sequence[object], *, key: str, count_max: int) -> tuple[str, ...]:
    if not 0 < len(names) <= count_max:
        raise _RefusedError(f"`{key}` must name 1 to {count_max} models.")
    checked = tuple(name for name in names if isinstance(name, str) and _is_model_name(name))
    if len(checked) < len(names):
        raise _RefusedError(
            f"`{key}` must hold names of models: 1 to {MODEL_NAME_BYTES_MAX} bytes each, no comma, no space around."
        )
    return checked


def _output_tokens_max(document: _Json) -> int | None:
    """Give the largest maximum: which of several the upstream obeys is not known."""
    given = [_whole(document, key, 0, OUTPUT_TOKENS_MAX) for key in _OUTPUT_MAXIMA]
    return max((maximum for maximum in given if maximum is not None), default=None)


def _choices(document: _Json, endpoint: Endpoint) -> int:
    answers = max(_whole(document, key, 1, CHOICES_MAX) or 1 for key in ("n", "best_of"))
    return answers * _prompts(document) if endpoint is Endpoint.COMPLETIONS else answers


def _prompts(document: _Json) -> int:
    """Count the prompts of a completion: texts or lists of tokens. One list of tokens is one prompt."""
    prompt = document.get("prompt")
    if not isinstance(prompt, list) or not prompt or not isinstance(prompt[0], str | list):
        return 1
    if len(prompt) > PROMPTS_MAX:
        raise _RefusedError(f"Send at most {PROMPTS_MAX} prompts at once.")
    return len(prompt)


def _whole(document: _Json, key: str, low: int, high: int) -> int | None:
    """Read a whole number; 16.0 is one, and null is none."""
    value = document.get(key)
    if value is None:
        return None
    # jiter reads 1e999 as infinity, which no comparison with `high` lets through, and no bool is a number here.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise _RefusedError(f"`{key}` must be a whole number from {low} to {high}.")
    return int(value)


def _flag(document: _Json, key: str) -> bool:
    match document.get(key):
        case None:
            return False
        case bool(value):
            return value
        case _:
            raise _RefusedError(f"`{key}` must be true or false.")


def _end_user(document: _Json) -> str | None:
    match document.get("user"):
        case None | "":
            return None
        case str(user) if len(user.encode()) <= SCOPE_ID_BYTES_MAX:
            return user
        case _:
            raise _RefusedError(f"`user` must be text of at most {SCOPE_ID_BYTES_MAX} bytes.")


def _stream_options(document: _Json, *, wanted: bool) -> str | None:
    options = document.get("stream_options")
    if not isinstance(options, dict | None) or len(options or {}) > KEYS_MAX:
        raise _RefusedError(f"`stream_options` must be an object of at most {KEYS_MAX} keys.")
    if not wanted or (options and options.get("include_usage") is True):
        return None
    try:
        merged = json.dumps({**(options or {}), "include_usage": True}, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return _USAGE_ASKED
    return merged if len(merged) <= STREAM_OPTIONS_BYTES_MAX else _USAGE_ASKED


def _text_and_images(document: _Json, raw_bytes: int) -> tuple[int, int]:
    """Count the bytes of everything that may be text for the model, and what is a picture, sound or file instead.

    Keys count too: those of a tool's schema are read by the model, and the others are few.
    """
    text_bytes = images = seen = 0
    for conversation in (False, True):
        waiting = [value for key, value in document.items() if (key in _CONVERSATION) is conversation]
        while waiting:
            value = waiting.pop()
            seen += 1
            if seen > VALUES_MAX:
                return raw_bytes, images
            if isinstance(value, str):
                text_bytes += _utf8_bytes(value)
            elif isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, dict):
                for key, item in value.items():
                    if conversation and _is_medium(key, item):
                        images += 1
                    else:
                        text_bytes += _utf8_bytes(key)
                        waiting.append(item)
            else:
                text_bytes += TOKEN_BYTES
    return text_bytes, images


def _is_medium(key: str, value: object) -> bool:
    if not isinstance(value, str):
        return key == "input_audio" and isinstance(value, dict)
    if key in _DATA_URL_KEYS and _DATA_URL.fullmatch(value):
        return True
    return (key in _LINK_KEYS and _LINK.fullmatch(value) is not None) or key == "file_id"


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
