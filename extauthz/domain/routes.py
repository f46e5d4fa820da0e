"""What a request is: discovery, inference, info or something else.

The first question that is asked about a request, answered from its method and path alone. Envoy and the upstream may
read one path in two ways, so only a path with a single reading is ever discovery or info. A path under an API prefix,
and one that has any reasonable reading as inference, is inference: the worst that an honest client gets from that is
a 400, while the opposite mistake would be a call that nobody pays for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from extauthz.domain.endpoints import (
    DISCOVERY,
    ENDPOINTS,
    MODEL_PREFIXES,
    READS,
    Api,
    BodyKind,
    Charge,
    Endpoint,
    EndpointRow,
    row_of,
    segments_of,
)
from extauthz.domain.paths import ReadPath, read_path


class RouteClass(StrEnum):
    """What a request is for. Not sure, under an API prefix, means inference."""

    DISCOVERY = "discovery"
    INFERENCE = "inference"
    INFO = "info"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Route:
    """A classified request.

    `endpoint` is None for info and other routes. `model` is the model that the path names: of an entry of the model
    list, or of an inference path; None when the path names none. `api` is the one whose clients make such requests.
    `stream` when the path asks for a stream. `certain` is False where path and method have several readings. `guessed`
    when nobody knows whether the call runs the model that its body names. `result` is the id of the answer whose result
    is read.
    """

    route_class: RouteClass
    endpoint: Endpoint | None = None
    model: str | None = None
    api: Api = Api.OPENAI
    stream: bool = False
    certain: bool = True
    guessed: bool = False
    result: str | None = None

    @property
    def charge(self) -> Charge:
        """What it is paid by."""
        return Charge.NOTHING if self.endpoint is None else row_of(self.endpoint).charge


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A path of the table: the segments before and after those that stand for any, and the row that it belongs to.

    `names_model` says that these are a model, `anywhere` that the path stands below the API prefixes.
    """

    row: EndpointRow
    head: tuple[str, ...]
    tail: tuple[str, ...]
    open: bool
    names_model: bool
    anywhere: bool

    @classmethod
    def of(cls, row: EndpointRow, path: str) -> _Pattern:
        """Read a path of the table."""
        names_model = "{model}" in path
        head, variable, tail = path.partition("{model}" if names_model else "{rest}")
        return cls(row, segments_of(head), segments_of(tail), bool(variable), names_model, not path.startswith("/"))

    def fits(self, segments: tuple[str, ...]) -> bool:
        """Tell whether segments, in lower case, are this path."""
        fixed = len(self.head) + len(self.tail)
        if not (len(segments) > fixed if self.open else len(segments) == fixed):
            return False
        ends = (*segments[: len(self.head)], *segments[len(segments) - len(self.tail) :])
        return all(part in ("{id}", segment) for part, segment in zip((*self.head, *self.tail), ends, strict=True))


def _patterns(row: EndpointRow) -> Iterator[_Pattern]:
    for path in row.paths:
        # Google's custom methods are found by their verb.
        if ":" in path:
            continue
        yield _Pattern.of(row, path)
        if row.charge in (Charge.TOKENS, Charge.UNITS) and not path.startswith("/"):
            for prefix in MODEL_PREFIXES:
                yield _Pattern.of(row, f"{prefix}/{path}")


def _by_first_word(patterns: Iterable[_Pattern]) -> Mapping[tuple[bool | str, ...], tuple[_Pattern, ...]]:
    found: dict[tuple[bool | str, ...], tuple[_Pattern, ...]] = {}
    for pattern in patterns:
        key = (pattern.anywhere, pattern.head[0])
        found[key] = (*found.get(key, ()), pattern)
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---------------------------------------------------------------- what is known of paths
# Paths are compared without case.
_PATTERNS = _by_first_word(pattern for row in ENDPOINTS for pattern in _patterns(row))
_VERBS = {path.partition(":")[2].casefold(): row for row in ENDPOINTS for path in row.paths if ":" in path}

# Below these, and at the root, the whole table holds, and everything else is opaque inference.
_API_PREFIXES = (("openai", "v1"), ("cursor", "v1"), ("openai",), ("cursor",), ("v1",))

# First segments below which everything is opaque inference: the API's own words, as LiteLLM serves them at the root …
_API_WORDS = _words(
    "a2a assistants audio batches chat completions containers conversations decisions deployments embeddings engines "
    "evals files fine_tuning images interactions mcp mcp-rest messages moderations ocr rag realtime rerank responses "
    "search skills systemone threads uploads v1alpha v1beta v1beta1 vector_stores videos"
)
# … and the providers that LiteLLM passes requests through to. Model ids start with these words too.
_PROVIDERS = _words(
    "anthropic assemblyai azure azure_ai bedrock bespoke cohere comprehendmedical cursor deepgram eu.assemblyai fal_ai "
    "gemini gigachat langfuse laya milvus mistral nvidia_nim openai_passthrough openrouter tinyfish transcribe "
    "typesafe vertex-ai vertex_ai vllm watsonx"
)
# The ways to the model that servers of one model have besides OpenAI's: vLLM, SGLang, TGI, TEI, llama.cpp, Triton, and
# Cohere's own words. vLLM asks for its key below /v1 alone.
_SERVER_WORDS = _words(
    "classify completion decode detokenize embed embed_all embed_sparse embedding encode generate generate_stream "
    "generative_scoring infill invocations pooling predict reranking score similarity tokenize vertex_generate"
)
_SERVER_PATHS = frozenset(
    {("inference", "v1"), ("live", "sessions"), ("v2", "chat"), ("v2", "embed"), ("v2", "models")}
)
# Below a provider, what follows these is the model: Azure's deployments, Bedrock's `model/{id}/converse`.
_BEFORE_MODEL = _words("deployments engines model")
_MODEL_WORDS = frozenset(segments_of(prefix)[0] for prefix in MODEL_PREFIXES)
# Without a provider before it, `model/{id}/…` is Bedrock's only when it ends so: LiteLLM manages models there.
_BEDROCK_CALLS = _words("converse converse-stream invoke invoke-with-response-stream")
# Whose words a path speaks that begins so, where the table does not say it.
_APIS = {"anthropic": Api.ANTHROPIC} | dict.fromkeys(("gemini", "v1beta", "vertex-ai", "vertex_ai"), Api.GEMINI)
# Wherever they stand, a path with one of these is never waved through: it is a call below a prefix that we do not know.
_CALLS = _words("batches completions embeddings generations messages moderations rerank responses transcriptions")
# A call that ends so runs the model that its body names, wherever it stands.
_NAMING_CALLS = (_CALLS - {"batches"}) | _SERVER_WORDS | _words("chat converse edits invoke speech translations")

# For people and probes, GET and HEAD alone, and so is the root itself. A tree means everything below it too.
_INFO_PAGES = _words("docs favicon.ico get_favicon get_image healthz livez openapi.json readyz redoc robots.txt")
_INFO_TREES = _words("_next health litellm-asset-prefix swagger ui")
# ---------------------------------------------------------------------------

# Paths come from clients, so what is remembered of them is bounded: how many, and how long method and path together.
REMEMBERED_MAX = 2_048
REMEMBERED_CHARS_MAX = 256

# Frameworks that know one of these take its value for the method; whoever sends one has a method with two readings.
_METHOD_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
_NO_METHOD = ""
_UNREADABLE = Route(RouteClass.INFERENCE, Endpoint.OPAQUE, certain=False, guessed=True)
_ANY_API = DISCOVERY | {Endpoint.RESULTS, Endpoint.UNBILLED, Endpoint.OPAQUE}
_INFO = Route(RouteClass.INFO)
_OTHER = Route(RouteClass.OTHER)

# A path with several readings is inference as soon as one of these stands anywhere in it.
_SUSPICIOUS = _API_WORDS | _PROVIDERS | _CALLS | (_SERVER_WORDS - {"generate"}) | {"models", "openai", "v1"}

_MODEL_ID = re.compile(r"[\w.:@+~*=,/-]+")
# Google's custom methods follow a colon, as in `models/gemini-pro:generateContent`. Model ids have colons too.
_GOOGLE_CALL = re.compile(
    r".*:(?:async|batch|compute|count|embed|generate|predict|raw|server|stream)[^:]*", re.IGNORECASE
)


def classify(
    method: str, path: str, headers: Mapping[str, tuple[str, ...]], api_prefixes: tuple[str, ...] = ()
) -> Route:
    """Say what a request is for.

    `path` is as the client sent it, with its query; `headers` have lower-case names. `api_prefixes` are paths below
    which the API stands besides `/v1`, `/openai`, `/openai/v1` and the root.
    """
    if not headers.keys().isdisjoint(_METHOD_OVERRIDES):
        method = _NO_METHOD
    if _is_preflight(method, headers):
        return _INFO
    text = path.partition("?")[0]
    short = len(method) + len(text) <= REMEMBERED_CHARS_MAX
    found = _remembered if short else _classified
    return found(method, text, api_prefixes, upgrade="upgrade" in headers, anthropic="anthropic-version" in headers)


def _classified(method: str, text: str, api_prefixes: tuple[str, ...], *, upgrade: bool, anthropic: bool) -> Route:
    """Say what a request is for, by all that counts of it: its method, its path without the query, and two headers."""
    read = read_path(text)
    if read is None:
        return _in_words_of(_UNREADABLE, (), anthropic=anthropic)
    prefixes = tuple(segments_of(prefix.casefold()) for prefix in api_prefixes)
    # An upgraded connection carries calls that nobody sees; none of those that cost nothing needs one.
    request = _Request(method, read, _below(read.folded, prefixes), upgrade)
    route = _by_table(request) if read.canonical else _by_any_reading(request, prefixes)
    return _in_words_of(route, request.below, anthropic=anthropic)


# Nearly all requests go to a handful of paths: looking one up takes 0.4 µs, and finding its class 12.
_remembered = lru_cache(REMEMBERED_MAX)(_classified)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a route is found by; `below` are the path's segments in lower case, without a prefix of the operator's."""

    method: str
    read: ReadPath
    below: tuple[str, ...]
    upgrade: bool

    def surely(self, row: EndpointRow) -> bool:
        """Whether nobody can take this for another method or another path than the row's."""
        return self.method in row.methods and self.read.canonical and not self.upgrade

    @property
    def under_api(self) -> tuple[str, ...]:
        """The same, without an API prefix."""
        return _below(self.below, _API_PREFIXES)


def _in_words_of(route: Route, below: tuple[str, ...], *, anthropic: bool) -> Route:
    """Add whose clients ask, where the table leaves that open: lists, stored things and what is not known."""
    if route.api is not Api.OPENAI or route.endpoint not in _ANY_API:
        return route
    api = next((_APIS[word] for word in below[:1] if word in _APIS), None)
    return replace(route, api=api or (Api.ANTHROPIC if anthropic else Api.OPENAI))


def _is_preflight(method: str, headers: Mapping[str, tuple[str, ...]]) -> bool:
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _by_any_reading(request: _Request, prefixes: tuple[tuple[str, ...], ...]) -> Route:
    """Classify a path that Envoy and the upstream may read in two ways: never as discovery, info or free of charge."""
    route = _by_table(request)
    if route.route_class is RouteClass.INFERENCE:
        return replace(route, certain=False)
    suspicious = _SUSPICIOUS | {prefix[0] for prefix in prefixes if prefix}
    words = {segment.partition(";")[0].casefold() for segment in request.read.literal}
    return _OTHER if suspicious.isdisjoint(words) else _unsure(request)


def _by_table(request: _Request) -> Route:
    read, under_api = request.read, request.under_api
    fitting = [
        pattern
        for anywhere, segments in ((True, under_api), (False, request.below))
        for pattern in _PATTERNS.get((anywhere, *segments[:1]), ())
        if pattern.fits(segments)
    ]
    paid = [pattern for pattern in fitting if pattern.row.charge is not Charge.NOTHING]
    if not any(request.method in pattern.row.methods for pattern in paid):
        for pattern in fitting:
            if pattern.row.charge is Charge.NOTHING and (route := _free_of_charge(request, pattern)) is not None:
                return route
    for pattern in paid:
        if (route := _paid(request, pattern)) is not None:
            return route
    under_prefix = len(under_api) < len(read.segments)
    if _google_call(read) is not None:
        return _opaque(request)
    if any(pattern.row.endpoint in DISCOVERY for pattern in fitting):
        # Some frameworks might list models all the same, and nobody would prune that.
        return _unsure(request)
    if fitting or under_prefix or _is_inference_root(read.folded) or _is_call_of_the_root(request):
        return _opaque(request)
    return _INFO if request.method in READS and _is_info(read) else _OTHER


def _below(folded: tuple[str, ...], prefixes: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Give what stands behind the longest of the prefixes, everything when it has none of them."""
    longest = max((len(prefix) for prefix in prefixes if folded[: len(prefix)] == prefix), default=0)
    return folded[longest:]


def _model_of(request: _Request, pattern: _Pattern) -> tuple[str | None, int]:
    """Give the model that a fitting path names, and how many segments stand before what is open in it."""
    segments = request.read.segments
    below = request.under_api if pattern.anywhere else request.below
    fixed = len(segments) - len(below) + len(pattern.head)
    named = segments[fixed : len(segments) - len(pattern.tail)]
    return "/".join(named) if pattern.names_model else None, fixed


def _free_of_charge(request: _Request, pattern: _Pattern) -> Route | None:
    """Give the route of a row that costs nothing, where nobody can take the request for anything else."""
    row, read = pattern.row, request.read
    if not request.surely(row):
        return None
    model, fixed = _model_of(request, pattern)
    if row.endpoint not in DISCOVERY:
        result = read.segments[-1] if row.endpoint is Endpoint.RESULTS else None
        found = Route(RouteClass.INFERENCE, row.endpoint, api=row.api, result=result)
        return found if read.plain(len(read.segments)) else None
    sure = read.plain(fixed) and (model is None or _is_model_id(model))
    return Route(RouteClass.DISCOVERY, row.endpoint, model, row.api) if sure else None


def _paid(request: _Request, pattern: _Pattern) -> Route | None:
    """Give the route of a row that is paid, whatever the method; where no body is read it must be the row's own."""
    row = pattern.row
    if row.body is BodyKind.NONE and request.method not in row.methods:
        return None
    model, _ = _model_of(request, pattern)
    if model is not None and not request.read.canonical:
        # Whoever reads `free/../paid` differently reads another model. No model is called as all that was written, so
        # the request is refused, whatever its body names.
        return replace(_UNREADABLE, model="/".join(_written(request.read)), api=row.api)
    return Route(RouteClass.INFERENCE, row.endpoint, model, row.api, stream=row.endpoint is Endpoint.REALTIME)


def _opaque(request: _Request) -> Route:
    """Give inference that no row has, with the model where the path alone names it, as providers have it.

    Of a path with two readings it is what was written; no model is called so, and the request is refused.
    """
    read = request.read
    if (called := _google_call(read)) is not None:
        return _google_route(request, *called)
    written = _written(read)
    words = tuple(segment.partition(";")[0].casefold() for segment in written)
    own = request.under_api[:1]
    provided = bool(words) and (words[0] in _PROVIDERS or _is_bedrock(words))
    if provided or not _MODEL_WORDS.isdisjoint(own):
        place = next((place for place, word in enumerate(words[:-1]) if word in _BEFORE_MODEL), None)
        if place is not None:
            model = _provided_model(read, words[place], written[place + 1 :])
            return Route(RouteClass.INFERENCE, Endpoint.OPAQUE, model, stream="stream" in words[-1])
    # The turns of an upgraded connection may each name another model.
    guessed = request.upgrade or not words or words[-1] not in _NAMING_CALLS
    return Route(RouteClass.INFERENCE, Endpoint.OPAQUE, guessed=guessed)


def _unsure(request: _Request) -> Route:
    return replace(_opaque(request), certain=False, guessed=True)


def _provided_model(read: ReadPath, word: str, behind: tuple[str, ...]) -> str:
    """Give the model that follows a provider's word: all of what is behind it where somebody could read another."""
    if word == "model" and read.canonical:
        return "/".join(behind[:-1] or behind)
    one_reading = read.canonical and "%2f" not in read.text.casefold()
    return behind[0] if one_reading else "/".join(behind)


def _written(read: ReadPath) -> tuple[str, ...]:
    return tuple(filter(None, read.literal))


def _google_call(read: ReadPath) -> tuple[str, str] | None:
    """Give model and method of a call in Google's form, as it was written."""
    written = _written(read)
    words = tuple(segment.partition(";")[0].casefold() for segment in written)
    if "models" not in words[:-1] or not _GOOGLE_CALL.fullmatch(written[-1]):
        return None
    model, _, verb = "/".join(written[words.index("models") + 1 :]).rpartition(":")
    return model, verb


def _google_route(request: _Request, model: str, verb: str) -> Route:
    row, read = _VERBS.get(verb.casefold()), request.read
    if (
        row is not None
        and row.charge is Charge.NOTHING
        and not (request.surely(row) and read.plain(len(read.segments)))
    ):
        row = None
    endpoint = row.endpoint if row is not None and read.canonical else Endpoint.OPAQUE
    return Route(RouteClass.INFERENCE, endpoint, model, Api.GEMINI, stream="stream" in verb.casefold())


def _is_model_id(text: str) -> bool:
    """Whether nobody can take the text for a call."""
    if not _MODEL_ID.fullmatch(text) or _GOOGLE_CALL.fullmatch(text):
        return False
    return _API_WORDS.isdisjoint(text.casefold().split("/"))


def _is_bedrock(words: tuple[str, ...]) -> bool:
    return words[0] == "model" and words[-1] in _BEDROCK_CALLS


def _is_inference_root(folded: tuple[str, ...]) -> bool:
    """Whether a path that is under no prefix is inference all the same, or looks like a call under an unknown one."""
    if not folded:
        return False
    root = folded[0]
    known = root in _API_WORDS or root in _PROVIDERS or root in _SERVER_WORDS or folded[:2] in _SERVER_PATHS
    called = _is_bedrock(folded) or not _CALLS.isdisjoint(folded) or _GOOGLE_CALL.fullmatch(folded[-1]) is not None
    return known or called


def _is_call_of_the_root(request: _Request) -> bool:
    """Whether something is made at the root itself: TGI generates there."""
    return not request.read.folded and request.method not in READS


def _is_info(read: ReadPath) -> bool:
    folded = read.folded
    page = not folded or "/".join(folded) in _INFO_PAGES or folded[0] in _INFO_TREES
    return page and read.plain(len(folded))
