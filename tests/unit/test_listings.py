"""Which list a request asks for."""

import pytest

from extauthz.adapters.listings import decode_listing, encode_listing
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.listings import Listing, Page, Shape, listing_of

ANTHROPIC = {"anthropic-version": ("2023-06-01",)}
PAGES = Shape.DEPLOYMENT_PAGES


@pytest.mark.parametrize(
    ("endpoint", "path", "headers", "shape"),
    [
        (Endpoint.MODEL_LIST, "/v1/models", {}, Shape.OPENAI),
        (Endpoint.MODEL_LIST, "/v1/models?client_version", {}, Shape.OPENAI),
        (Endpoint.MODEL_LIST, "/v1/models?client_version=0.1", {}, Shape.CODEX),
        (Endpoint.MODEL_LIST, "/cursor/models", ANTHROPIC, Shape.ANTHROPIC),
        (Endpoint.MODEL_LIST, "/v1/models?client_version=0.1", ANTHROPIC, Shape.CODEX),
        (Endpoint.MODEL_INFO, "/model/info", ANTHROPIC, Shape.DEPLOYMENTS),
        (Endpoint.MODEL_INFO, "/v1/model/info?page=2", {}, Shape.DEPLOYMENTS),
        (Endpoint.MODEL_INFO, "/v2/model/info", {}, PAGES),
        (Endpoint.MODEL_INFO, "/llm/V2/model/info", {}, PAGES),
        (Endpoint.MODEL_GROUP_INFO, "/model_group/info", {}, Shape.GROUPS),
        (Endpoint.OLLAMA_TAGS, "/api/tags", {}, Shape.OLLAMA),
    ],
)
def test_the_shape_follows_path_query_and_header(
    endpoint: Endpoint, path: str, headers: dict[str, tuple[str, ...]], shape: Shape
) -> None:
    """LiteLLM looks for Codex's query first, then for Anthropic's header."""
    assert shape is listing_of(endpoint, path, headers).shape


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", Page(50)),
        ("page=3&size=7", Page(7, 3)),
        ("page=0&size=0", Page(50)),
        ("page=-1&size=x", Page(50)),
        ("page=%D9%A3&size=1e3", Page(50)),
        ("page=1&page=2", Page(50, 2)),
        ("size=" + "9" * 40, Page(50)),
    ],
)
def test_a_page_is_as_litellm_counts_it(query: str, page: Page) -> None:
    """From 1, of 50 rows where nobody says more; a number that is none is the upstream's to refuse."""
    assert page == listing_of(Endpoint.MODEL_INFO, f"/v2/model/info?{query}", {}).page


@pytest.mark.parametrize(
    ("query", "page"),
    [("", None), ("limit=5", Page(5)), ("limit=5&before_id=a", Page(5, last=True)), ("limit=0", None)],
)
def test_anthropics_limit_is_a_page(query: str, page: Page | None) -> None:
    """What stands before a model is the end of a list."""
    assert page == listing_of(Endpoint.MODEL_LIST, f"/v1/models?{query}", ANTHROPIC).page


@pytest.mark.parametrize(
    ("shape", "query"),
    [(PAGES, {"page": "1", "size": "10000"}), (Shape.ANTHROPIC, {"limit": "1000"}), (Shape.OPENAI, {})],
)
def test_the_upstream_is_asked_for_the_whole_list(shape: Shape, query: dict[str, str]) -> None:
    """A page of a list that is cut down can only be cut from the whole."""
    assert query == Listing(shape=shape).whole


@pytest.mark.parametrize(
    "listing",
    [
        Listing(),
        Listing(shape=PAGES, page=Page(7, 3, last=True), lists=(("gpt-4o", "open/*"), ("ä",))),
        Listing(hidden=("gpt-4o", "openai/ö")),
    ],
)
def test_what_the_filter_goes_by_comes_back(listing: Listing) -> None:
    """The Check writes it into the metadata of the request, the filter reads it there."""
    assert listing == decode_listing(encode_listing(listing))


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"shape":"none"}', '{"shape":"openai","lists":"gpt-4o"}', "free_only", '{"shape":"openai","more":1}'],
)
def test_another_text_is_no_listing(text: str) -> None:
    """What cannot be read must not become a list without limits."""
    with pytest.raises(ValueError, match="valid"):
        decode_listing(text)


def test_a_filter_that_hides_nothing_need_not_know_how() -> None:
    """While servers are replaced, one that knows nothing of hidden models reads every list that hides none."""
    assert "hidden" not in encode_listing(Listing(lists=(("gpt-4o",),)))
