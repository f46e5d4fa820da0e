"""The table of calls that are understood: where each stands, in which API's words, and what it costs by.

Classification, the reading of bodies, estimates, refusals and settlement go by it, and docs/endpoints.md is written
from it. What stands under an API prefix and is not here is `opaque`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Endpoint(StrEnum):
    """The calls that are understood; OPAQUE is everything else that is inference.

    RESULTS are reads of what a background response, a batch or a video has become: they end what was held for it.
    """

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    GENERATE_CONTENT = "generate_content"
    COUNT_TOKENS = "count_tokens"
    IMAGE_GENERATIONS = "image_generations"
    IMAGE_EDITS = "image_edits"
    IMAGE_VARIATIONS = "image_variations"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    RERANK = "rerank"
    MODERATIONS = "moderations"
    VIDEOS = "videos"
    REALTIME = "realtime"
    OCR = "ocr"
    SEARCH = "search"
    BATCHES = "batches"
    RUNS = "runs"
    FILES = "files"
    RESULTS = "results"
    UNBILLED = "unbilled"
    OPAQUE = "opaque"

    MODEL_LIST = "model_list"
    MODEL_ENTRY = "model_entry"
    MODEL_INFO = "model_info"
    MODEL_GROUP_INFO = "model_group_info"
    OLLAMA_TAGS = "ollama_tags"


class Api(StrEnum):
    """Whose clients make the call: refusals have the shape that these understand."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class BodyKind(StrEnum):
    """How a request's body is written; NONE is not read at all."""

    JSON = "json"
    FORM = "form"
    NONE = "none"


class Charge(StrEnum):
    """What a call is paid by.

    TOKENS are counted by the answer. UNITS are known from the request: pictures, characters, seconds. FLAT is a
    configured amount, where neither tells. NOTHING is free for everybody: no model runs.
    """

    TOKENS = "tokens"
    UNITS = "units"
    FLAT = "flat"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """A line of the table.

    A path stands below every API prefix and at the root; one that begins with `/` stands as it is written. In it
    `{model}` is one or more segments, `{id}` is one, and `{rest}`, at its end, one or more. Rows of one endpoint differ
    in where they stand and whose clients call them, and in nothing else.
    """

    endpoint: Endpoint
    paths: tuple[str, ...]
    methods: tuple[str, ...] = ("POST",)
    api: Api = Api.OPENAI
    body: BodyKind = BodyKind.JSON
    charge: Charge = Charge.TOKENS
    streams: bool = False


READS = ("GET", "HEAD")
_READS_AND_DELETES = (*READS, "DELETE")

# A row that is paid by tokens or units stands below these as well; the model is then the path's.
MODEL_PREFIXES = ("engines/{model}", "deployments/{model}")


def _discovery(endpoint: Endpoint, *paths: str) -> EndpointRow:
    return EndpointRow(endpoint, paths, READS, body=BodyKind.NONE, charge=Charge.NOTHING)


def _unbilled(methods: tuple[str, ...], *paths: str, api: Api = Api.OPENAI) -> EndpointRow:
    return EndpointRow(Endpoint.UNBILLED, paths, methods, api, BodyKind.NONE, Charge.NOTHING)


def _results(*paths: str, api: Api = Api.OPENAI) -> EndpointRow:
    return EndpointRow(Endpoint.RESULTS, paths, ("GET",), api, BodyKind.NONE, Charge.NOTHING)


# The first row that fits counts, so `engines/{model}/chat/completions` comes before `engines/{model}/completions`,
# which fits as well with a model `x/chat`.
ENDPOINTS = (
    _discovery(Endpoint.MODEL_LIST, "models"),
    _discovery(Endpoint.MODEL_ENTRY, "models/{model}"),
    _discovery(Endpoint.MODEL_INFO, "model/info", "/v2/model/info"),
    _discovery(Endpoint.MODEL_GROUP_INFO, "model_group/info"),
    _discovery(Endpoint.OLLAMA_TAGS, "/api/tags"),
    EndpointRow(Endpoint.CHAT_COMPLETIONS, ("chat/completions",), streams=True),
    EndpointRow(Endpoint.COMPLETIONS, ("completions",), streams=True),
    EndpointRow(Endpoint.EMBEDDINGS, ("embeddings",)),
    EndpointRow(
        Endpoint.EMBEDDINGS, ("models/{model}:embedContent", "models/{model}:batchEmbedContents"), api=Api.GEMINI
    ),
    EndpointRow(Endpoint.RESPONSES, ("responses", "responses/compact"), streams=True),
    EndpointRow(Endpoint.MESSAGES, ("messages", "/anthropic/v1/messages"), api=Api.ANTHROPIC, streams=True),
    EndpointRow(
        Endpoint.GENERATE_CONTENT,
        ("models/{model}:generateContent", "models/{model}:streamGenerateContent"),
        api=Api.GEMINI,
        streams=True,
    ),
    EndpointRow(Endpoint.COUNT_TOKENS, ("responses/input_tokens", "/utils/token_counter"), charge=Charge.NOTHING),
    EndpointRow(
        Endpoint.COUNT_TOKENS,
        ("messages/count_tokens", "/anthropic/v1/messages/count_tokens"),
        api=Api.ANTHROPIC,
        charge=Charge.NOTHING,
    ),
    EndpointRow(Endpoint.COUNT_TOKENS, ("models/{model}:countTokens",), api=Api.GEMINI, charge=Charge.NOTHING),
    EndpointRow(Endpoint.IMAGE_GENERATIONS, ("images/generations",), charge=Charge.UNITS, streams=True),
    EndpointRow(Endpoint.IMAGE_EDITS, ("images/edits",), body=BodyKind.FORM, charge=Charge.UNITS, streams=True),
    EndpointRow(Endpoint.IMAGE_VARIATIONS, ("images/variations",), body=BodyKind.FORM, charge=Charge.UNITS),
    EndpointRow(Endpoint.SPEECH, ("audio/speech",), charge=Charge.UNITS, streams=True),
    EndpointRow(Endpoint.TRANSCRIPTIONS, ("audio/transcriptions",), body=BodyKind.FORM, streams=True),
    EndpointRow(Endpoint.TRANSLATIONS, ("audio/translations",), body=BodyKind.FORM),
    EndpointRow(Endpoint.RERANK, ("rerank", "/v2/rerank"), charge=Charge.UNITS),
    EndpointRow(Endpoint.MODERATIONS, ("moderations",)),
    EndpointRow(Endpoint.VIDEOS, ("videos",), body=BodyKind.FORM, charge=Charge.UNITS),
    EndpointRow(Endpoint.REALTIME, ("realtime",), ("GET",), body=BodyKind.NONE, streams=True),
    EndpointRow(Endpoint.OCR, ("ocr",), charge=Charge.FLAT),
    EndpointRow(Endpoint.SEARCH, ("search", "search/{id}"), charge=Charge.FLAT),
    EndpointRow(Endpoint.BATCHES, ("batches",), charge=Charge.FLAT),
    EndpointRow(Endpoint.BATCHES, ("messages/batches",), api=Api.ANTHROPIC, charge=Charge.FLAT),
    EndpointRow(Endpoint.FILES, ("files",), body=BodyKind.FORM, charge=Charge.NOTHING),
    # The model may be an assistant's. Before `threads/{id}`, which fits a thread that is made to run at once.
    EndpointRow(Endpoint.RUNS, ("threads/runs", "threads/{id}/runs"), charge=Charge.FLAT, streams=True),
    _results("batches/{id}", "responses/{id}", "threads/{id}/runs/{id}", "videos/{id}"),
    _results("messages/batches/{id}", api=Api.ANTHROPIC),
    _unbilled(READS, "assistants", "batches", "containers", "evals", "files", "fine_tuning/jobs", "skills"),
    _unbilled(READS, "vector_stores", "videos"),
    _unbilled(
        _READS_AND_DELETES,
        "assistants/{rest}",
        "batches/{rest}",
        "chat/completions/{rest}",
        "containers/{rest}",
        "conversations/{rest}",
        "evals/{rest}",
        "files/{rest}",
        "fine_tuning/jobs/{rest}",
        "responses/{rest}",
        "skills/{rest}",
        "threads/{rest}",
        "uploads/{rest}",
        "vector_stores/{rest}",
        "videos/{rest}",
    ),
    _unbilled(READS, "messages/batches", api=Api.ANTHROPIC),
    _unbilled(_READS_AND_DELETES, "messages/batches/{rest}", api=Api.ANTHROPIC),
    _unbilled(("POST",), "messages/batches/{id}/cancel", api=Api.ANTHROPIC),
    _unbilled(
        ("POST",),
        "assistants",
        "assistants/{id}",
        "batches/{id}/cancel",
        "conversations",
        "conversations/{id}",
        "conversations/{id}/items",
        "fine_tuning/jobs/{id}/cancel",
        "responses/{id}/cancel",
        "threads",
        "threads/{id}",
        "threads/{id}/messages",
        "threads/{id}/messages/{id}",
        "threads/{id}/runs/{id}/cancel",
        "uploads",
        "uploads/{id}/cancel",
        "uploads/{id}/complete",
        "uploads/{id}/parts",
    ),
    # Ollama's own API.
    EndpointRow(Endpoint.OPAQUE, ("/api/chat", "/api/embed", "/api/generate"), charge=Charge.FLAT, streams=True),
)

DISCOVERY = frozenset(
    {
        Endpoint.MODEL_LIST,
        Endpoint.MODEL_ENTRY,
        Endpoint.MODEL_INFO,
        Endpoint.MODEL_GROUP_INFO,
        Endpoint.OLLAMA_TAGS,
    }
)

_BY_ENDPOINT = {row.endpoint: row for row in reversed(ENDPOINTS)}


def row_of(endpoint: Endpoint) -> EndpointRow:
    """Give the first row of an endpoint: what it says of body, charge and stream holds for all of them."""
    return _BY_ENDPOINT[endpoint]


def segments_of(path: str) -> tuple[str, ...]:
    """Split a path into its segments."""
    return tuple(filter(None, path.split("/")))
