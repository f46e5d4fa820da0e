"""Model lists of every shape through a real Envoy: pruned where the filter stands, written by the Check elsewhere."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import anthropic
import pytest
import pytest_asyncio

from extauthz.adapters.ext_proc import LIST_BYTES_MAX
from extauthz.envoy.bootstrap import Document
from extauthz.envoy.names import PRUNE_FILTER
from tests.support.envoy import ENVOY_VERSIONS, NEWEST_ENVOY, EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import eventually
from tests.support.stack import Stack, patient, stack
from tests.support.upstream import PLAY_HEADER, Behaviour, Cue, Head, Play, Received, chunks

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

OLDEST_ENVOY = ENVOY_VERSIONS[0]
RICH, BROKE, LISTED, BOTH, FREELY, VERBOSE = "sk-rich", "sk-broke", "sk-listed", "sk-both", "sk-freely", "sk-verbose"
ANTHROPIC = {"anthropic-version": "2023-06-01"}

CONFIG = f"""
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
    model_info: {{max_input_tokens: 8192}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama-2, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: open/*
    litellm_params: {{model: openai/*, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: closed/*
    litellm_params: {{model: openai/*}}
router_settings:
  model_group_alias: {{cheap: local-llama, dear: gpt-4o, secret: {{model: local-llama, hidden: true}}}}
general_settings: {{budget_exceeded_models_policy: free_only}}
extauthz:
  teams:
    rich: {{max_budget: 100}}
    broke: {{max_budget: 0}}
    trying: {{max_budget: 0, shadow_mode: true, models: [gpt-4o]}}
  keys:
    - {{key: {RICH}, team: rich}}
    - {{key: {BROKE}, team: broke}}
    - {{key: {LISTED}, team: rich, models: [gpt-4o, closed/gpt-4*, readers, cheap]}}
    - {{key: {BOTH}, team: broke, models: [gpt-4o, closed/*, open/l*]}}
    - {{key: {FREELY}, team: rich, models: [all-team-models]}}
    - {{key: {VERBOSE}, team: rich, models: [gpt-4o, {", ".join(f"model-{number:08}" for number in range(2000))}]}}
    - {{key: sk-trying, team: trying}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:  # noqa: ANN401 - any JSON
        """The body's JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class House:
    """A stack, and the word for whether the filter stands in it."""

    stack: Stack
    url: str

    async def ask(
        self,
        path: str,
        key: str,
        *,
        method: str = "GET",
        play: Behaviour | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, of which the upstream makes a play."""
        sent = {"authorization": f"Bearer {key}", **(headers or {})}
        if play is not None:
            self.stack.upstream.plays["this"] = play
            sent[PLAY_HEADER] = "this"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(method, self.url + path, headers=sent) as answer,
        ):
            return Answer(answer.status, answer.headers, await answer.read())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first() -> AsyncIterator[Stack]:
    """Run the house with the oldest Envoy."""
    async with stack(CONFIG, version=OLDEST_ENVOY, options=patient) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def house(request: pytest.FixtureRequest, first: Stack) -> AsyncIterator[House]:
    """Give the house with the filter, for each version of Envoy."""
    version: EnvoyVersion = request.param
    async with EnvoyProcess(patient(options_for(first.upstream.port, first.gate.grpc_port)), version) as envoy:
        yield House(replace(first, envoy=envoy), envoy.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def direct(first: Stack) -> AsyncIterator[House]:
    """Give the house without the filter, as in a mesh whose routes nobody named."""
    options = patient(options_for(first.upstream.port, first.gate.grpc_port))
    async with EnvoyProcess(options, NEWEST_ENVOY, without_filter) as envoy:
        yield House(replace(first, envoy=envoy), envoy.url)


def without_filter(document: Document) -> Document:
    """Leave the route for everything alone, and take the filter away."""
    resources: Any = document["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"] = host["routes"][-1:]
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != PRUNE_FILTER]
    return document


# ------------------------------------------------------------------------------------------------------- every shape

# What LiteLLM lists: names, an expanded pattern, a literal one, an access group, aliases, another team's own model.
EVERYTHING = (
    *(
        "gpt-4o",
        "local-llama",
        "open/llama",
        "closed/gpt-4o",
        "open/*",
        "closed/*",
        "readers",
        "cheap",
        "dear",
        "nobody's",
    ),
    "model_name_team-1_0b9f2a54-6d3f-4a1e-9a77-1f1c3f6f8a55",
)
FREE = ["local-llama", "open/llama", "open/*", "cheap"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of lists: where it is, the key of its entries, the names in an entry, what stands around them."""

    path: str
    names: tuple[str, ...]
    key: str = "data"
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    around: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return " ".join((self.path, *self.headers))

    def entry(self, name: str) -> dict[str, object]:
        """Write an entry, with a field that nobody knows."""
        return {**dict.fromkeys(self.names, name), "of": {"the upstream": [1, 2.5e-06, None]}}

    def written(self, names: list[str]) -> dict[str, object]:
        """Write a list as the upstream does."""
        frame: dict[str, object] = {**self.around}
        if "first_id" in frame:
            frame |= {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        if "total_count" in frame:
            frame |= {"total_count": len(names), "total_pages": 1 if names else 0}
        return {**frame, self.key: [self.entry(name) for name in names]}

    def shown(self, document: Any) -> list[str]:  # noqa: ANN401 - any JSON
        """List the names in a document, once each."""
        return list(dict.fromkeys(entry[self.names[0]] for entry in document[self.key]))


PAGES = {"total_count": 0, "current_page": 1, "total_pages": 0, "size": 50}
ENDS = {"has_more": False, "first_id": None, "last_id": None}
OPENAI = Shape("/v1/models", ("id",), around={"object": "list"})
SHAPES = (
    OPENAI,
    replace(OPENAI, path="/models"),
    replace(OPENAI, path="/openai/v1/models"),
    replace(OPENAI, path="/cursor/models"),
    replace(OPENAI, path="/cursor/v1/models?team_id=a"),
    Shape("/v1/models", ("id",), headers=ANTHROPIC, around=ENDS),
    Shape("/v1/models?client_version=0.159.3", ("slug",), "models"),
    Shape("/model/info", ("model_name",)),
    Shape("/v1/model/info", ("model_name",)),
    Shape("/v2/model/info", ("model_name",), around=PAGES),
    Shape("/model_group/info", ("model_group",)),
    Shape("/api/tags", ("name", "model"), "models"),
)
for_each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def serves(shape: Shape, names: tuple[str, ...] = EVERYTHING) -> Behaviour:
    """Answer with a list of a shape."""
    return chunks(json.dumps(shape.written(list(names))).encode())


@for_each_shape
@pytest.mark.parametrize(
    ("key", "names"),
    [
        (RICH, list(EVERYTHING)),
        (FREELY, list(EVERYTHING)),
        (BROKE, FREE),
        (LISTED, ["gpt-4o", "closed/gpt-4o", "readers", "cheap"]),
        (BOTH, ["open/llama"]),
        ("sk-trying", list(EVERYTHING)),
    ],
)
async def test_the_upstreams_list_is_cut_down(house: House, shape: Shape, key: str, names: list[str]) -> None:
    """To what is free without money, to the key's own models in any case, to the last field of the upstream's."""
    answer = await house.ask(shape.path, key, play=serves(shape), headers=shape.headers)

    assert (200, shape.written(names)) == (answer.status, answer.document)
    assert "application/json" == answer.headers["content-type"]


@for_each_shape
@pytest.mark.parametrize(
    ("key", "names"), [(BROKE, {"local-llama", "cheap"}), (LISTED, {"gpt-4o", "cheap"}), (BOTH, set())]
)
async def test_the_check_writes_a_list(direct: House, shape: Shape, key: str, names: set[str]) -> None:
    """With the names of the catalog alone, and the same around them; the upstream hears nothing of it."""
    asked = len(direct.stack.upstream.requests)
    answer = await direct.ask(shape.path, key, headers=shape.headers)
    listed = {"open/*"} if key == BROKE and "v2" in shape.path else set()
    listed |= {"closed/*"} if key == BOTH and "v2" in shape.path else set()

    assert asked == len(direct.stack.upstream.requests)
    assert (200, "application/json") == (answer.status, answer.headers["content-type"])
    if key != BOTH:
        assert names | listed == set(shape.shown(answer.document))
    assert {*shape.around, shape.key} == set(answer.document)


@for_each_shape
@pytest.mark.parametrize("body", [b"", b"<html>gpt-4o</html>", b'{"data":"gpt-4o"}', b'[{"id":"gpt-4o"}]'])
async def test_what_is_no_list_is_an_empty_one(house: House, shape: Shape, body: bytes) -> None:
    """In the shape that was asked for, so that every client can read it."""
    answer = await house.ask(shape.path, BROKE, play=chunks(body), headers=shape.headers)

    assert (200, shape.written([])) == (answer.status, answer.document)


@for_each_shape
async def test_an_error_of_the_upstream_passes(house: House, shape: Shape) -> None:
    """As it is, in whatever words."""
    answer = await house.ask(shape.path, BROKE, play=chunks(b"no, gpt-4o", status=422), headers=shape.headers)

    assert (422, b"no, gpt-4o") == (answer.status, answer.body)


async def test_anthropics_client_reads_both_lists(house: House, direct: House) -> None:
    """The official client finds the free models, page after page."""
    shape = next(shape for shape in SHAPES if shape.headers)
    house.stack.upstream.plays["/v1/models?limit=1000"] = serves(shape)
    for place, names in ((house, FREE), (direct, ["local-llama", "cheap"])):
        async with anthropic.AsyncAnthropic(base_url=place.url, auth_token=BROKE, max_retries=0) as client:
            assert names == [model.id async for model in client.models.list()]
            assert names[:2] == [model.id for model in (await client.models.list(limit=2)).data]


@pytest.mark.parametrize("path", ["/v1/models/gpt-4o", "/models/dear", "/v1/models/local-llama"])
async def test_one_model_is_there_or_not(house: House, direct: House, path: str) -> None:
    """404 in the words of the client's API, whichever list leaves the model out and wherever the filter stands."""
    visible = {BROKE: path.endswith("llama"), LISTED: path.endswith("4o"), RICH: True}
    for place in (house, direct):
        for key, seen in visible.items():
            plain, theirs = await place.ask(path, key), await place.ask(path, key, headers=ANTHROPIC)
            if seen:
                assert 404 != plain.status or path.endswith("dear")
                continue
            name = path.rpartition("/")[2]
            assert (404, f"The model '{name}' does not exist") == (plain.status, plain.document["error"]["message"])
            assert (404, "not_found_error") == (theirs.status, theirs.document["error"]["type"])


# ---------------------------------------------------------------------------------------------------- pages of rows


def pages_of(rows: list[dict[str, object]]) -> Behaviour:
    """Answer as LiteLLM's /v2/model/info does: a page, and what it is a page of."""

    def behave(request: Received) -> Play:
        query = dict(part.split("=") for part in request.path.partition("?")[2].split("&") if part)
        size, page = int(query.get("size", 50)), int(query.get("page", 1))
        shown = rows[(page - 1) * size : page * size]
        totals = {"total_count": len(rows), "current_page": page, "total_pages": -(-len(rows) // size), "size": size}
        return Play((Head(), json.dumps({"data": shown, **totals}).encode()))

    return behave


@pytest.mark.parametrize("key", [BROKE, LISTED, RICH])
@pytest.mark.parametrize("size", [1, 3, 50])
async def test_pages_and_totals_are_true(house: House, key: str, size: int) -> None:
    """A client that goes through all pages finds each row once, and as many as the totals say."""
    rows: list[dict[str, object]] = [
        {"model_name": name, "row": row}
        for row, name in enumerate(["gpt-4o", "local-llama", "closed/gpt-4o", "open/x"] * 3)
    ]
    allowed = {BROKE: ("local-llama", "open/x"), LISTED: ("gpt-4o", "closed/gpt-4o"), RICH: (*EVERYTHING, "open/x")}[
        key
    ]
    expected = [row for row in rows if row["model_name"] in allowed]
    found, total_pages, page = [], 1, 0
    while page < total_pages:
        page += 1
        answer = await house.ask(f"/v2/model/info?search=o&page={page}&size={size}", key, play=pages_of(rows))
        document = answer.document
        found += document["data"]
        total_pages = document["total_pages"]
        assert (len(expected), page, size) == tuple(document[name] for name in ("total_count", "current_page", "size"))
        assert len(document["data"]) <= size

    assert expected == found
    assert -(-len(expected) // size) == total_pages


async def test_the_upstream_is_asked_for_all_rows(house: House) -> None:
    """Of the query only page and size change, and only for a list that is cut down."""
    path = "/v2/model/info?page=2&search=a%20b&size=5&teamId=t"
    asked = {}
    for key in (BROKE, RICH):
        await house.ask(path, key)
        asked[key] = house.stack.upstream.requests[-1].path

    assert path == asked[RICH]
    assert {"page=1", "size=10000", "search=a%20b", "teamId=t"} == set(asked[BROKE].partition("?")[2].split("&"))


async def test_the_check_writes_pages(direct: House) -> None:
    """A row for each deployment, with what the gate charges."""
    answers = [await direct.ask(f"/v2/model/info?size=2&page={page}", BROKE) for page in (1, 2, 3)]
    documents = [answer.document for answer in answers]

    assert [["local-llama"] * 2, ["cheap"] * 2, ["open/*"]] == [
        [row["model_name"] for row in document["data"]] for document in documents
    ]
    assert {(5, 3, 2)} == {(each["total_count"], each["total_pages"], each["size"]) for each in documents}
    row = documents[0]["data"][0]
    assert ("openai/llama", 0, None) == (
        row["litellm_params"]["model"],
        row["model_info"]["input_cost_per_token"],
        row["model_info"]["max_input_tokens"],
    )


# ------------------------------------------------------------------------------------------------ what HTTP brings


def sent(
    body: bytes, *, status: int = 200, length: int | None = None, headers: Mapping[str, str] | None = None
) -> Behaviour:
    """Answer with headers, and a body in pieces of 16 KiB; without a `length` it is chunked."""
    pieces = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
    fields = tuple((headers or {}).items())
    return lambda _: Play((Head(status, content_length=length, headers=fields), *pieces))


LIST = json.dumps(OPENAI.written(list(EVERYTHING))).encode()
PRUNED = OPENAI.written(FREE)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(LIST)), ("deflate", zlib.compress(LIST)), ("identity", LIST)],
    ids=["gzip", "deflate", "identity"],
)
async def test_a_compressed_list_is_read_all_the_same(house: House, encoding: str, body: bytes) -> None:
    """Of an upstream that compresses although nobody asks for it."""
    answer = await house.ask(
        "/v1/models", BROKE, play=sent(body, length=len(body), headers={"content-encoding": encoding})
    )

    assert PRUNED == answer.document
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", LIST),
        ("gzip", LIST),
        ("gzip", gzip.compress(LIST)[:-9]),
        ("gzip", gzip.compress(b"[" * (LIST_BYTES_MAX + 1))),
    ],
    ids=["unknown", "not compressed", "cut off", "a bomb"],
)
async def test_a_list_that_cannot_be_decompressed_is_empty(house: House, encoding: str, body: bytes) -> None:
    """Within the maximum, however much would come out."""
    answer = await house.ask("/v1/models", BROKE, play=sent(body, headers={"content-encoding": encoding}))

    assert (200, OPENAI.written([])) == (answer.status, answer.document)


STALE = {
    "etag": '"v1"',
    "last-modified": "Tue, 24 Nov 2026 10:00:00 GMT",
    "link": "</v1/models?after=gpt-4o>",
    "x-of": "it",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_headers_do_not_tell_of_the_list_as_it_was(house: House, method: str) -> None:
    """Its length, its tag, its date and its next page go, for HEAD as well; the rest stays."""
    answer = await house.ask("/v1/models", BROKE, method=method, play=sent(LIST, length=len(LIST), headers=STALE))

    assert 200 == answer.status
    assert [None] * 3 == [answer.headers.get(name) for name in ("etag", "last-modified", "link")]
    assert answer.headers.get("content-length") != str(len(LIST))
    assert "it" == answer.headers["x-of"]
    assert (b"" if method == "HEAD" else PRUNED) == (answer.body if method == "HEAD" else answer.document)


async def test_a_client_cannot_ask_whether_its_old_list_holds(house: House) -> None:
    """The upstream would answer 304, and the client would show paid models; nor can it ask for a piece."""
    asks = {"if-none-match": '"v1"', "if-modified-since": "Tue, 24 Nov 2026 10:00:00 GMT", "range": "bytes=0-9"}
    received = {}
    for key in (BROKE, RICH):
        await house.ask("/v1/models", key, play=sent(LIST), headers=asks)
        received[key] = house.stack.upstream.requests[-1]

    assert [None] * 3 == [received[BROKE].header(name) for name in asks]
    assert list(asks.values()) == [received[RICH].header(name) for name in asks]


async def test_not_modified_passes(house: House) -> None:
    """Of a list that nobody cuts down."""
    answer = await house.ask(
        "/v1/models", RICH, play=sent(b"", status=304, headers=STALE), headers={"if-none-match": '"v1"'}
    )

    assert (304, b"", '"v1"') == (answer.status, answer.body, answer.headers["etag"])


# --------------------------------------------------------------------------------------------------------- long lists

MANY = [f"{kind}/model-{number}" for number in range(25_000) for kind in ("closed", "open")]
LONG = json.dumps({"object": "list", "data": [{"id": name, "object": "model", "created": 1} for name in MANY]}).encode()


async def test_fifty_thousand_models(house: House) -> None:
    """A list that tells its length may be much longer than Envoy's buffer."""
    answer = await house.ask("/v1/models", BROKE, play=sent(LONG, length=len(LONG)))

    assert MANY[1::2] == [model["id"] for model in answer.document["data"]]


async def test_a_list_of_many_chunks(house: House) -> None:
    """One that does not tell its length is kept by Envoy, as far as its buffer goes."""
    body = json.dumps({"data": [{"id": name} for name in MANY[:20_000]]}).encode()
    answer = await house.ask("/v1/models", BROKE, play=sent(body))

    assert MANY[1:20_000:2] == [model["id"] for model in answer.document["data"]]


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5]], ids=str)
@pytest.mark.parametrize(
    ("body", "length"),
    [(LONG * 2, None), (b"[", LIST_BYTES_MAX + 1)],
    ids=["chunks", "length"],
)
async def test_a_list_that_is_too_long_is_an_error_at_once(
    house: House, shape: Shape, body: bytes, length: int | None
) -> None:
    """In the words of the client's API, which is told not to repeat it; nothing waits for the rest."""

    def endless(_: Received) -> Play:
        pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
        return Play((Head(content_length=length), *pieces, Cue.HANG))

    answer = await house.ask(shape.path, BROKE, play=endless, headers=shape.headers)

    assert (502, "false") == (answer.status, answer.headers["x-should-retry"])
    assert "too long" in answer.document["error"]["message"]
    assert ("error" if shape.headers else None) == answer.document.get("type")
    assert b"closed/" not in answer.body


async def test_a_long_list_that_breaks_off_is_no_list(house: House) -> None:
    """Whatever the upstream sent of it, the client gets nothing, or an error when it broke off before it began."""
    before = house.stack.envoy

    def breaks(_: Received) -> Play:
        return Play((Head(content_length=len(LONG)), LONG[:100_000], Cue.RESET))

    try:
        answer = await house.ask("/v1/models", BROKE, play=breaks)
    except aiohttp.ClientError:
        pass
    else:
        assert answer.status >= 500
        assert b"model-" not in answer.body
    await eventually(lambda: before.active(0), what="nothing is under way")


async def test_a_key_with_very_many_models_gets_them_from_the_catalog(house: House) -> None:
    """Its own list does not fit into the words of the Check to the filter."""
    asked = len(house.stack.upstream.requests)
    answer = await house.ask("/v1/models", VERBOSE)

    assert ["gpt-4o"] == OPENAI.shown(answer.document)
    assert asked == len(house.stack.upstream.requests)
