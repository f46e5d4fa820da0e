"""What a request is, by method and path."""

from dataclasses import replace

import pytest

from extauthz.domain.endpoints import ENDPOINTS, Api, Charge, Endpoint, EndpointRow, row_of
from extauthz.domain.paths import PATH_CHARS_MAX
from extauthz.domain.routes import REMEMBERED_CHARS_MAX, REMEMBERED_MAX, Route, RouteClass, _remembered, classify

LIST = Route(RouteClass.DISCOVERY, Endpoint.MODEL_LIST)
OPAQUE = Route(RouteClass.INFERENCE, Endpoint.OPAQUE, guessed=True)
NAMING = replace(OPAQUE, guessed=False)
UNSURE = replace(OPAQUE, certain=False)
CHAT = Route(RouteClass.INFERENCE, Endpoint.CHAT_COMPLETIONS)
UNSURE_CHAT = Route(RouteClass.INFERENCE, Endpoint.CHAT_COMPLETIONS, certain=False)
INFO = Route(RouteClass.INFO)
OTHER = Route(RouteClass.OTHER)

PREFLIGHT = {"origin": ("https://chat.example",), "access-control-request-method": ("POST",)}


def entry(model: str) -> Route:
    """Give the route of one entry of the model list."""
    return Route(RouteClass.DISCOVERY, Endpoint.MODEL_ENTRY, model)


def call(endpoint: Endpoint, model: str | None = None) -> Route:
    """Give the route of an inference call."""
    return Route(RouteClass.INFERENCE, endpoint, model)


def gemini(endpoint: Endpoint, model: str, *, stream: bool = False, certain: bool = True) -> Route:
    """Give the route of a call in Google's form."""
    return Route(RouteClass.INFERENCE, endpoint, model, Api.GEMINI, stream, certain)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/models", LIST),
        ("/v1/models", LIST),
        ("/v1/models/", LIST),
        ("/v1/models?limit=20&x=/v1/chat/completions", LIST),
        ("/openai/models", LIST),
        ("/openai/v1/models", LIST),
        ("/OpenAI/V1/Models", LIST),
        ("/models/gpt-4o", entry("gpt-4o")),
        ("/v1/models/gpt-4o/", entry("gpt-4o")),
        ("/v1/models/GPT-4o?x", entry("GPT-4o")),
        ("/v1/models/openai/gpt-4o", entry("openai/gpt-4o")),
        ("/v1/models/openai%2Fgpt-4o", entry("openai/gpt-4o")),
        ("/v1/models/azure%2fgpt%2d4o", entry("azure/gpt-4o")),
        ("/v1/models/openai%2F%2A", entry("openai/*")),
        ("/v1/models/ft:gpt-4o:acme::9xZ", entry("ft:gpt-4o:acme::9xZ")),
        ("/v1/models/mod%C3%A8le", entry("modèle")),
    ],
)
def test_discovery(method: str, path: str, route: Route) -> None:
    """A model list and its entries are discovery where the path has one reading; HEAD is GET."""
    assert route == classify(method, path, {})


@pytest.mark.parametrize(
    ("method", "path", "result"),
    [
        ("GET", "/v1/responses/resp_A", "resp_A"),
        ("GET", "/Responses/resp_A/?stream=true", "resp_A"),
        ("GET", "/openai/v1/batches/batch_1", "batch_1"),
        ("GET", "/videos/video_1", "video_1"),
        ("GET", "/v1/messages/batches/msgbatch_1", "msgbatch_1"),
        ("GET", "/v1/threads/thread_1/runs/run_1", "run_1"),
        ("GET", "/v1/threads/thread_1/runs", None),
        ("GET", "/v1/threads/runs", None),
        ("HEAD", "/v1/responses/resp_A", None),
        ("DELETE", "/v1/responses/resp_A", None),
        ("GET", "/v1/responses/resp_A/input_items", None),
        ("GET", "/v1/responses/resp_A/../resp_B", None),
        ("GET", "/v1/responses/resp_A%2Fx", None),
        ("GET", "/v1/responses/x;resp_A", None),
        ("GET", "/v1/videos/video_1/content", None),
        ("GET", "/v1/files/resp_A", None),
        ("GET", "/v1/files/resp_A/content", None),
        ("GET", "/v1/batches", None),
    ],
)
def test_reads_of_results(method: str, path: str, result: str | None) -> None:
    """Only a read of the object itself, by a path with one reading, shows what came of it; a file is no such object."""
    route = classify(method, path, {})

    assert result == route.result
    assert (result is not None) is (route.endpoint is Endpoint.RESULTS)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/chat/completions", CHAT),
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/Chat/Completions/?stream=1", CHAT),
        ("POST", "/openai/v1/chat/completions", CHAT),
        ("post", "/v1/chat/completions", CHAT),
        ("GET", "/v1/chat/completions", CHAT),
        ("POST", "/completions", call(Endpoint.COMPLETIONS)),
        ("POST", "/v1/completions", call(Endpoint.COMPLETIONS)),
        ("POST", "/v1/embeddings", call(Endpoint.EMBEDDINGS)),
        ("POST", "/engines/gpt-4o/chat/completions", call(Endpoint.CHAT_COMPLETIONS, "gpt-4o")),
        ("POST", "/engines/openai%2Fgpt-4o/completions", call(Endpoint.COMPLETIONS, "openai/gpt-4o")),
        ("POST", "/v1/engines/Ada/embeddings", call(Endpoint.EMBEDDINGS, "Ada")),
        (
            "POST",
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            call(Endpoint.CHAT_COMPLETIONS, "gpt-4o"),
        ),
    ],
)
def test_understood_inference(method: str, path: str, route: Route) -> None:
    """The calls whose usage is understood have their endpoint, and the model that the path names."""
    assert route == classify(method, path, {})


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/V1/anything",
        "/openai/",
        "/Bedrock/models",
        "/engines",
        "/v1/messagesx",
        "/images",
        "/v2/rerank/x",
        "/mcp",
        "/fal_ai/x",
        "/v1/realtime/client_secrets",
        "/gigachat/x",
        "/transcribe/StartTranscriptionJob",
        "/v2/models/x/infer",
        "/v1alpha/tunedModels/x:generateContent",
        "/v1beta1/projects/p/endpoints/1:predict",
        "/anywhere/endpoints/1:streamRawPredict",
        "/groq/v1/batches",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_opaque_inference(method: str, path: str) -> None:
    """Whatever else stands below an API prefix or among the API's words is inference, whatever the method.

    Nobody knows whether it runs the model that its body may name.
    """
    assert classify(method, path, {}) == OPAQUE


@pytest.mark.parametrize(
    "path",
    [
        "/chat",
        "/api/chat",
        "/api/generate",
        "/tenant/v1/chat/completions",
        "/v1/score",
        "/invocations",
        "/generate",
        "/generate_stream",
        "/inference/v1/generate",
        "/completion",
        "/infill",
        "/embed",
        "/pooling",
        "/classify",
        "/v2/chat",
        "/v2/embed",
        "/v2/models/x/generate",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_calls_of_servers_of_one_model(method: str, path: str) -> None:
    """So is what vLLM, TGI, llama.cpp and others serve beside OpenAI's calls; it runs the model that its body names."""
    assert classify(method, path, {}) == NAMING


def test_an_upgraded_call() -> None:
    """Who speaks further in an upgraded connection may name a model with every turn."""
    upgrade = {"upgrade": ("websocket",)}

    assert classify("GET", "/openai_passthrough/v1/responses?model=m", upgrade) == OPAQUE
    assert classify("GET", "/api/chat", upgrade) == NAMING


@pytest.mark.parametrize("path", ["/", "/?x"])
def test_a_call_of_the_root(path: str) -> None:
    """TGI generates at the root itself, which anybody may read."""
    assert classify("POST", path, {}) == OPAQUE
    assert classify("GET", path, {}) == classify("HEAD", path, {}) == INFO


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        pytest.param("POST", "/v1/models", UNSURE, id="posting to the list"),
        pytest.param("get", "/v1/models", UNSURE, id="a method that only looks like GET"),
        pytest.param("OPTIONS", "/v1/models", UNSURE, id="OPTIONS without preflight headers"),
        pytest.param("POST", "/v1/models/../chat/completions", UNSURE_CHAT, id="dot segments"),
        pytest.param("GET", "/v1/models/../chat/completions", UNSURE_CHAT, id="dot segments with GET"),
        pytest.param("POST", "/v1/models%2f..%2fchat/completions", UNSURE_CHAT, id="escaped dot segments"),
        pytest.param("GET", "/v1/models/%2e%2e/chat/completions", UNSURE_CHAT, id="escaped dots"),
        pytest.param("GET", "/v1/models/x%2F..%2F..%2Fchat/completions", UNSURE_CHAT, id="dots hidden in a model id"),
        pytest.param("GET", "//v1/models;x", UNSURE, id="double slash and parameters"),
        pytest.param("GET", "/v1/models;x=/chat/completions", UNSURE, id="parameters hide the list"),
        pytest.param("GET", "/v1;/chat/completions", UNSURE_CHAT, id="parameters on the prefix"),
        pytest.param("GET", "//v1/models", UNSURE, id="double slash"),
        pytest.param("GET", "/v1/models//", UNSURE, id="two trailing slashes"),
        pytest.param("GET", "/v1/models/gpt%2F", UNSURE, id="escaped trailing slash"),
        pytest.param("GET", "/v1/./models", UNSURE, id="single dot"),
        pytest.param("GET", "/ui/../v1/models", UNSURE, id="out of the pages into the API"),
        pytest.param("GET", "/v1/x/../../health", UNSURE, id="out of the API into the pages"),
        pytest.param("GET", "/ui/..%2Fv1/chat/completions", UNSURE_CHAT, id="escaped way out"),
        pytest.param("GET", "/v1/m%6fdels", UNSURE, id="escape in a fixed word"),
        pytest.param("GET", "/%76%31/models", UNSURE, id="escape in the prefix"),
        pytest.param("GET", "/v1/models%252f..%252fchat/completions", UNSURE, id="escaped twice"),
        pytest.param("GET", "/v1/models/x%25", UNSURE, id="an escaped percent sign"),
        pytest.param("GET", "/v1/models/x%3Fy", UNSURE, id="escaped question mark"),
        pytest.param("GET", "/v1/models/x%23y", UNSURE, id="escaped hash"),
        pytest.param("GET", "/v1/models/x%00", UNSURE, id="escaped NUL"),
        pytest.param("GET", "/v1/models\\..\\chat\\completions", UNSURE, id="backslashes"),
        pytest.param("GET", "/v1/models/%5c..%5cchat", UNSURE, id="escaped backslashes"),
        pytest.param("GET", "/v1/models#/../chat/completions", UNSURE, id="fragment"),
        pytest.param("GET", "/v1/models/%ff", UNSURE, id="invalid UTF-8"),
        pytest.param("GET", "/ui%5C..%5Cv1%5Cx", UNSURE, id="escaped backslashes among the pages"),
        pytest.param("GET", "/ui/%252e%252e/x", UNSURE, id="escaped twice among the pages"),
        pytest.param("GET", "/ui%3F/x", UNSURE, id="escaped question mark among the pages"),
        pytest.param("GET", "/v1;a/../health", UNSURE, id="out of the API with parameters"),
        pytest.param("GET", "/v1/models/a//b", UNSURE, id="double slash in a model id"),
        pytest.param("GET", "/health%zz", UNSURE, id="invalid escape"),
        pytest.param("GET", "/health%2", UNSURE, id="half an escape"),
        pytest.param("GET", "/v1/models\x7f", UNSURE, id="control character"),
        pytest.param("GET", "/v1/mod els", UNSURE, id="space"),
        pytest.param("GET", "/v1/models/modèle", UNSURE, id="bare non-ASCII"),
        pytest.param("CONNECT", "", UNSURE, id="no path"),
        pytest.param("GET", "*", UNSURE, id="asterisk"),
        pytest.param("GET", "http://host/v1/models", UNSURE, id="absolute form"),
        pytest.param("GET", "?/v1/models", UNSURE, id="only a query"),
        pytest.param("GET", "/health/" + "x" * PATH_CHARS_MAX, UNSURE, id="too long"),
        pytest.param(
            "GET", "/v1/models/g/pro:generateContent", gemini(Endpoint.GENERATE_CONTENT, "g/pro"), id="Google"
        ),
        pytest.param("GET", "/v1/models/pro%3AcountTokens", gemini(Endpoint.OPAQUE, "pro"), id="an escaped one"),
        pytest.param("GET", "/v1/models/pro:countTokens", gemini(Endpoint.OPAQUE, "pro"), id="counting by GET"),
        pytest.param(
            "POST",
            "/v1/models/free/../paid:countTokens",
            gemini(Endpoint.OPAQUE, "free/../paid", certain=False),
            id="Google's form with two readings",
        ),
        pytest.param(
            "POST",
            "/v1/models;x/paid:countTokens;x",
            gemini(Endpoint.OPAQUE, "paid", certain=False),
            id="with parameters",
        ),
        pytest.param(
            "POST",
            "/v1/models/paid;x:countTokens",
            gemini(Endpoint.OPAQUE, "paid;x", certain=False),
            id="with a parameter",
        ),
        pytest.param(
            "POST", "/llm/v1beta/models/pro:generateContent", gemini(Endpoint.GENERATE_CONTENT, "pro"), id="elsewhere"
        ),
        pytest.param("POST", "/Bedrock/model/claude/invoke", call(Endpoint.OPAQUE, "claude"), id="Bedrock's model"),
        pytest.param(
            "POST",
            "/azure/openai/deployments/paid/chat/completions",
            call(Endpoint.OPAQUE, "paid"),
            id="Azure's deployment",
        ),
        pytest.param(
            "POST",
            "/azure/openai/deployments//paid;x/chat",
            replace(call(Endpoint.OPAQUE, "paid;x/chat"), certain=False),
            id="Azure's deployment with two readings",
        ),
        pytest.param(
            "POST", "/openai/deployments/paid/extensions", call(Endpoint.OPAQUE, "paid"), id="not in the table"
        ),
        pytest.param("POST", "/model/claude/invoke", call(Endpoint.OPAQUE, "claude"), id="Bedrock itself"),
        pytest.param("POST", "/model/a%2Fb/converse", call(Endpoint.OPAQUE, "a/b"), id="Bedrock itself, escaped"),
        pytest.param("POST", "/bedrock/model/free%2Fpaid/invoke", call(Endpoint.OPAQUE, "free/paid"), id="two in one"),
        pytest.param(
            "POST",
            "/azure/openai/deployments/free%2Fpaid/chat",
            call(Endpoint.OPAQUE, "free/paid/chat"),
            id="a deployment that may end elsewhere",
        ),
        pytest.param("POST", "/x/v1/images/generations", NAMING, id="pictures below an unknown prefix"),
        pytest.param("POST", "/v1/batches//cancel", UNSURE, id="a batch without a name"),
        pytest.param("POST", "/v1/batches/x/../cancel", UNSURE, id="a cancelled nothing"),
        pytest.param("POST", "/v1/batches/x%2Fcancel", OPAQUE, id="an escaped cancellation"),
        pytest.param("POST", "/v1/files/../chat/completions", UNSURE_CHAT, id="out of the files"),
        pytest.param("POST", "/v1/videos/x", OPAQUE, id="posting to what is stored"),
        pytest.param("POST", "/v1/videos/x/remix", OPAQUE, id="a film out of another"),
        pytest.param("POST", "/v1/threads/x/runs", call(Endpoint.RUNS), id="a run of a thread"),
        pytest.param("POST", "/v1/threads/runs", call(Endpoint.RUNS), id="a thread that is made and run"),
        pytest.param("POST", "/threads/Runs/", call(Endpoint.RUNS), id="the same at the root"),
        pytest.param("POST", "/v1/threads/x/runs/y/submit_tool_outputs", OPAQUE, id="a run that goes on"),
        pytest.param("POST", "/v1/realtime", OPAQUE, id="posting to what nobody reads"),
        pytest.param("POST", "/api/tags", UNSURE, id="posting to another list"),
        pytest.param("GET", "/utils/token_counter", OPAQUE, id="not how tokens are counted"),
        pytest.param("GET", "/v1/models/chat/completions", UNSURE, id="a model id that is a call"),
        pytest.param("GET", "/v1/models/x%2Fembeddings", UNSURE, id="a model id that ends in a call"),
        pytest.param("GET", "/v1/models/images/generations", UNSURE, id="a model id that is another call"),
        pytest.param(
            "POST",
            "/engines/free/../paid/chat/completions",
            replace(UNSURE, model="engines/free/../paid/chat/completions"),
            id="the model has two readings",
        ),
        pytest.param("POST", "/proxy/v1/chat/completions", NAMING, id="a call below an unknown prefix"),
        pytest.param("GET", "/ui/embeddings", NAMING, id="a call among the pages"),
    ],
)
def test_attacks(method: str, path: str, route: Route) -> None:
    """A path that somebody could read as a call is paid for."""
    assert route == classify(method, path, {})


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/health/",
        "/health/readiness",
        "/healthz",
        "/readyz",
        "/livez",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/favicon.ico",
        "/robots.txt",
        "/ui",
        "/ui/_next/static/chunk-1.js",
    ],
)
def test_info(path: str) -> None:
    """Pages for people and probes are info, for reading only."""
    assert classify("GET", path, {}) == INFO
    assert classify("HEAD", path, {}) == INFO
    assert classify("POST", path, {}) == OTHER


@pytest.mark.parametrize(
    "path",
    [
        "/key/generate",
        "/team/info?team_id=x",
        "/model/new",
        "/user",
        "/utils/model_info?model=x",
        "/public/model_hub",
        "/docs/x",
        "/healthcheck",
        "/api/other",
    ],
)
def test_other(path: str) -> None:
    """What is neither the API nor a page is other."""
    assert classify("GET", path, {}) == OTHER


@pytest.mark.parametrize("path", ["//health", "/%68ealth", "/health;x", "/./docs", "//"])
def test_info_needs_a_plain_path(path: str) -> None:
    """A page that is not spelled plainly is not waved through as info."""
    assert classify("GET", path, {}) == OTHER


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/key/generate", "*", ""])
def test_preflight(path: str) -> None:
    """A browser's preflight is info on any path, and only with both of its headers."""
    assert classify("OPTIONS", path, PREFLIGHT) == INFO
    assert classify("POST", path, PREFLIGHT) != INFO
    for missing in PREFLIGHT:
        assert classify("OPTIONS", path, {name: PREFLIGHT[name] for name in PREFLIGHT if name != missing}) != INFO


@pytest.mark.parametrize("name", ["x-http-method-override", "x-http-method", "x-method-override"])
def test_method_override(name: str) -> None:
    """A method that some framework reads elsewhere makes no discovery, no page and no preflight."""
    override = {name: ("POST",)}

    assert UNSURE == classify("GET", "/v1/models", override)
    assert OTHER == classify("GET", "/health", override)
    assert CHAT == classify("OPTIONS", "/v1/chat/completions", {**PREFLIGHT, **override})


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/llm/models", LIST),
        ("/LLM/v1/models/gpt-4o", entry("gpt-4o")),
        ("/llm/openai/v1/chat/completions", CHAT),
        ("/llm/health", OPAQUE),
        ("/llm", OPAQUE),
        ("/llm/x/../models", UNSURE),
        ("/llm/../health", UNSURE),
        ("/team/eu/v1/models", LIST),
        ("/team/us", OTHER),
        ("/llmx/models", OTHER),
        ("/v1/models", LIST),
    ],
)
def test_prefixes_of_the_operator(path: str, route: Route) -> None:
    """Below a configured prefix the same table holds, with and without the built-in prefixes."""
    assert route == classify("GET", path, {}, ("/llm", "/Team/eu/v1/"))


def written(path: str, model: str = "acme/m-1") -> str:
    """Fill a path of the table in."""
    text = path.replace("{model}", model).replace("{id}", "x_1").replace("{rest}", "x_1/y")
    return text if text.startswith("/") else f"/{text}"


ROWS = [pytest.param(row, path, id=f"{row.methods[0]} {path}") for row in ENDPOINTS for path in row.paths]
PREFIXES = ("", "/v1", "/openai", "/openai/v1", "/cursor", "/cursor/v1", "/llm", "/llm/v1")


@pytest.mark.parametrize(("row", "path"), ROWS)
def test_the_table(row: EndpointRow, path: str) -> None:
    """Every row is found at the root, below every prefix and below the operator's own, by each of its methods."""
    model = "acme/m-1" if "{model}" in path else None
    for prefix in PREFIXES:
        if path.startswith("/") and prefix not in ("", "/llm"):
            continue
        for method in row.methods:
            route = classify(method, f"{prefix}{written(path)}?api-version=1", {}, ("/llm",))
            assert (row.endpoint, model, row.charge, row.api) == (route.endpoint, model, route.charge, route.api), (
                prefix
            )
            assert route.model == (model if row.charge is not Charge.NOTHING or model is None else route.model)
            assert route.certain


@pytest.mark.parametrize(
    ("row", "path"),
    [param for param in ROWS if param.values[0].charge in (Charge.TOKENS, Charge.UNITS)],  # type: ignore[union-attr]
)
@pytest.mark.parametrize("prefix", ["/engines/acme%2Fm-1", "/v1/engines/acme/m-1", "/openai/deployments/acme/m-1"])
def test_a_model_before_the_call(row: EndpointRow, path: str, prefix: str) -> None:
    """Whatever runs a model may stand below it, as Azure has it."""
    if path.startswith("/") or ":" in path or "{" in path:
        return
    route = classify(row.methods[0], f"{prefix}/{path}", {})

    assert (row.endpoint, "acme/m-1") == (route.endpoint, route.model)


@pytest.mark.parametrize(("row", "path"), [param for param in ROWS if param.values[0].charge is Charge.NOTHING])  # type: ignore[union-attr]
def test_what_costs_nothing_is_spelled_plainly(row: EndpointRow, path: str) -> None:
    """Another method, another spelling of the path, or an upgraded connection: it is paid for."""
    plain = written(path)
    method = row.methods[0]
    others = ("PUT", "PATCH", "OPTIONS", "get", "")
    attempts: list[tuple[str, str, dict[str, tuple[str, ...]]]] = [(other, plain, {}) for other in others]
    attempts += [
        (method, f"/%{ord(plain[1]):x}{plain[2:]}", {}),
        (method, f"/.{plain}", {}),
        (method, plain + ";x", {}),
    ]
    attempts += [(method, plain, {"upgrade": ("websocket",)}), (method, plain, {"x-http-method": ("POST",)})]
    for attempt in attempts:
        route = classify(*attempt)
        assert route.route_class in (RouteClass.INFERENCE, RouteClass.OTHER), attempt
        assert route.charge is not Charge.NOTHING or route.route_class is RouteClass.OTHER, attempt


def test_rows_of_one_endpoint_agree() -> None:
    """An endpoint has one body and one charge, whichever path it is called by."""
    for row in ENDPOINTS:
        first = row_of(row.endpoint)
        assert (row.body, row.charge) == (first.body, first.charge) or row.endpoint is Endpoint.OPAQUE


@pytest.mark.parametrize(
    ("method", "path", "headers", "api"),
    [
        ("GET", "/v1/models", {"anthropic-version": ("2023-06-01",)}, Api.ANTHROPIC),
        ("GET", "/v1/models", {}, Api.OPENAI),
        ("POST", "/anthropic/v1/complete", {}, Api.ANTHROPIC),
        ("POST", "/gemini/v1beta/cachedContents", {}, Api.GEMINI),
        ("GET", "/v1beta/models", {}, Api.GEMINI),
        ("POST", "/vertex_ai/v1/projects/p/locations/l/endpoints/1:predict", {}, Api.GEMINI),
        ("POST", "/v1/chat/completions", {"anthropic-version": ("2023-06-01",)}, Api.OPENAI),
    ],
)
def test_whose_clients_ask(method: str, path: str, headers: dict[str, tuple[str, ...]], api: Api) -> None:
    """Refusals go by the API that the path is of; a list has one shape for each client, which says who it is."""
    assert api is classify(method, path, headers).api


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/v1beta/models/pro:streamGenerateContent", True),
        ("/v1beta/models/pro:generateContent", False),
        ("/bedrock/model/claude/converse-stream", True),
        ("/bedrock/model/claude/invoke-with-response-stream", True),
        ("/bedrock/model/claude/converse", False),
        ("/v1/chat/completions", False),
    ],
)
def test_a_stream_that_the_path_asks_for(path: str, stream: bool) -> None:  # noqa: FBT001 - a column of the table
    """Where the path says that an answer is a stream, no body has to."""
    assert stream is classify("POST", path, {}).stream


def test_what_is_remembered_of_paths_is_bounded() -> None:
    """Clients choose paths: however many there are, and however long, little of them is kept, and all are answered."""
    long = "/v1/" + "x" * REMEMBERED_CHARS_MAX
    before = _remembered.cache_info().misses

    assert {Endpoint.OPAQUE} == {
        classify("POST", f"/v1/x{number}", {}).endpoint for number in range(REMEMBERED_MAX + 1)
    }
    assert classify("POST", long, {}).endpoint is Endpoint.OPAQUE
    assert _remembered.cache_info().currsize == REMEMBERED_MAX
    assert _remembered.cache_info().misses == before + REMEMBERED_MAX + 1


def test_what_is_remembered_of_a_path_is_not_all_that_counts() -> None:
    """The same path is another route with another method, with headers that say so, and below other prefixes."""
    path = "/api/v1/models"
    plain = classify("GET", path, {}, ("/api",))

    assert plain.route_class is RouteClass.DISCOVERY
    for _ in range(2):
        assert plain == classify("GET", f"{path}?a=b", {}, ("/api",))
        assert plain != classify("POST", path, {}, ("/api",))
        assert plain != classify("GET", path, {})
        assert plain != classify("GET", path, {"upgrade": ("websocket",)}, ("/api",))
        assert plain != classify("GET", path, {"x-http-method": ("POST",)}, ("/api",))
        assert classify("GET", path, {"anthropic-version": ("1",)}, ("/api",)).api is Api.ANTHROPIC
