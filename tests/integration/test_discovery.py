"""Model discovery with an exhausted budget, through a real Envoy and with the official client: the reason to exist."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from extauthz.demo import answers
from extauthz.domain.policy import ModelsPolicy
from extauthz.envoy.bootstrap import Document
from extauthz.envoy.names import CHECK_FILTER, PRUNE_FILTER
from tests.support.envoy import ENVOY_VERSIONS, NEWEST_ENVOY, EnvoyProcess, EnvoyVersion, options_for
from tests.support.stack import Stack, patient, stack
from tests.support.upstream import MODELS, PLAY_HEADER, Behaviour, Head, Play, chunks, fails

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

OLDEST_ENVOY = ENVOY_VERSIONS[0]

PAID, FREE = "gpt-4o", "local-llama"
FREE_MODELS = ["local-llama"]
EVERY_MODEL = list(MODELS)

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: open/*
    litellm_params: {{model: openai/*, input_cost_per_token: 0, output_cost_per_token: 0}}
  - model_name: closed/*
    litellm_params: {{model: openai/*}}
general_settings:
  budget_exceeded_models_policy: {policy}
  user_header_name: X-OpenWebUI-User-Email
extauthz:
  global: {{max_budget: {global_budget}}}
  organizations: {{broke: {{max_budget: 0.0}}, rich: {{max_budget: 100}}}}
  teams:
    broke: {{max_budget: 0.0}}
    rich: {{max_budget: 100}}
    of-broke-organization: {{organization: broke}}
    of-rich-organization: {{organization: rich}}
    mixed: {{members: {{ana: {{max_budget: 0.0}}, ben: {{max_budget: 100}}}}}}
    many-broke:
      budget_limits: [{{budget_duration: 24h, max_budget: 50}}, {{budget_duration: 30d, max_budget: 0.0}}]
    many-rich:
      budget_limits: [{{budget_duration: 24h, max_budget: 50}}, {{budget_duration: 30d, max_budget: 100}}]
  users: {{ana: {{}}, ben: {{}}, broke: {{max_budget: 0.0}}, rich: {{max_budget: 100}}}}
  keys:
    - {{key: sk-organization-broke, team: of-broke-organization}}
    - {{key: sk-organization-rich, team: of-rich-organization}}
    - {{key: sk-team-broke, team: broke}}
    - {{key: sk-team-rich, team: rich}}
    - {{key: sk-member-broke, team: mixed, user: ana}}
    - {{key: sk-member-rich, team: mixed, user: ben}}
    - {{key: sk-user-broke, user: broke}}
    - {{key: sk-user-rich, user: rich}}
    - {{key: sk-key-broke, max_budget: 0.0}}
    - {{key: sk-key-rich, max_budget: 100}}
    - {{key: sk-application}}
    - {{key: sk-windows-broke, team: many-broke}}
    - {{key: sk-windows-rich, team: many-rich}}
  end_users: {{broke@example.com: {{max_budget: 0.0}}, default: {{max_budget: 100}}}}
"""


@dataclass(frozen=True, slots=True)
class Payer:
    """Somebody with a budget of one type.

    `entity` is how a refusal names the scope, `reset` a pattern of what it says about the window.
    """

    name: str
    key: str
    entity: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    reset: str = ""

    def __str__(self) -> str:
        return self.name


KEY_DIGITS = sha256(b"sk-key-broke").hexdigest()[:12]
TEAM = Payer("team", "sk-team-broke", " Team=broke")
BROKE = (
    TEAM,
    Payer("organization", "sk-organization-broke", " Organization=broke"),
    Payer("team member", "sk-member-broke", " TeamMember=ana:mixed"),
    Payer("user", "sk-user-broke", " User=broke"),
    Payer("key", "sk-key-broke", f" Key={KEY_DIGITS}"),
    Payer("end user", "sk-application", " EndUser=broke@example.com", {"X-OpenWebUI-User-Email": "broke@example.com"}),
    Payer(
        "one of several windows",
        "sk-windows-broke",
        " Team=many-broke",
        reset=r" The 30d budget resets at \d{4}-\d\d-\d\dT00:00:00Z\.",
    ),
)
RICH = (
    Payer("team", "sk-team-rich"),
    Payer("organization", "sk-organization-rich"),
    Payer("team member", "sk-member-rich"),
    Payer("user", "sk-user-rich"),
    Payer("key", "sk-key-rich"),
    Payer("end user", "sk-application", headers={"X-OpenWebUI-User-Email": "rich@example.com"}),
    Payer("several windows", "sk-windows-rich"),
)
# With the global budget exhausted it does not matter whose key it is.
GLOBAL = Payer("global", "sk-team-rich")


@dataclass(frozen=True, slots=True)
class House:
    """A stack, the client of it, and the policy that it was started with."""

    stack: Stack
    client: AsyncOpenAI
    policy: ModelsPolicy

    async def list(self, payer: Payer, **headers: str) -> list[str]:
        """List the models as a payer sees them."""
        models = self.client.with_options(api_key=payer.key).models.list(extra_headers={**payer.headers, **headers})
        return [model.id async for model in models]

    async def chat(self, payer: Payer, model: str) -> str | None:
        """Ask a model something, and give the answer."""
        completion = await self.client.with_options(api_key=payer.key).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello."}], extra_headers=payer.headers
        )
        return completion.choices[0].message.content

    async def retrieve(self, payer: Payer, model: str) -> str:
        """Ask for one entry of the model list, and give its id."""
        client = self.client.with_options(api_key=payer.key)
        return (await client.models.retrieve(model, extra_headers=payer.headers)).id

    async def send(self, method: str, path: str, payer: Payer, **headers: str) -> tuple[int, bytes]:
        """Send a plain request, and give its status and body."""
        sent = {"authorization": f"Bearer {payer.key}", **payer.headers, **headers}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(method, self.stack.url + path, headers=sent, allow_redirects=False) as answer,
        ):
            return answer.status, await answer.read()


@dataclass(frozen=True, slots=True)
class Setting:
    """What a server is started with."""

    policy: ModelsPolicy
    global_budget: str = "1000"

    def __str__(self) -> str:
        return self.policy


@dataclass(frozen=True, slots=True)
class Street:
    """One server and one upstream, and before them an Envoy of each version."""

    policy: ModelsPolicy
    stacks: Mapping[str, Stack]
    client: AsyncOpenAI

    def house(self, running: Stack) -> House:
        """Give what a test needs with one of the stacks."""
        return House(running, self.client.with_options(base_url=f"{running.url}/v1"), self.policy)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(request: pytest.FixtureRequest) -> AsyncIterator[Street]:
    """Run a server, and an Envoy of each version before it."""
    setting: Setting = request.param
    config = CONFIG.format(policy=setting.policy, global_budget=setting.global_budget)
    async with (
        stack(config, version=OLDEST_ENVOY, options=patient) as first,
        EnvoyProcess(patient(options_for(first.upstream.port, first.gate.grpc_port)), NEWEST_ENVOY) as newest,
        first.openai("nobody") as client,
    ):
        stacks = {OLDEST_ENVOY.name: first, NEWEST_ENVOY.name: replace(first, envoy=newest)}
        yield Street(setting.policy, stacks, client)


@pytest.fixture(params=ENVOY_VERSIONS, ids=lambda version: version.name)
def house(request: pytest.FixtureRequest, street: Street) -> House:
    """Give the stack with one version of Envoy."""
    return street.house(street.stacks[request.param.name])


def under(*policies: ModelsPolicy, global_budget: str = "1000") -> pytest.MarkDecorator:
    """Run a test under these policies."""
    settings = [Setting(policy, global_budget) for policy in policies]
    return pytest.mark.parametrize("street", settings, ids=str, indirect=True)


under_blocked = under(ModelsPolicy.BLOCKED)
under_all = under(ModelsPolicy.ALL)
under_free_only = under(ModelsPolicy.FREE_ONLY)
under_each = under(*ModelsPolicy)
with_nothing_left = under(*ModelsPolicy, global_budget="0.0")
for_each_broke = pytest.mark.parametrize("payer", BROKE, ids=str)
for_each_rich = pytest.mark.parametrize("payer", RICH, ids=str)


def assert_refused(failure: openai.APIStatusError, payer: Payer) -> None:
    """See that this is the refusal for an exhausted budget, to the letter, and that the client does not repeat it."""
    error = failure.response.json()["error"]
    pattern = (
        rf"{re.escape(f'Budget has been exceeded!{payer.entity} Current cost: 0.0, Max budget: 0.0')}{payer.reset}"
    )

    assert failure.response.json() == {
        "error": {"message": error["message"], "type": "budget_exceeded", "param": None, "code": "429"}
    }
    assert re.fullmatch(pattern, error["message"])
    assert failure.response.headers["x-should-retry"] == "false"
    assert ("retry-after" in failure.response.headers) is bool(payer.reset)


# ------------------------------------------------------------------------------------------------- the story itself


@under_blocked
async def test_blocked_refuses_the_list_in_these_words(house: House) -> None:
    """A team with `max_budget: 0.0` gets 429 with LiteLLM's body from the model list."""
    with pytest.raises(openai.RateLimitError) as refused:
        await house.list(TEAM)

    assert refused.value.response.json() == {
        "error": {
            "message": "Budget has been exceeded! Team=broke Current cost: 0.0, Max budget: 0.0",
            "type": "budget_exceeded",
            "param": None,
            "code": "429",
        }
    }


# ---------------------------------------------------------------------------------------------------- the whole table


@under_each
@for_each_rich
async def test_with_money_left_everything_is_open(house: House, payer: Payer) -> None:
    """No policy shows while no budget is exhausted: the full list, paid and free models alike."""
    assert await house.list(payer) == EVERY_MODEL
    assert await house.retrieve(payer, PAID) == PAID
    assert await house.chat(payer, PAID)
    assert await house.chat(payer, FREE)


@under_blocked
@for_each_broke
async def test_exhausted_blocked(house: House, payer: Payer) -> None:
    """Under `blocked` an exhausted budget refuses the list, and each model of it, with 429."""
    with pytest.raises(openai.RateLimitError) as listing:
        await house.list(payer)
    with pytest.raises(openai.RateLimitError) as retrieving:
        await house.retrieve(payer, FREE)

    assert_refused(listing.value, payer)
    assert_refused(retrieving.value, payer)


@under_all
@for_each_broke
async def test_exhausted_all(house: House, payer: Payer) -> None:
    """Under `all` an exhausted budget changes nothing about the list."""
    assert await house.list(payer) == EVERY_MODEL
    assert await house.retrieve(payer, PAID) == PAID


@under_free_only
@for_each_broke
async def test_exhausted_free_only(house: House, payer: Payer) -> None:
    """Under `free_only` an exhausted budget leaves only models that are free explicitly."""
    assert await house.list(payer) == FREE_MODELS
    assert await house.retrieve(payer, FREE) == FREE
    with pytest.raises(openai.NotFoundError):
        await house.retrieve(payer, PAID)


@under_each
@for_each_broke
async def test_exhausted_paid_inference_is_refused(house: House, payer: Payer) -> None:
    """An exhausted budget refuses paid inference under every policy, and the upstream hears nothing of it."""
    before = len(house.stack.upstream.requests)
    with pytest.raises(openai.RateLimitError) as refused:
        await house.chat(payer, PAID)

    assert_refused(refused.value, payer)
    assert before == len(house.stack.upstream.requests)


@under_each
@for_each_broke
async def test_exhausted_free_inference_is_allowed(house: House, payer: Payer) -> None:
    """A free model answers whatever is exhausted."""
    assert await house.chat(payer, FREE)


@with_nothing_left
async def test_an_exhausted_global_budget(house: House) -> None:
    """The global budget follows the same table as all others."""
    match house.policy:
        case ModelsPolicy.BLOCKED:
            with pytest.raises(openai.RateLimitError) as listing:
                await house.list(GLOBAL)
            assert_refused(listing.value, GLOBAL)
        case ModelsPolicy.ALL:
            assert await house.list(GLOBAL) == EVERY_MODEL
        case ModelsPolicy.FREE_ONLY:
            assert await house.list(GLOBAL) == FREE_MODELS

    with pytest.raises(openai.RateLimitError) as refused:
        await house.chat(GLOBAL, PAID)
    assert_refused(refused.value, GLOBAL)
    assert await house.chat(GLOBAL, FREE)


# ----------------------------------------------------------------------------------------------- paths, methods, ids


@under_free_only
@pytest.mark.parametrize("path", ["/models", "/v1/models", "/v1/models/", "/openai/models", "/openai/v1/models"])
async def test_every_path_of_the_list_is_pruned(house: House, path: str) -> None:
    """The list is pruned wherever the API serves it."""
    status, body = await house.send("GET", path, TEAM)

    assert 200 == status
    assert FREE_MODELS == [model["id"] for model in json.loads(body)["data"]]


@under_free_only
async def test_a_hidden_model_is_an_unknown_one(house: House) -> None:
    """The answer for a paid model is the upstream's own 404, with the name exchanged."""
    with pytest.raises(openai.NotFoundError) as unknown:
        await house.retrieve(RICH[0], "no-such-model")
    with pytest.raises(openai.NotFoundError) as hidden:
        await house.retrieve(TEAM, PAID)

    assert unknown.value.response.text.replace("no-such-model", PAID) == json.dumps(
        hidden.value.response.json(), separators=(",", ":")
    )
    assert unknown.value.response.headers["content-type"] == hidden.value.response.headers["content-type"]


@under_each
async def test_head_is_answered_like_get(house: House) -> None:
    """HEAD has the status of GET, and no body."""
    statuses = {ModelsPolicy.BLOCKED: 429, ModelsPolicy.ALL: 200, ModelsPolicy.FREE_ONLY: 200}

    assert (statuses[house.policy], b"") == await house.send("HEAD", "/v1/models", TEAM)
    assert (200, b"") == await house.send("HEAD", "/v1/models", RICH[0])


# ----------------------------------------------------------------------------------------------- what upstreams answer


def entries(*names: str) -> bytes:
    """Write a model list as an upstream does."""
    return answers.to_bytes(answers.model_list(names))


def zipped(body: bytes, *, encoding: str = "gzip") -> Behaviour:
    """Answer with a compressed body that nobody asked for."""
    return lambda _: Play((Head(headers=(("content-encoding", encoding),)), gzip.compress(body)))


UNINTELLIGIBLE: Mapping[str, Behaviour] = {
    "a page": chunks(b"<html>gpt-4o</html>", content_type="text/html"),
    "cut off": chunks(entries(PAID, FREE)[:-1]),
    "a list at the top": chunks(b'[{"id": "gpt-4o"}]'),
    "another name for the list": chunks(b'{"models": [{"id": "gpt-4o"}]}'),
    "data that is an object": chunks(b'{"object": "list", "data": {"gpt-4o": {}}}'),
    "data twice": chunks(b'{"data": [], "data": [{"id": "gpt-4o"}]}'),
    "entries without ids": chunks(b'{"object": "list", "data": ["gpt-4o", {"name": "gpt-4o"}, {"id": ["gpt-4o"]}]}'),
    "two documents": chunks(entries(FREE) + entries(PAID)),
    "not UTF-8": chunks(entries(PAID).replace(b"demo", b"\xff\xfe")),
    "nothing": chunks(b""),
    "compressed, and nobody knows how": zipped(entries(PAID, FREE), encoding="br"),
    "compressed, and says otherwise": zipped(entries(PAID, FREE), encoding="identity"),
}


@under_free_only
@pytest.mark.parametrize("play", UNINTELLIGIBLE)
async def test_an_unintelligible_list_is_an_empty_one(house: House, play: str) -> None:
    """What cannot be understood is never passed through: the client gets an empty list."""
    house.stack.upstream.plays[play] = UNINTELLIGIBLE[play]
    status, body = await house.send("GET", "/v1/models", TEAM, **{PLAY_HEADER: play})

    assert 200 == status
    assert {"object": "list", "data": []} == json.loads(body)
    assert [] == await house.list(TEAM, **{PLAY_HEADER: play})


@under_free_only
async def test_the_upstream_is_not_asked_to_compress(house: House) -> None:
    """A list that will be pruned is asked for as plain text, whatever the client accepts."""
    await house.list(TEAM, **{"accept-encoding": "gzip, br"})

    assert house.stack.upstream.requests[-1].header("accept-encoding") is None


@under_free_only
@pytest.mark.parametrize("status", [401, 404, 500, 503])
async def test_an_error_of_the_upstream_passes(house: House, status: int) -> None:
    """An error is no list: the client gets it as it is."""
    house.stack.upstream.plays["error"] = fails(status)
    expected = answers.to_bytes(answers.error("The server had an error.", "server_error"))

    assert (status, expected) == await house.send("GET", "/v1/models", TEAM, **{PLAY_HEADER: "error"})


@under_free_only
async def test_a_long_list_is_pruned(house: House) -> None:
    """A list of 2,000 models is pruned like a short one, in its order."""
    names = [f"{kind}/model-{number}" for number in range(1000) for kind in ("closed", "open")]
    body = entries(*names)
    pieces = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
    house.stack.upstream.plays["long"] = chunks(*pieces)

    assert names == await house.list(RICH[0], **{PLAY_HEADER: "long"})
    assert names[1::2] == await house.list(TEAM, **{PLAY_HEADER: "long"})


# ------------------------------------------------------------------------------------ routes without the filter


def without_context(document: Document) -> Document:
    """Take the context extension off the discovery routes; the filter stays on them."""
    for own in _discovery_filters(document):
        own.pop(CHECK_FILTER, None)
    return document


def without_filter(document: Document) -> Document:
    """Take the response filter off the discovery routes, with the context extension that tells of it."""
    for own in _discovery_filters(without_context(document)):
        own.pop(PRUNE_FILTER, None)
    return document


def _discovery_filters(document: Document) -> list[dict[str, object]]:
    """Give what the discovery routes say of filters; the routes share it."""
    resources: Any = document["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    return [route["typed_per_filter_config"] for route in routes if "typed_per_filter_config" in route]


@under_free_only
@pytest.mark.parametrize(
    ("version", "edit"),
    [
        *(pytest.param(version, without_filter, id=f"no filter-{version.name}") for version in ENVOY_VERSIONS),
        pytest.param(NEWEST_ENVOY, without_context, id="no context extension"),
    ],
)
async def test_direct(street: Street, version: EnvoyVersion, edit: Callable[[Document], Document]) -> None:
    """Where no filter is known to stand, the Check answers the pruned list itself, from the catalog."""
    running = street.stacks[version.name]
    options = patient(options_for(running.upstream.port, running.gate.grpc_port))
    async with EnvoyProcess(options, version, edit) as envoy:
        house = street.house(replace(running, envoy=envoy))

        before = len(running.upstream.requests)
        assert await house.list(TEAM) == FREE_MODELS
        assert (200, b"") == await house.send("HEAD", "/v1/models", TEAM)
        with pytest.raises(openai.NotFoundError):
            await house.retrieve(TEAM, PAID)
        assert before == len(running.upstream.requests)
        assert await house.retrieve(TEAM, FREE) == FREE
        assert await house.list(RICH[0]) == EVERY_MODEL
