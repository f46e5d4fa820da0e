"""A real LiteLLM behind Envoy and extauthz, both with one config.yaml: its model lists, its answers, its own costs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from extauthz.domain.policy import ModelsPolicy
from extauthz.envoy.names import PRUNE_FILTER
from tests.support.envoy import EnvoyProcess, options_for
from tests.support.litellm import NEEDED, LitellmProcess
from tests.support.processes import eventually
from tests.support.stack import GateProcess, patient

pytestmark = [
    NEEDED,
    pytest.mark.litellm,
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

PAID, FREE, EMBEDDINGS, ALIAS = "gpt-4o", "local-llama", "embeddings", "clever"
RICH, BROKE, LISTED = "sk-rich", "sk-broke", "sk-listed"
BUDGET = ("team:rich", "lifetime")

# One file for both, as LiteLLM's users have it; LiteLLM looks past our section, we past what is not about money.
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_key: none, mock_response: "Hello there, whoever you are.",
      input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: gpt-4o
    litellm_params: {{model: azure/gpt-4o, api_key: none, mock_response: "Hello there.",
      input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: failing
    litellm_params: {{model: openai/gpt-4o, api_key: none, mock_response: litellm.InternalServerError,
      input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, api_key: none, mock_response: "Hi.",
      input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: open/*
    litellm_params: {{model: openai/*, api_key: none, mock_response: "Hi.",
      input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: closed/*
    litellm_params: {{model: openai/*, api_key: none, mock_response: "Hi."}}
  - model_name: embeddings
    litellm_params: {{model: openai/text-embedding-3-small, api_key: none, mock_response: "Hi.",
      input_cost_per_token: 0.00000002, output_cost_per_token: 0}}
    model_info: {{access_groups: [readers], mode: embedding}}
router_settings:
  num_retries: 0
  model_group_alias: {{clever: gpt-4o, secret: {{model: gpt-4o, hidden: true}}}}
litellm_settings: {{fallbacks: [{{embeddings: [gpt-4o]}}]}}
# Without the refresh LiteLLM asks nobody about its models, which blocks it where there is no network.
general_settings:
  {{master_key: sk-upstream, budget_exceeded_models_policy: {policy}, disable_model_info_refresh: true}}
extauthz:
  upstream_auth: {{default: {{set: sk-upstream}}}}
  teams: {{rich: {{max_budget: 100}}, broke: {{max_budget: 0}}}}
  keys:
    - {{key: sk-rich, team: rich}}
    - {{key: sk-broke, team: broke}}
    - {{key: sk-listed, team: rich, models: [local-llama, clever, closed/gpt-4*]}}
"""


@dataclass(frozen=True, slots=True)
class House:
    """LiteLLM, and before it a gate with one policy and two Envoys: one that prunes lists, one without the filter.

    `known` are LiteLLM's own lists, which take it seconds to write, and change a little as it is used.
    """

    litellm: LitellmProcess
    gate: GateProcess
    envoy: EnvoyProcess
    direct: EnvoyProcess
    policy: ModelsPolicy
    known: dict[List, Any]

    async def get(self, path: str, key: str, url: str | None = None, **headers: str) -> tuple[int, Any]:
        """Read a page as a key's owner sees it, of LiteLLM itself with its own key."""
        sent = {"authorization": f"Bearer {key}", **headers}
        async with aiohttp.ClientSession() as session, session.get((url or self.envoy.url) + path, headers=sent) as got:
            return got.status, json.loads(await got.read())

    async def spent(self) -> int:
        """Wait until nothing is held, and tell what the rich have spent (nano-USD)."""

        async def read() -> tuple[int] | None:
            metrics = await self.gate.metrics()
            return (metrics.spent.get(BUDGET, 0),) if metrics.open == 0 else None

        found = await eventually(read, what="nothing is held")
        assert found is not None
        return found[0]

    def openai(self, key: str) -> AsyncOpenAI:
        """Make the official client."""
        return AsyncOpenAI(base_url=f"{self.envoy.url}/v1", api_key=key, max_retries=0)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def litellm() -> AsyncIterator[LitellmProcess]:
    """Run LiteLLM, once for all: its start takes longer than the tests."""
    async with LitellmProcess(CONFIG.format(policy="all")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=ModelsPolicy, ids=str)
async def house(request: pytest.FixtureRequest, litellm: LitellmProcess) -> AsyncIterator[House]:
    """Give the house with one policy."""
    policy: ModelsPolicy = request.param
    async with AsyncExitStack() as running:
        gate = await running.enter_async_context(GateProcess(CONFIG.format(policy=policy)))
        options = patient(options_for(litellm.port, gate.grpc_port))
        envoy = await running.enter_async_context(EnvoyProcess(options))
        bare = patient(options_for(litellm.port, gate.grpc_port))
        direct = await running.enter_async_context(EnvoyProcess(bare, edit=without_filter))
        yield House(litellm, gate, envoy, direct, policy, {})


def without_filter(document: dict[str, Any]) -> dict[str, Any]:
    """Take all that is special to discovery routes away, as in a mesh that names none."""
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"] = host["routes"][-1:]
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != PRUNE_FILTER]
    return document


# ------------------------------------------------------------------------------------------------------- model lists


@dataclass(frozen=True, slots=True)
class List:
    """A model list of LiteLLM's: where it is, the key of its entries, and of the name in each."""

    path: str
    key: str = "data"
    name: str = "id"
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join((self.path, *(name for name, _ in self.headers)))

    async def read(self, house: House, key: str, url: str | None = None) -> tuple[int, Any]:
        """Read it."""
        return await house.get(self.path, key, url, **dict(self.headers))

    async def own(self, house: House) -> Any:  # noqa: ANN401 - any JSON
        """Give LiteLLM's own, as it shows it to the one with its master key."""
        if self not in house.known:
            _, house.known[self] = await self.read(house, "sk-upstream", house.litellm.url)
        return house.known[self]

    def names(self, document: Any) -> list[str]:  # noqa: ANN401 - any JSON
        """List the names in it."""
        return [entry[self.name] for entry in document[self.key]]


LISTS = (
    List("/v1/models"),
    List("/models"),
    List("/cursor/models"),
    List("/v1/models?include_metadata=true"),
    List("/v1/models?return_wildcard_routes=true"),
    List("/v1/models?include_model_access_groups=true"),
    List("/v1/models", headers=(("anthropic-version", "2023-06-01"),)),
    List("/v1/models?client_version=0.159.3", key="models", name="slug"),
    List("/model/info", name="model_name"),
    List("/v1/model/info", name="model_name"),
    List("/model_group/info", name="model_group"),
    List("/model_group/info?model_group=local-llama", name="model_group"),
    List("/model_group/info?model_group=gpt-4o", name="model_group"),
)
for_each_list = pytest.mark.parametrize("listing", LISTS, ids=str)


def is_free(name: str) -> bool:
    """Tell what CONFIG makes free."""
    return name == FREE or name.startswith("open/")


def is_listed(name: str) -> bool:
    """Tell what the key with a list of models may use."""
    return name in (FREE, ALIAS) or name.startswith("closed/gpt-4")


def only(listing: List, document: dict[str, Any], visible: Callable[[str], bool]) -> dict[str, Any]:
    """Cut LiteLLM's own list down, as a client would expect it."""
    kept = [entry for entry in document[listing.key] if visible(entry[listing.name])]
    ends = {}
    if "first_id" in document:
        ends = {"first_id": kept[0]["id"] if kept else None, "last_id": kept[-1]["id"] if kept else None}
    return {**document, listing.key: kept, **ends}


@for_each_list
async def test_with_money_the_list_is_litellms_own(house: House, listing: List) -> None:
    """To the last field, under every policy."""
    assert (200, await listing.own(house)) == await listing.read(house, RICH)


@for_each_list
async def test_without_money_the_policy_decides(house: House, listing: List) -> None:
    """`blocked` refuses, `all` changes nothing, `free_only` leaves what is free, as LiteLLM wrote it."""
    everything = await listing.own(house)
    status, answer = await listing.read(house, BROKE)

    match house.policy:
        case ModelsPolicy.BLOCKED:
            assert 429 == status
            assert "Budget has been exceeded!" in answer["error"]["message"]
        case ModelsPolicy.ALL:
            assert (200, everything) == (status, answer)
        case ModelsPolicy.FREE_ONLY:
            assert (200, only(listing, everything, is_free)) == (status, answer)
            # A list of paid models alone, or one that LiteLLM itself cut before the free ones.
            assert FREE in listing.names(answer) or FREE not in listing.names(everything)


@for_each_list
async def test_a_key_sees_the_models_that_it_may_use(house: House, listing: List) -> None:
    """With money and under every policy, as LiteLLM shows its own keys theirs alone."""
    everything = await listing.own(house)

    assert (200, only(listing, everything, is_listed)) == await listing.read(house, LISTED)


@pytest.mark.parametrize("listing", [each for each in LISTS if "?model_group=gpt" not in each.path], ids=str)
async def test_where_no_filter_stands_the_check_answers(house: House, listing: List) -> None:
    """In LiteLLM's shape, with the names of the catalog: what a pattern stands for, LiteLLM alone can tell."""
    if house.policy is not ModelsPolicy.FREE_ONLY:
        assert (200, True) == await _direct(house, listing, LISTED, {FREE, ALIAS} & _asked(listing, {FREE, ALIAS}))
        return
    patterns = {"open/*"} if "wildcard" in listing.path else set()
    assert (200, True) == await _direct(house, listing, BROKE, {FREE} | patterns)


def _asked(listing: List, names: set[str]) -> set[str]:
    _, _, asked = listing.path.partition("?model_group=")
    return {name for name in names if asked in ("", name)}


async def _direct(house: House, listing: List, key: str, names: set[str]) -> tuple[int, bool]:
    """Read a list through the Envoy without a filter, and tell whether names and the keys around them are LiteLLM's."""
    everything = await listing.own(house)
    status, answer = await listing.read(house, key, house.direct.url)
    return status, (set(everything), names) == (set(answer), set(listing.names(answer)))


async def test_free_rows_keep_their_prices_and_tell_of_no_others(house: House) -> None:
    """Of several hundred rows, by patterns and aliases, none that is left costs anything or leads elsewhere."""
    if house.policy is not ModelsPolicy.FREE_ONLY:
        pytest.skip("only free_only leaves rows out")
    _, rows = await house.get("/model/info", BROKE)
    _, everything = await house.get("/model/info", "sk-upstream", house.litellm.url)

    assert 100 < len(rows["data"]) < len(everything["data"])
    assert {0} == {row["litellm_params"]["input_cost_per_token"] for row in rows["data"]}


async def test_one_deployment_by_its_id(house: House) -> None:
    """`?litellm_model_id=` is one row: the policy decides about it as about all."""
    _, everything = await house.get("/model/info", "sk-upstream", house.litellm.url)
    ids = {
        row["model_name"]: row["model_info"]["id"] for row in everything["data"] if row["model_name"] in (PAID, FREE)
    }
    answers = {name: await house.get(f"/model/info?litellm_model_id={ids[name]}", BROKE) for name in (PAID, FREE)}

    rows = {name: [row["model_name"] for row in answer.get("data", ())] for name, (_, answer) in answers.items()}
    match house.policy:
        case ModelsPolicy.BLOCKED:
            assert {PAID: 429, FREE: 429} == {name: status for name, (status, _) in answers.items()}
        case ModelsPolicy.ALL:
            assert {PAID: [PAID], FREE: [FREE]} == rows
        case ModelsPolicy.FREE_ONLY:
            assert {PAID: [], FREE: [FREE]} == rows


async def test_one_model(house: House) -> None:
    """An entry that may not be seen is not there; for others LiteLLM answers."""
    statuses = [
        (await house.get(f"/v1/models/{name}", key))[0] for key in (RICH, BROKE, LISTED) for name in (PAID, FREE)
    ]
    broke = {
        ModelsPolicy.BLOCKED: [429, 429],
        ModelsPolicy.ALL: [200, 200],
        ModelsPolicy.FREE_ONLY: [404, 200],
    }

    assert [200, 200, *broke[house.policy], 404, 200] == statuses


async def test_pages_need_litellms_database(house: House) -> None:
    """Without one /v2/model/info is LiteLLM's own error, which passes; where no filter stands, the Check has pages."""
    assert 500 == (await house.get("/v2/model/info", RICH))[0]
    assert 500 == (await house.get("/v2/model/info", LISTED))[0]
    status, pages = await house.get("/v2/model/info?size=1&page=2", LISTED, house.direct.url)

    assert (200, ["clever"]) == (status, [row["model_name"] for row in pages["data"]][:1])
    assert (2, 1) == (pages["current_page"], pages["size"])


# ---------------------------------------------------------------------------------------------------------- answers

HELLO = [{"role": "user", "content": "Hello, how are you?"}]


def nanousd(cost: object) -> int:
    """Give LiteLLM's own cost as we count it: its floats are off by less than a millionth of a nano-USD."""
    exact = (Decimal(str(cost)) * 1_000_000_000).quantize(Decimal("0.000001"))
    return int(exact.to_integral_value(ROUND_CEILING))


REQUESTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": PAID, "messages": HELLO}),
    "an alias": ("/chat/completions", {"model": ALIAS, "messages": HELLO}),
    "several choices": ("/v1/chat/completions", {"model": PAID, "messages": HELLO, "n": 2}),
    "responses": ("/v1/responses", {"model": PAID, "input": "Hello, how are you?"}),
    "embeddings": ("/v1/embeddings", {"model": EMBEDDINGS, "input": ["Hello,", "how are you?"]}),
    "a list price": ("/v1/chat/completions", {"model": "closed/gpt-4o-mini", "messages": HELLO}),
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_what_is_booked_is_what_litellm_says_that_it_costs(house: House, kind: str) -> None:
    """To the nano-USD: the books and `x-litellm-response-cost` agree."""
    path, body = REQUESTS[kind]
    before = await house.spent()
    headers = {"authorization": f"Bearer {RICH}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(house.envoy.url + path, json=body, headers=headers) as answer,
    ):
        text = await answer.text()

    assert 200 == answer.status, text
    cost = nanousd(answer.headers["x-litellm-response-cost"])
    assert cost > 0
    assert cost == await house.spent() - before


async def test_anthropics_messages_cost_what_their_usage_says(house: House) -> None:
    """LiteLLM's header comes too late for some of these answers, so its `usage` is what the books are held against."""
    before = await house.spent()
    async with anthropic.AsyncAnthropic(base_url=house.envoy.url, auth_token=RICH, max_retries=0) as client:
        message = await client.messages.create(model=PAID, max_tokens=64, messages=[{"role": "user", "content": "Hi"}])
    usage = message.usage

    assert usage.input_tokens * 2_500 + usage.output_tokens * 10_000 == await house.spent() - before


@pytest.mark.parametrize("asks", [True, False], ids=["usage asked for", "usage not asked for"])
async def test_a_stream_costs_what_its_usage_says(house: House, asks: bool) -> None:  # noqa: FBT001 - a column
    """The last chunk has LiteLLM's own cost, `usage.cost`; a client that did not ask for usage pays as much."""
    before = await house.spent()
    async with house.openai(RICH) as client:
        options = {"stream_options": {"include_usage": True}} if asks else {}
        stream = await client.chat.completions.create(model=PAID, messages=HELLO, stream=True, **options)  # type: ignore[call-overload]
        chunks = [chunk async for chunk in stream]
    booked = await house.spent() - before

    told = [chunk.usage.model_dump() for chunk in chunks if chunk.usage is not None]
    assert asks is bool(told)
    assert booked > 0
    if asks:
        usage = told[-1]
        assert booked == usage["prompt_tokens"] * 2_500 + usage["completion_tokens"] * 10_000
        assert booked == nanousd(usage["cost"])


async def test_without_money_only_free_models_answer(house: House) -> None:
    """Whatever the policy for lists is: by their own name, and by a pattern."""
    async with house.openai(BROKE) as client:
        for model in (FREE, "open/gpt-4o-mini"):
            answer = await client.chat.completions.create(model=model, messages=HELLO)  # type: ignore[arg-type]
            assert "Hi." == answer.choices[0].message.content
        for model in (PAID, ALIAS, "secret", "closed/gpt-4o-mini"):
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model=model, messages=HELLO)  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError):
            await client.embeddings.create(model=EMBEDDINGS, input="Hello")


async def test_an_error_of_litellms_costs_nothing(house: House) -> None:
    """It passes as it is, and what was held is released."""
    before = await house.spent()
    async with house.openai(RICH) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(model="failing", messages=HELLO)  # type: ignore[arg-type]

    assert "litellm.InternalServerError" in str(failed.value)
    assert before == await house.spent()
