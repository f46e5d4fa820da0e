"""What a request is, by method and path."""

import pytest

from extauthz.domain.routes import PATH_CHARS_MAX, Endpoint, Route, RouteClass, classify

LIST = Route(RouteClass.DISCOVERY, Endpoint.MODEL_LIST)
OPAQUE = Route(RouteClass.INFERENCE, Endpoint.OPAQUE)
CHAT = Route(RouteClass.INFERENCE, Endpoint.CHAT_COMPLETIONS)
INFO = Route(RouteClass.INFO)
OTHER = Route(RouteClass.OTHER)

PREFLIGHT = {"origin": ("https://chat.example",), "access-control-request-method": ("POST",)}


def entry(model: str) -> Route:
    """Give the route of one entry of the model list."""
    return Route(RouteClass.DISCOVERY, Endpoint.MODEL_ENTRY, model)


def call(endpoint: Endpoint, model: str | None = None) -> Route:
    """Give the route of an inference call."""
    return Route(RouteClass.INFERENCE, endpoint, model)


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
        "/v1/responses",
        "/v1/model/info",
        "/responses",
        "/messages",
        "/images/generations",
        "/audio/speech",
        "/rerank",
        "/v2/rerank",
        "/moderations",
        "/batches",
        "/files",
        "/v1beta/models/gemini-pro",
        "/anthropic/v1/messages",
        "/Bedrock/models",
        "/vertex_ai/x",
        "/engines",
        "/chat",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_opaque_inference(method: str, path: str) -> None:
    """Whatever else stands below an API prefix or among the API's words is inference, whatever the method."""
    assert classify(method, path, {}) == OPAQUE


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        pytest.param("POST", "/v1/models", OPAQUE, id="posting to the list"),
        pytest.param("get", "/v1/models", OPAQUE, id="a method that only looks like GET"),
        pytest.param("OPTIONS", "/v1/models", OPAQUE, id="OPTIONS without preflight headers"),
        pytest.param("POST", "/v1/models/../chat/completions", CHAT, id="dot segments"),
        pytest.param("GET", "/v1/models/../chat/completions", CHAT, id="dot segments with GET"),
        pytest.param("POST", "/v1/models%2f..%2fchat/completions", CHAT, id="escaped dot segments"),
        pytest.param("GET", "/v1/models/%2e%2e/chat/completions", CHAT, id="escaped dots"),
        pytest.param("GET", "/v1/models/x%2F..%2F..%2Fchat/completions", CHAT, id="dots hidden in a model id"),
        pytest.param("GET", "//v1/models;x", OPAQUE, id="double slash and parameters"),
        pytest.param("GET", "/v1/models;x=/chat/completions", OPAQUE, id="parameters hide the list"),
        pytest.param("GET", "/v1;/chat/completions", CHAT, id="parameters on the prefix"),
        pytest.param("GET", "//v1/models", OPAQUE, id="double slash"),
        pytest.param("GET", "/v1/models//", OPAQUE, id="two trailing slashes"),
        pytest.param("GET", "/v1/models/gpt%2F", OPAQUE, id="escaped trailing slash"),
        pytest.param("GET", "/v1/./models", OPAQUE, id="single dot"),
        pytest.param("GET", "/ui/../v1/models", OPAQUE, id="out of the pages into the API"),
        pytest.param("GET", "/v1/x/../../health", OPAQUE, id="out of the API into the pages"),
        pytest.param("GET", "/ui/..%2Fv1/chat/completions", CHAT, id="escaped way out"),
        pytest.param("GET", "/v1/m%6fdels", OPAQUE, id="escape in a fixed word"),
        pytest.param("GET", "/%76%31/models", OPAQUE, id="escape in the prefix"),
        pytest.param("GET", "/v1/models%252f..%252fchat/completions", OPAQUE, id="escaped twice"),
        pytest.param("GET", "/v1/models/x%25", OPAQUE, id="an escaped percent sign"),
        pytest.param("GET", "/v1/models/x%3Fy", OPAQUE, id="escaped question mark"),
        pytest.param("GET", "/v1/models/x%23y", OPAQUE, id="escaped hash"),
        pytest.param("GET", "/v1/models/x%00", OPAQUE, id="escaped NUL"),
        pytest.param("GET", "/v1/models\\..\\chat\\completions", OPAQUE, id="backslashes"),
        pytest.param("GET", "/v1/models/%5c..%5cchat", OPAQUE, id="escaped backslashes"),
        pytest.param("GET", "/v1/models#/../chat/completions", OPAQUE, id="fragment"),
        pytest.param("GET", "/v1/models/%ff", OPAQUE, id="invalid UTF-8"),
        pytest.param("GET", "/ui%5C..%5Cv1%5Cx", OPAQUE, id="escaped backslashes among the pages"),
        pytest.param("GET", "/ui/%252e%252e/x", OPAQUE, id="escaped twice among the pages"),
        pytest.param("GET", "/ui%3F/x", OPAQUE, id="escaped question mark among the pages"),
        pytest.param("GET", "/v1;a/../health", OPAQUE, id="out of the API with parameters"),
        pytest.param("GET", "/v1/models/a//b", OPAQUE, id="double slash in a model id"),
        pytest.param("GET", "/health%zz", OPAQUE, id="invalid escape"),
        pytest.param("GET", "/health%2", OPAQUE, id="half an escape"),
        pytest.param("GET", "/v1/models\x7f", OPAQUE, id="control character"),
        pytest.param("GET", "/v1/mod els", OPAQUE, id="space"),
        pytest.param("GET", "/v1/models/modèle", OPAQUE, id="bare non-ASCII"),
        pytest.param("CONNECT", "", OPAQUE, id="no path"),
        pytest.param("GET", "*", OPAQUE, id="asterisk"),
        pytest.param("GET", "http://host/v1/models", OPAQUE, id="absolute form"),
        pytest.param("GET", "?/v1/models", OPAQUE, id="only a query"),
        pytest.param("GET", "/health/" + "x" * PATH_CHARS_MAX, OPAQUE, id="too long"),
        pytest.param(
            "GET",
            "/v1/models/gemini-pro:generateContent",
            call(Endpoint.OPAQUE, "gemini-pro"),
            id="a call in Google's form",
        ),
        pytest.param(
            "GET",
            "/v1/models/gemini/pro:streamGenerateContent",
            call(Endpoint.OPAQUE, "gemini/pro"),
            id="a streaming one",
        ),
        pytest.param(
            "GET", "/v1/models/gemini-pro%3AcountTokens", call(Endpoint.OPAQUE, "gemini-pro"), id="an escaped one"
        ),
        pytest.param(
            "POST", "/v1beta/models/gemini-pro:generateContent", call(Endpoint.OPAQUE, "gemini-pro"), id="a beta one"
        ),
        pytest.param(
            "POST",
            "/v1/models/free/../paid:countTokens",
            call(Endpoint.OPAQUE, "free/../paid"),
            id="Google's form with two readings",
        ),
        pytest.param("POST", "/v1/models;x/paid:countTokens;x", call(Endpoint.OPAQUE, "paid"), id="with parameters"),
        pytest.param("POST", "/v1/models/paid;x:countTokens", call(Endpoint.OPAQUE, "paid;x"), id="with a parameter"),
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
            call(Endpoint.OPAQUE, "paid;x/chat"),
            id="Azure's deployment with two readings",
        ),
        pytest.param("GET", "/v1/models/chat/completions", OPAQUE, id="a model id that is a call"),
        pytest.param("GET", "/v1/models/x%2Fembeddings", OPAQUE, id="a model id that ends in a call"),
        pytest.param("GET", "/v1/models/images/generations", OPAQUE, id="a model id that is another call"),
        pytest.param("POST", "/engines/free/../paid/chat/completions", OPAQUE, id="the model has two readings"),
        pytest.param("POST", "/proxy/v1/chat/completions", OPAQUE, id="a call below an unknown prefix"),
        pytest.param("GET", "/ui/embeddings", OPAQUE, id="a call among the pages"),
    ],
)
def test_attacks(method: str, path: str, route: Route) -> None:
    """A path that somebody could read as a call is paid for."""
    assert route == classify(method, path, {})


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?x",
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
    ["/key/generate", "/team/info?team_id=x", "/model/info", "/user", "/v2/model/info", "/docs/x", "/healthcheck"],
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

    assert OPAQUE == classify("GET", "/v1/models", override)
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
        ("/llm/x/../models", OPAQUE),
        ("/llm/../health", OPAQUE),
        ("/team/eu/v1/models", LIST),
        ("/team/us", OTHER),
        ("/llmx/models", OTHER),
        ("/v1/models", LIST),
    ],
)
def test_prefixes_of_the_operator(path: str, route: Route) -> None:
    """Below a configured prefix the same table holds, with and without the built-in prefixes."""
    assert route == classify("GET", path, {}, ("/llm", "/Team/eu/v1/"))
