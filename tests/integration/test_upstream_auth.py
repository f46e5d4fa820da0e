"""What the upstream gets of a request, through a real Envoy: whose key, and nothing that is ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.support.stack import Metrics, Stack, stack
from tests.support.upstream import PLAY_HEADER, Received

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

CONFIG = """
model_list:
  - model_name: passed
    litellm_params: {model: litellm/passed, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: removed
    litellm_params: {model: vllm/removed, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: openai/*
    litellm_params: {model: openai/*, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: free-removed
    litellm_params: {model: vllm/free, input_cost_per_token: 0, output_cost_per_token: 0}
router_settings:
  model_group_alias: {alias: removed}
general_settings: {master_key: sk-master, budget_exceeded_models_policy: free_only}
extauthz:
  global: {max_budget: 0.0}
  teams: {team: {}}
  keys: [{key: sk-ours, team: team}]
  upstream_auth:
    models:
      removed: remove
      free-removed: remove
      gpt-4o: {set: sk-upstream}
      openai/*: {set: sk-openai}
"""
OURS, MASTER = "sk-ours", "sk-master"
SOLVENT = CONFIG.replace("max_budget: 0.0", "max_budget: 100")
COST_NANOUSD = 10 * 2_500 + 20 * 10_000

CHAT = "/v1/chat/completions"
CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-litellm-api-key")
PREFLIGHT = {"origin": "https://chat.example", "access-control-request-method": "POST"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rich() -> AsyncIterator[Stack]:
    """Give the whole house, with money on the global budget."""
    async with stack(SOLVENT) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def broke() -> AsyncIterator[Stack]:
    """Give the whole house, with an exhausted global budget."""
    async with stack(CONFIG) as house:
        yield house


async def ask(
    house: Stack, method: str, path: str, headers: dict[str, str], model: str | None = None
) -> tuple[int, str]:
    """Send a request, and give status and text of the answer."""
    house.upstream.requests.clear()
    body = None if model is None else {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    async with (
        aiohttp.ClientSession(house.url) as session,
        session.request(method, path, headers=headers, json=body) as answer,
    ):
        return answer.status, await answer.text()


async def upstream_got(house: Stack, headers: dict[str, str], model: str) -> Received:
    """Send a chat, and give what the upstream got of it."""
    status, text = await ask(house, "POST", CHAT, headers, model)
    assert 200 == status, text
    [received] = house.upstream.requests
    return received


def credentials(received: Received) -> dict[str, str]:
    """Give the headers of a request that can carry a key."""
    return {name: value for name, value in received.headers if name in CREDENTIALS}


def spent_on_global(metrics: Metrics) -> int:
    """Tell what is spent on the global budget, in nano-USD."""
    return sum(amount for (scope, *_), amount in metrics.spent.items() if scope == "global")


@pytest.mark.parametrize(
    "sent",
    [
        {"authorization": f"Bearer {OURS}"},
        {"x-api-key": OURS},
        {"api-key": OURS},
        {"x-litellm-api-key": OURS},
        {"authorization": f"Bearer {OURS}", "x-api-key": OURS, "api-key": OURS},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("passed", None),
        ("removed", {}),
        ("alias", {}),
        ("free-removed", {}),
        ("gpt-4o", {"authorization": "Bearer sk-upstream"}),
        ("openai/o3", {"authorization": "Bearer sk-openai"}),
    ],
)
async def test_the_upstream_gets_the_models_credential(
    rich: Stack, sent: dict[str, str], model: str, expected: dict[str, str] | None
) -> None:
    """By `upstream_auth`: the client's own key, none, or the upstream's; under the last two ours is nowhere."""
    received = await upstream_got(rich, sent, model)

    assert (sent if expected is None else expected) == credentials(received)
    assert expected is None or all(OURS not in value for _, value in received.headers)


async def test_nothing_of_ours_reaches_the_upstream(rich: Stack) -> None:
    """Neither Envoy's id of the reservation nor what a client invents goes on: no x-extauthz-* at all."""
    invented = {"x-extauthz-id": "1", "x-extauthz-models": "all", "x-extauthz-r": "2", "x-extauthz-anything": "3"}
    headers = {"authorization": f"Bearer {OURS}", **invented}

    for model in ("passed", "free-removed"):
        received = await upstream_got(rich, headers, model)
        assert [] == [name for name, _ in received.headers if name.startswith("x-extauthz-")]
    await ask(rich, "GET", "/v1/models", headers)
    await ask(rich, "GET", "/health", headers)
    received = rich.upstream.requests[-1]

    assert [] == [name for name, _ in received.headers if name.startswith("x-extauthz-")]


async def test_a_pruned_list_is_asked_for_without_our_headers(broke: Stack) -> None:
    """The word to the response filter and the id stay inside, where the list is pruned too."""
    status, _ = await ask(broke, "GET", "/v1/models", {"authorization": f"Bearer {OURS}"})

    assert 200 == status
    [received] = broke.upstream.requests
    assert [] == [name for name, _ in received.headers if name.startswith("x-extauthz-")]


@pytest.mark.parametrize(
    ("exhausted", "method", "path", "model", "expected"),
    [
        pytest.param(False, "POST", CHAT, "passed", None, id="paid inference"),
        pytest.param(False, "POST", CHAT, "free-removed", None, id="free inference"),
        pytest.param(False, "GET", "/v1/models", None, "gzip, br", id="open list"),
        pytest.param(True, "GET", "/v1/models", None, None, id="pruned list"),
        pytest.param(False, "GET", "/health", None, "gzip, br", id="info"),
    ],
)
async def test_answers_that_are_read_come_uncompressed(
    rich: Stack,
    broke: Stack,
    exhausted: bool,  # noqa: FBT001 - a column of the table
    method: str,
    path: str,
    model: str | None,
    expected: str | None,
) -> None:
    """Where the meter or the pruning filter reads the answer, the upstream is not told that it may compress."""
    house = broke if exhausted else rich
    headers = {"authorization": f"Bearer {OURS}", "accept-encoding": "gzip, br"}

    status, text = await ask(house, method, path, headers, model)

    assert 200 == status, text
    [received] = house.upstream.requests
    assert expected == received.header("accept-encoding")


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/anything"])
async def test_a_preflight_passes_without_a_key(broke: Stack, path: str) -> None:
    """A browser's question whether it may ask reaches the upstream, which answers it."""
    status, _ = await ask(broke, "OPTIONS", path, PREFLIGHT)

    assert 200 == status
    assert [("OPTIONS", path)] == [(received.method, received.path) for received in broke.upstream.requests]


async def test_options_without_an_origin_are_no_preflight(broke: Stack) -> None:
    """Any other OPTIONS needs a key."""
    status, _ = await ask(broke, "OPTIONS", CHAT, {})

    assert 401 == status
    assert [] == list(broke.upstream.requests)


@pytest.mark.parametrize(
    "path", ["/", "/health", "/health/liveliness", "/docs", "/openapi.json", "/ui/", "/robots.txt"]
)
async def test_info_passes_without_a_key(broke: Stack, path: str) -> None:
    """Health, documentation and the UI's assets need no key, and no budget."""
    status, _ = await ask(broke, "GET", path, {})

    assert 200 == status
    assert [path] == [received.path for received in broke.upstream.requests]


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/gpt-4o", CHAT, "/v1/anything"])
async def test_the_api_needs_a_key(broke: Stack, path: str) -> None:
    """Nothing under the API is answered to somebody unknown."""
    status, text = await ask(broke, "GET", path, {})

    assert 401 == status
    assert "invalid_api_key" == json.loads(text)["error"]["code"]
    assert [] == list(broke.upstream.requests)


@pytest.mark.parametrize(
    ("rule", "stranger", "known"), [("pass", 200, 200), ("authenticate", 401, 200), ("deny", 403, 403)]
)
async def test_other_routes_follow_the_rule(rule: str, stranger: int, known: int) -> None:
    """What is neither models nor inference nor info passes, needs a known key, or is closed; it never costs."""
    async with stack(f"{CONFIG}  other: {rule}\n") as house:
        without, _ = await ask(house, "GET", "/key/info", {})
        unknown, _ = await ask(house, "POST", "/key/generate", {"authorization": "Bearer sk-nobody"})
        with_key, _ = await ask(house, "POST", "/key/generate", {"authorization": f"Bearer {OURS}"})
        arrived = [received.path for received in house.upstream.requests]
        info, _ = await ask(house, "GET", "/health", {})
        metrics = await house.gate.metrics()

    assert (stranger, stranger, known) == (without, unknown, with_key)
    assert ["/key/generate"] * (known == 200) == arrived
    assert 200 == info
    assert 0 == metrics.open == spent_on_global(metrics)


async def test_no_budget_binds_the_master_key(broke: Stack) -> None:
    """With the global budget exhausted, the admin's paid call passes and is counted on global; a list is whole."""
    before = spent_on_global(await broke.gate.metrics())

    refused, text = await ask(broke, "POST", CHAT, {"authorization": f"Bearer {OURS}"}, "passed")
    admitted, _ = await ask(broke, "POST", CHAT, {"authorization": f"Bearer {MASTER}"}, "passed")
    metrics = await broke.settled()

    assert (429, "budget_exceeded") == (refused, json.loads(text)["error"]["type"])
    assert 200 == admitted
    assert COST_NANOUSD == spent_on_global(metrics) - before
    assert {0} >= set(metrics.held.values())


async def test_the_master_key_sees_the_whole_list(broke: Stack) -> None:
    """Discovery is not pruned for the admin."""
    _, pruned = await ask(broke, "GET", "/v1/models", {"authorization": f"Bearer {OURS}"})
    _, whole = await ask(broke, "GET", "/v1/models", {"authorization": f"Bearer {MASTER}"})

    assert len(json.loads(pruned)["data"]) < len(json.loads(whole)["data"])


async def test_a_failed_call_costs_the_admin_nothing(broke: Stack) -> None:
    """The admin's holds are released like any other's."""
    before = spent_on_global(await broke.gate.metrics())

    status, _ = await ask(broke, "POST", CHAT, {"authorization": f"Bearer {MASTER}", PLAY_HEADER: "fails"}, "passed")

    assert 500 == status
    assert before == spent_on_global(await broke.settled())


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def keyed() -> AsyncIterator[Stack]:
    """Give the whole house, with a key of the upstream's for every model."""
    by_default = "upstream_auth:\n    default: {set: sk-upstream}"
    async with stack(SOLVENT.replace("upstream_auth:", by_default)) as house:
        yield house


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/key/generate", {}),
        ("GET", "/spend/logs", {}),
        ("GET", "/health", {}),
        ("GET", "/spend/logs", {"authorization": "Bearer sk-stranger"}),
        ("GET", "/spend/logs", {"authorization": f"Bearer {OURS}"}),
        ("OPTIONS", CHAT, PREFLIGHT),
    ],
    ids=str,
)
async def test_the_upstreams_key_opens_nothing_else(
    keyed: Stack, method: str, path: str, headers: dict[str, str]
) -> None:
    """Outside of discovery and inference nobody gets the upstream's own key, or LiteLLM would be everybody's."""
    await ask(keyed, method, path, headers)
    [received] = keyed.upstream.requests

    assert {} == credentials(received)


async def test_the_upstreams_key_goes_with_discovery(keyed: Stack) -> None:
    """A model list is asked for with it, for callers that are known."""
    await ask(keyed, "GET", "/v1/models", {"authorization": f"Bearer {OURS}"})
    [received] = keyed.upstream.requests

    assert {"authorization": "Bearer sk-upstream"} == credentials(received)
