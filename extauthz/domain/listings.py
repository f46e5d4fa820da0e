"""A list of models that was asked for: whose clients' shape it has, which part of it, and for whom it is cut down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qs

from extauthz.domain.endpoints import Endpoint

# What an upstream is asked for in one page, so that a list which is cut down can be divided into pages anew.
ROWS_MAX = 10_000
ANTHROPIC_ROWS_MAX = 1_000

# LiteLLM's size of a page that nobody gave a size.
PAGE_ROWS = 50

QUERY_NUMBER_DIGITS_MAX = 9

Entry = Mapping[str, object]


class Shape(StrEnum):
    """How a list is written."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    CODEX = "codex"
    OLLAMA = "ollama"
    DEPLOYMENTS = "deployments"  # LiteLLM's /model/info
    DEPLOYMENT_PAGES = "deployment_pages"  # LiteLLM's /v2/model/info
    GROUPS = "groups"  # LiteLLM's /model_group/info


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: the `number` of a page, from 1, of `size` entries. `last` takes the end of the list instead."""

    size: int
    number: int = 1
    last: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What was asked for, and the lists of models that it is cut down to: an entry must be on each of them.

    Of those none is shown that has a name of `hidden`.

    `page` is None for all. `patterns` asks for the patterns among the names as well; `name` for one model, `deployment`
    for the one with an id, `search` for names with a text in them: what the upstream does by itself, and a list that is
    written here must do as well.
    """

    shape: Shape = Shape.OPENAI
    lists: tuple[tuple[str, ...], ...] = ()
    page: Page | None = None
    patterns: bool = False
    name: str | None = None
    deployment: str | None = None
    search: str | None = None
    hidden: tuple[str, ...] = ()

    @property
    def whole(self) -> dict[str, str]:
        """The query that asks the upstream for the whole list, of which a page is cut here."""
        match self.shape:
            case Shape.DEPLOYMENT_PAGES:
                return {"page": "1", "size": str(ROWS_MAX)}
            case Shape.ANTHROPIC:
                return {"limit": str(ANTHROPIC_ROWS_MAX)}
            case _:
                return {}


def listing_of(
    endpoint: Endpoint, path: str, headers: Mapping[str, tuple[str, ...]], lists: tuple[tuple[str, ...], ...] = ()
) -> Listing:
    """Read what list a request asks for. `headers` have lower-case names.

    A number that is none counts as not given: an upstream that reads it otherwise refuses it.
    """
    written, _, text = path.partition("?")
    query = parse_qs(text)
    shape = _shape(endpoint, written, query, headers)
    return Listing(
        shape=shape,
        lists=lists,
        page=_page(shape, query),
        patterns=shape is Shape.DEPLOYMENT_PAGES or _last(query, "return_wildcard_routes") in ("true", "True", "1"),
        name=_last(query, "model_group" if shape is Shape.GROUPS else "model"),
        deployment=_last(query, "modelId" if shape is Shape.DEPLOYMENT_PAGES else "litellm_model_id"),
        search=_last(query, "search"),
    )


def paged(entries: Sequence[Entry], page: Page | None) -> Sequence[Entry]:
    """Cut a page out of a list."""
    if page is None:
        return entries
    if page.last:
        return entries[-page.size :]
    return entries[(page.number - 1) * page.size : page.number * page.size]


def totals(entries: Sequence[Entry], page: Page | None) -> dict[str, object]:
    """Count as LiteLLM does: all entries, and the pages that they fill."""
    page = page or Page(max(1, len(entries)))
    pages = -(-len(entries) // page.size)
    return {"total_count": len(entries), "current_page": page.number, "total_pages": pages, "size": page.size}


def ends(entries: Sequence[Entry], page: Page | None, *, more: bool = False) -> dict[str, object]:
    """Name the ends of a page as Anthropic does, and tell whether `more` or other entries follow.

    After no entry nothing can follow: the next page is asked for by the last one's name.
    """
    shown = paged(entries, page)
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"has_more": bool(shown) and (more or len(shown) < len(entries)), "first_id": first, "last_id": last}


def _shape(
    endpoint: Endpoint, path: str, query: Mapping[str, list[str]], headers: Mapping[str, tuple[str, ...]]
) -> Shape:
    match endpoint:
        case Endpoint.MODEL_INFO:
            in_pages = "v2" in path.casefold().split("/")
            return Shape.DEPLOYMENT_PAGES if in_pages else Shape.DEPLOYMENTS
        case Endpoint.MODEL_GROUP_INFO:
            return Shape.GROUPS
        case Endpoint.OLLAMA_TAGS:
            return Shape.OLLAMA
        # LiteLLM looks for Codex first.
        case _ if "client_version" in query:
            return Shape.CODEX
        case _:
            return Shape.ANTHROPIC if "anthropic-version" in headers else Shape.OPENAI


def _page(shape: Shape, query: Mapping[str, list[str]]) -> Page | None:
    match shape:
        case Shape.DEPLOYMENT_PAGES:
            return Page(_number(query, "size") or PAGE_ROWS, _number(query, "page") or 1)
        case Shape.ANTHROPIC if (limit := _number(query, "limit")) is not None:
            return Page(limit, last="before_id" in query)
        case _:
            return None


def _last(query: Mapping[str, list[str]], name: str) -> str | None:
    return query[name][-1] if name in query else None


def _number(query: Mapping[str, list[str]], name: str) -> int | None:
    text = _last(query, name) or ""
    readable = text.isascii() and text.isdigit() and len(text) <= QUERY_NUMBER_DIGITS_MAX
    return int(text) or None if readable else None
