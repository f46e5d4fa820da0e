"""What the body of an inference request asks for, at each endpoint of the table.

JSON and forms become the same document; a key that decides what a request costs or who pays is read from what is surely
whole of it, and refused where it can be read in two ways. What is refused is a value, `Unreadable`, with the sentence
for the client; it never quotes the body.
"""

from __future__ import annotations

import json

from extauthz.domain.ask import CHOICES_MAX, OUTPUT_TOKENS_MAX, Ask, RefusedBodyError, Unreadable
from extauthz.domain.document import (
    KEYS_MAX,
    Document,
    Json,
    flag,
    inner,
    is_json,
    read_json,
    refuse_misspelt,
    spellings_of,
    whole,
    word,
)
from extauthz.domain.end_users import UnclearEndUser, end_user_in
from extauthz.domain.endpoints import BodyKind, Endpoint, row_of
from extauthz.domain.forms import is_form, read_form
from extauthz.domain.named import (
    FALLBACK_KEYS,
    OVERRIDE,
    fallbacks_of,
    models_of,
    refuse_deployments,
    refuse_overlaid,
)
from extauthz.domain.prices import NO_UNITS, Units
from extauthz.domain.reading import characters_of, reading_of, texts_in, utf8_bytes
from extauthz.domain.tags import tags_in

PROMPTS_MAX = 2048
DOCUMENTS_MAX = 10_000
STREAM_OPTIONS_BYTES_MAX = 1024
SERVICE_TIER_BYTES_MAX = 32
VIDEO_SECONDS_MAX = 3600

# How long a film is that nobody says the length of: Veo's usual 8 seconds, twice Sora's.
VIDEO_SECONDS_USUAL = 8
# Rerankers bill a search by so many documents.
DOCUMENTS_PER_QUERY = 100

_OUTPUT_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# Gemini takes its settings one level down, and every key in two spellings.
_SETTINGS = ("generationConfig", "generation_config")
_SETTINGS_MAXIMA = ("maxOutputTokens", "max_output_tokens")
_CANDIDATES = ("candidateCount", "candidate_count")

_COMMON_KEYS = frozenset(
    {
        "model",
        "user",
        "stream",
        "stream_options",
        "service_tier",
        "n",
        "best_of",
        "extra_body",
        OVERRIDE,
        *_OUTPUT_MAXIMA,
        *FALLBACK_KEYS,
    }
)
# The keys that decide what a request costs and who pays. Each must stand once, in this spelling.
STEERING_KEYS = _COMMON_KEYS | {*_SETTINGS, "seconds"}
_STEERING = spellings_of(STEERING_KEYS)
_STEERING_SETTINGS = spellings_of((*_SETTINGS_MAXIMA, *_CANDIDATES))
# What a form's texts cannot say: they stand for objects.
_NO_FIELDS = frozenset({"extra_body", "stream_options", OVERRIDE, *FALLBACK_KEYS})

_USAGE_ASKED = '{"include_usage":true}'
_STREAMS_USAGE = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS})
# A sound is paid by its length, which its bytes tell.
_HEARS = frozenset({Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS})
# Keys that stand for a conversation that is stored upstream.
_RECALLS = ("previous_response_id", "conversation", "prompt")
# LiteLLM's key of a prompt that is stored there, and with it may be another model.
_TEMPLATE = "prompt_id"

_BAD_TYPE = "This endpoint takes JSON: send the body in UTF-8 with `content-type: application/json`."
_BAD_FORM_TYPE = (
    "This endpoint takes a form or JSON: send the body as `multipart/form-data`, or in UTF-8 with "
    "`content-type: application/json`."
)


def read_ask(
    raw: bytes, *, truncated: bool, endpoint: Endpoint, content_type: str | None, model_required: bool = True
) -> Ask | Unreadable:
    """Read what a request asks for.

    `raw` may be only the beginning of the body: `truncated` says so. `content_type` is the header, all its values
    joined. `model_required` is False where something else, the path, names the model.
    """
    if row_of(endpoint).body is BodyKind.NONE:
        return Ask((), truncated=truncated)
    try:
        document = _document(raw, truncated=truncated, endpoint=endpoint, content_type=content_type)
        return _ask(document, endpoint, model_required=model_required, truncated=truncated)
    except RefusedBodyError as refused:
        return Unreadable(str(refused))


def _document(raw: bytes, *, truncated: bool, endpoint: Endpoint, content_type: str | None) -> Document:
    takes_forms = row_of(endpoint).body is BodyKind.FORM or endpoint is Endpoint.OPAQUE
    if content_type is not None and is_form(content_type) and takes_forms:
        document = read_form(raw, truncated=truncated, content_type=content_type, steering=_STEERING)
        if not _NO_FIELDS.isdisjoint(document.seen):
            raise RefusedBodyError("Send fallbacks, `stream_options` and `extra_body` in JSON, not in a form.")
    elif not is_json(content_type):
        raise RefusedBodyError(_BAD_FORM_TYPE if takes_forms else _BAD_TYPE)
    elif not raw and not truncated and endpoint is Endpoint.OPAQUE:
        return Document({}, {}, 0)
    else:
        document = read_json(raw, truncated=truncated)
    refuse_misspelt(document.seen, _STEERING)
    refuse_deployments(document.seen)
    refuse_overlaid(document.seen, _STEERING)
    for settings in _settings_of(document.seen):
        refuse_misspelt(settings, _STEERING_SETTINGS)
    return document


def _ask(document: Document, endpoint: Endpoint, *, model_required: bool, truncated: bool) -> Ask:
    settled = document.settled
    models = models_of(settled, required=model_required or truncated, truncated=truncated)
    stream = flag(settled, "stream")
    answers = _answers(settled)
    reading = reading_of(document)
    readers = max(1, len(models))
    return Ask(
        models=models,
        fallbacks=fallbacks_of(settled),
        stream=stream,
        output_tokens_max=_output_tokens_max(settled),
        choices=answers * (_prompts(settled) if endpoint is Endpoint.COMPLETIONS else 1) * readers,
        end_user=_end_user(settled),
        text_bytes=reading.text_bytes + (_repeated_bytes(document.seen) if endpoint is Endpoint.RERANK else 0),
        images=0 if endpoint in _HEARS else reading.images,
        stream_options=_stream_options(settled, wanted=stream and not truncated and endpoint in _STREAMS_USAGE),
        truncated=truncated,
        units=_units(document, endpoint, answers, readers),
        file_bytes=document.file_bytes,
        service_tier=word(settled, "service_tier", SERVICE_TIER_BYTES_MAX),
        recalls=endpoint is Endpoint.RESPONSES and any(document.seen.get(key) is not None for key in _RECALLS),
        templated=document.seen.get(_TEMPLATE) is not None,
        tags=tags_in(settled),
    )


def _end_user(document: Json) -> str | None:
    match end_user_in(document):
        case UnclearEndUser(message):
            raise RefusedBodyError(message)
        case found:
            return found


def _output_tokens_max(document: Json) -> int | None:
    """Give the largest maximum: which of several the upstream obeys is not known."""
    given = [whole(document, key, 0, OUTPUT_TOKENS_MAX) for key in _OUTPUT_MAXIMA if key in document]
    for settings in _settings_of(document):
        given += [whole(settings, key, 0, OUTPUT_TOKENS_MAX) for key in _SETTINGS_MAXIMA]
    return max((maximum for maximum in given if maximum is not None), default=None)


def _answers(document: Json) -> int:
    """Give the most answers to one prompt that any key asks for."""
    given = [whole(document, key, 1, CHOICES_MAX) for key in ("n", "best_of") if key in document]
    for settings in _settings_of(document):
        given += [whole(settings, key, 1, CHOICES_MAX) for key in _CANDIDATES]
    return max((answers or 1 for answers in given), default=1)


def _settings_of(document: Json) -> list[Json]:
    """Give Gemini's settings, where there are any."""
    return [inner(document, key) for key in _SETTINGS if key in document]


def _prompts(document: Json) -> int:
    """Count the prompts of a completion: texts or lists of tokens. One list of tokens is one prompt."""
    prompt = document.get("prompt")
    if not isinstance(prompt, list) or not prompt or not isinstance(prompt[0], str | list):
        return 1
    if len(prompt) > PROMPTS_MAX:
        raise RefusedBodyError(f"Send at most {PROMPTS_MAX} prompts at once.")
    return len(prompt)


def _units(document: Document, endpoint: Endpoint, answers: int, readers: int) -> Units:
    """Count what an endpoint is asked for besides tokens."""
    match endpoint:
        case Endpoint.IMAGE_GENERATIONS | Endpoint.IMAGE_EDITS | Endpoint.IMAGE_VARIATIONS:
            return Units(images=answers * readers)
        case Endpoint.SPEECH:
            return Units(characters=characters_of(document.seen.get("input")) * readers)
        case Endpoint.VIDEOS:
            return Units(milliseconds=_video_seconds(document.settled) * 1000 * answers * readers)
        case Endpoint.RERANK:
            return Units(queries=-(-max(1, _documents(document.seen)) // DOCUMENTS_PER_QUERY) * readers)
        case _:
            return NO_UNITS


def _video_seconds(document: Json) -> int:
    """Read how long a film shall be; OpenAI's clients write the number as a text."""
    seconds = document.get("seconds")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit() and len(seconds) <= len("3600"):
        seconds = int(seconds)
    return whole({"seconds": seconds}, "seconds", 1, VIDEO_SECONDS_MAX) or VIDEO_SECONDS_USUAL


def _documents(document: Json) -> int:
    documents = document.get("documents")
    if isinstance(documents, list) and len(documents) > DOCUMENTS_MAX:
        raise RefusedBodyError(f"Send at most {DOCUMENTS_MAX} documents at once.")
    return len(documents) if isinstance(documents, list) else 0


def _repeated_bytes(document: Json) -> int:
    """Count what a reranker reads of the query besides the first time: it reads it with every document."""
    query = sum(map(utf8_bytes, texts_in(document.get("query"))))
    return query * max(0, _documents(document) - 1)


def _stream_options(document: Json, *, wanted: bool) -> str | None:
    options = document.get("stream_options")
    if not isinstance(options, dict | None) or len(options or {}) > KEYS_MAX:
        raise RefusedBodyError(f"`stream_options` must be an object of at most {KEYS_MAX} keys.")
    if not wanted or (options and options.get("include_usage") is True):
        return None
    try:
        merged = json.dumps({**(options or {}), "include_usage": True}, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return _USAGE_ASKED
    return merged if len(merged) <= STREAM_OPTIONS_BYTES_MAX else _USAGE_ASKED
