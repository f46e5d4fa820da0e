"""What a request is: discovery, inference, info or something else.

The first question that is asked about a request, answered from its method and path alone. Envoy and the upstream may
read one path in two ways, so only a path with a single reading is ever discovery or info. A path under an API prefix,
and one that has any reasonable reading as inference, is inference: the worst that an honest client gets from that is
a 400, while the opposite mistake would be a call that nobody pays for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_to_bytes

# Beyond it a path is not looked at: it is inference of an unknown kind.
PATH_CHARS_MAX = 8192


class RouteClass(StrEnum):
    """What a request is for. Not sure, under an API prefix, means inference."""

    DISCOVERY = "discovery"
    INFERENCE = "inference"
    INFO = "info"
    OTHER = "other"


class Endpoint(StrEnum):
    """The calls that are understood; OPAQUE is everything else that is inference."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODEL_LIST = "model_list"
    MODEL_ENTRY = "model_entry"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class Route:
    """A classified request.

    `endpoint` is None for info and other routes. `model` is the model that the path names: of an entry of the model
    list, or of an inference path; None when the path names none.
    """

    route_class: RouteClass
    endpoint: Endpoint | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table: the segments before and after the model that the path may name, and what is there."""

    head: tuple[str, ...]
    names_model: bool
    tail: tuple[str, ...]
    endpoint: Endpoint

    @classmethod
    def of(cls, path: str, endpoint: Endpoint) -> _Row:
        """Read a path in which `{model}` stands for one or more segments."""
        head, model, tail = path.partition("{model}")
        return cls(_split(head), bool(model), _split(tail), endpoint)


def _split(path: str) -> tuple[str, ...]:
    return tuple(filter(None, path.split("/")))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---------------------------------------------------------------- the table
# Paths are compared without case. The first row that fits counts, so `engines/{model}/chat/completions` stands before
# `engines/{model}/completions`, which fits as well with a model `x/chat`.

# Understood below every API prefix, and at the root. Discovery is for GET and HEAD alone.
_ROWS = (
    _Row.of("models", Endpoint.MODEL_LIST),
    _Row.of("models/{model}", Endpoint.MODEL_ENTRY),
    _Row.of("chat/completions", Endpoint.CHAT_COMPLETIONS),
    _Row.of("completions", Endpoint.COMPLETIONS),
    _Row.of("embeddings", Endpoint.EMBEDDINGS),
    _Row.of("engines/{model}/chat/completions", Endpoint.CHAT_COMPLETIONS),
    _Row.of("engines/{model}/completions", Endpoint.COMPLETIONS),
    _Row.of("engines/{model}/embeddings", Endpoint.EMBEDDINGS),
    _Row.of("deployments/{model}/chat/completions", Endpoint.CHAT_COMPLETIONS),
    _Row.of("deployments/{model}/completions", Endpoint.COMPLETIONS),
    _Row.of("deployments/{model}/embeddings", Endpoint.EMBEDDINGS),
)

# Everything else below these is opaque inference. They may follow a prefix of the operator's. Longest first.
_API_PREFIXES = (("openai", "v1"), ("openai",), ("v1",))

# First segments below which everything is opaque inference: the API's own words, as LiteLLM serves them at the root …
_API_WORDS = _words(
    "a2a assistants audio batches chat completions containers deployments embeddings engines evals files fine_tuning "
    "images interactions mcp mcp-rest messages moderations ocr rag realtime rerank responses search skills threads "
    "v1beta vector_stores videos"
)
# … and the providers that LiteLLM passes requests through to. Model ids start with these words too.
_PROVIDERS = _words(
    "anthropic assemblyai azure azure_ai bedrock cohere cursor deepgram eu.assemblyai fal_ai gemini langfuse milvus "
    "mistral nvidia_nim openai_passthrough openrouter vertex-ai vertex_ai vllm watsonx"
)
# Below a provider, what follows these is the model: Azure's deployments, Bedrock's `model/{id}/converse`.
_BEFORE_MODEL = _words("deployments engines model")
# Wherever they stand, a path with one of these is never waved through: it is a call below a prefix that we do not know.
_CALLS = _words("completions embeddings messages rerank responses")

# For people and probes, GET and HEAD alone, and so is the root itself. A tree means everything below it too.
_INFO_PAGES = _words("docs favicon.ico get_favicon get_image healthz livez openapi.json readyz redoc robots.txt")
_INFO_TREES = _words("_next health litellm-asset-prefix swagger ui")
# ---------------------------------------------------------------------------

_READS = frozenset({"GET", "HEAD"})
# Frameworks that know one of these take its value for the method; whoever sends one has a method with two readings.
_METHOD_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
_NO_METHOD = ""
_DISCOVERY = frozenset({Endpoint.MODEL_LIST, Endpoint.MODEL_ENTRY})
_OPAQUE = Route(RouteClass.INFERENCE, Endpoint.OPAQUE)
_INFO = Route(RouteClass.INFO)
_OTHER = Route(RouteClass.OTHER)

# A path with several readings is inference as soon as one of these stands anywhere in it.
_SUSPICIOUS = _API_WORDS | _PROVIDERS | _CALLS | {"models", "openai", "v1"}

# Visible ASCII and whole escapes; no backslash (a slash to some) and no fragment.
_PATH = re.compile(r"/(?:[!\"$&-\[\]-~]|%[0-9A-Fa-f]{2})*+")
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f-\x9f\\?#%]")
_MODEL_ID = re.compile(r"[\w.:@+~*=,/-]+")
# Google's custom methods follow a colon, as in `models/gemini-pro:generateContent`. Model ids have colons too.
_GOOGLE_CALL = re.compile(
    r".*:(?:async|batch|compute|count|embed|generate|predict|raw|server|stream)[^:]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Path:
    """A path as it can be read.

    `text` is how it was written, without query and one trailing slash. `segments` are decoded, with dot segments
    resolved and parameters removed. `literal` are all that were written, decoded, before any was resolved.
    """

    text: str
    segments: tuple[str, ...]
    literal: tuple[str, ...]

    @property
    def canonical(self) -> bool:
        """Whether it has one reading, apart from escapes."""
        return self.segments == self.literal

    def plain(self, count: int) -> bool:
        """Whether the first `count` segments are written without escapes."""
        return tuple(self.text.split("/")[1 : count + 1]) == self.segments[:count]


def classify(
    method: str, path: str, headers: Mapping[str, tuple[str, ...]], api_prefixes: tuple[str, ...] = ()
) -> Route:
    """Say what a request is for.

    `path` is as the client sent it, with its query; `headers` have lower-case names. `api_prefixes` are paths below
    which the API stands besides `/v1`, `/openai`, `/openai/v1` and the root.
    """
    if not _METHOD_OVERRIDES.isdisjoint(headers):
        method = _NO_METHOD
    if _is_preflight(method, headers):
        return _INFO
    read = _read(path)
    if read is None:
        return _OPAQUE
    prefixes = tuple(_split(prefix.casefold()) for prefix in api_prefixes)
    if read.canonical:
        return _by_table(method, read, prefixes)
    return _by_any_reading(method, read, prefixes)


def is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a path stands below one of some prefixes. One that can be read in several ways never does."""
    if not prefixes:
        return False
    read = _read(path)
    if read is None or not read.canonical:
        return False
    folded = tuple(segment.casefold() for segment in read.segments)
    return any(folded[: len(prefix)] == prefix for prefix in (_split(text.casefold()) for text in prefixes))


def _is_preflight(method: str, headers: Mapping[str, tuple[str, ...]]) -> bool:
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _read(path: str) -> _Path | None:
    """Decode a path once; None when it cannot be decoded, or might be decoded once more."""
    text = path.partition("?")[0]
    if len(text) > PATH_CHARS_MAX or not _PATH.fullmatch(text):
        return None
    text = text.removesuffix("/")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None
    if _AMBIGUOUS.search(decoded):
        return None
    literal = tuple(decoded.split("/")[1:])
    return _Path(text, _resolve(literal), literal)


def _resolve(literal: Iterable[str]) -> tuple[str, ...]:
    """Strip parameters, collapse slashes and follow dot segments."""
    segments: list[str] = []
    for written in literal:
        segment = written.partition(";")[0]
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return tuple(segments)


def _by_any_reading(method: str, read: _Path, prefixes: tuple[tuple[str, ...], ...]) -> Route:
    """Classify a path that Envoy and the upstream may read in two ways: never as discovery, never as info."""
    route = _by_table(method, read, prefixes)
    if route.route_class is RouteClass.INFERENCE:
        return route
    suspicious = _SUSPICIOUS | {prefix[0] for prefix in prefixes if prefix}
    words = {segment.partition(";")[0].casefold() for segment in read.literal}
    return _OTHER if suspicious.isdisjoint(words) else _opaque(read)


def _by_table(method: str, read: _Path, prefixes: tuple[tuple[str, ...], ...]) -> Route:
    folded = tuple(segment.casefold() for segment in read.segments)
    below = _below(_below(folded, prefixes), _API_PREFIXES)
    under_prefix = len(below) < len(folded)
    for row in _ROWS:
        if _fits(row, below):
            return _route(method, read, row, skipped=len(folded) - len(below))
    if under_prefix or _is_inference_root(folded):
        return _opaque(read)
    return _INFO if method in _READS and _is_info(read, folded) else _OTHER


def _below(folded: tuple[str, ...], prefixes: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Give what stands behind the longest of the prefixes, everything when it has none of them."""
    longest = max((len(prefix) for prefix in prefixes if folded[: len(prefix)] == prefix), default=0)
    return folded[longest:]


def _fits(row: _Row, below: tuple[str, ...]) -> bool:
    fixed = len(row.head) + len(row.tail)
    long_enough = len(below) > fixed if row.names_model else len(below) == fixed
    return long_enough and below[: len(row.head)] == row.head and below[len(below) - len(row.tail) :] == row.tail


def _route(method: str, read: _Path, row: _Row, skipped: int) -> Route:
    """Give the route of a row; `skipped` segments of the path are its prefix."""
    fixed = skipped + len(row.head)
    model = "/".join(read.segments[fixed : len(read.segments) - len(row.tail)]) if row.names_model else None
    if row.endpoint in _DISCOVERY:
        sure = method in _READS and read.plain(fixed) and (model is None or _is_model_id(model))
        return Route(RouteClass.DISCOVERY, row.endpoint, model) if sure else _opaque(read)
    # Whoever reads `free/../paid` differently reads another model, so such a path names none.
    return Route(RouteClass.INFERENCE, row.endpoint, model) if model is None or read.canonical else _OPAQUE


def _opaque(read: _Path) -> Route:
    """Give inference of an unknown kind, with the model where the path alone names it, as providers have it.

    Of a path with two readings it is what was written; no model is called so, and the request is refused.
    """
    written = tuple(filter(None, read.literal))
    words = tuple(segment.partition(";")[0].casefold() for segment in written)
    if "models" in words and _GOOGLE_CALL.fullmatch(written[-1]):
        called = "/".join(written[words.index("models") + 1 :])
        return Route(RouteClass.INFERENCE, Endpoint.OPAQUE, called.rpartition(":")[0])
    if words and words[0] in _PROVIDERS and not _BEFORE_MODEL.isdisjoint(words[:-1]):
        place = next(place for place, word in enumerate(words) if word in _BEFORE_MODEL)
        model = written[place + 1] if read.canonical else "/".join(written[place + 1 :])
        return Route(RouteClass.INFERENCE, Endpoint.OPAQUE, model)
    return _OPAQUE


def _is_model_id(text: str) -> bool:
    """Whether nobody can take the text for a call."""
    if not _MODEL_ID.fullmatch(text) or _GOOGLE_CALL.fullmatch(text):
        return False
    return _API_WORDS.isdisjoint(text.casefold().split("/"))


def _is_inference_root(folded: tuple[str, ...]) -> bool:
    """Whether a path that is under no prefix is inference all the same, or looks like a call under an unknown one."""
    root = folded[0] if folded else ""
    return root in _API_WORDS or root in _PROVIDERS or not _CALLS.isdisjoint(folded)


def _is_info(read: _Path, folded: tuple[str, ...]) -> bool:
    page = not folded or "/".join(folded) in _INFO_PAGES or folded[0] in _INFO_TREES
    return page and read.plain(len(folded))
