"""Every failure path, with Envoy's `failure_mode_allow` false and true: a decided refusal is never an allow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from extauthz.domain.policy import ModelsPolicy, StoreFailure
from extauthz.envoy.bootstrap import BootstrapOptions, Document
from extauthz.envoy.names import PRUNE_FILTER
from tests.support.abort import Call, calling
from tests.support.faulty import FAULT_FILE, RESERVED, Fault
from tests.support.processes import LOOPBACK, eventually, free_port
from tests.support.stack import Metrics, Stack, stack
from tests.support.upstream import PLAY_HEADER

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

PAID, FREE = "gpt-4o", "local-llama"
RICH, BROKE = "sk-rich", "sk-broke"
TRUTH = 10 * 1_000 + 20 * 4_000
BUDGET = ("team:rich", "lifetime")

CHECK_FAILURES = ("extauthz_failures_total", "check")

# Longer than the server's own patience of 1 s, so that a slow machine does not take a decision for silence.
CHECK_TIMEOUT_S = 2.0
CANCELLED_AT_ONCE = 10
# Far below the lease of 120 s.
SECONDS_TO_SETTLE = 5.0

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
general_settings: {{budget_exceeded_models_policy: {policy}}}
extauthz:
  store_failure: {store_failure}
  teams: {{rich: {{max_budget: 10}}, broke: {{max_budget: 0}}, narrow: {{max_budget: 10, models: [local-llama]}}}}
  keys: [{{key: sk-rich, team: rich}}, {{key: sk-broke, team: broke}}, {{key: sk-narrow, team: narrow}}]
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator chose: Envoy's rule for silence, and our rules for a store that is away and for the list."""

    failure_mode_allow: bool
    store_failure: StoreFailure = StoreFailure.DENY
    policy: ModelsPolicy = ModelsPolicy.FREE_ONLY

    def __str__(self) -> str:
        mode = "open" if self.failure_mode_allow else "closed"
        return f"Envoy {mode}, store_failure {self.store_failure}, {self.policy}"

    @property
    def config(self) -> str:
        """The configuration that says so."""
        return CONFIG.format(policy=self.policy, store_failure=self.store_failure)

    @property
    def without_server(self) -> int:
        """The status of a request that the server says nothing about."""
        return 200 if self.failure_mode_allow else 503

    @property
    def without_store(self) -> int:
        """The status of a request that the store would have to be asked about."""
        match self.store_failure:
            case StoreFailure.DENY:
                return 503
            case StoreFailure.ALLOW:
                return 200
            case StoreFailure.DEFER:
                return self.without_server

    def options(self, chosen: BootstrapOptions) -> BootstrapOptions:
        """Tell Envoy."""
        return replace(chosen, failure_mode_allow=self.failure_mode_allow, check_timeout_s=CHECK_TIMEOUT_S)


EVERY_RULES = [
    Rules(failure_mode_allow, store_failure, policy)
    for failure_mode_allow in (False, True)
    for store_failure, policy in (
        (StoreFailure.DENY, ModelsPolicy.FREE_ONLY),
        (StoreFailure.ALLOW, ModelsPolicy.BLOCKED),
        (StoreFailure.DEFER, ModelsPolicy.ALL),
    )
]
BOTH_MODES = [Rules(failure_mode_allow=False), Rules(failure_mode_allow=True)]


@dataclass(frozen=True, slots=True)
class House:
    """Everything, running by some rules, and the file that says what is wrong with it."""

    rules: Rules
    stack: Stack
    fault: Path

    @contextmanager
    def wrong(self, fault: Fault) -> Iterator[None]:
        """Let something be wrong inside the block."""
        self.fault.write_text(fault, encoding="utf-8")
        try:
            yield
        finally:
            self.fault.write_text(Fault.NONE, encoding="utf-8")

    @property
    def mute_reservations(self) -> int:
        """How many reservations the store has made while it was mute."""
        return self.stack.gate.process.output.count(RESERVED)

    async def settled(self) -> Metrics:
        """Wait until no reservation is open, for much less than a lease, and give the metrics then."""

        async def read() -> Metrics | None:
            metrics = await self.stack.gate.metrics()
            return metrics if metrics.open == 0 else None

        metrics = await eventually(read, SECONDS_TO_SETTLE, "no reservation is open")
        assert metrics is not None
        return metrics


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=EVERY_RULES, ids=str)
async def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Run everything by each set of rules."""
    rules: Rules = request.param
    fault = tmp_path_factory.mktemp("faulty") / "fault"
    fault.write_text(Fault.NONE, encoding="utf-8")
    async with stack(
        rules.config,
        options=rules.options,
        environment={FAULT_FILE: str(fault)},
        module="tests.support.faulty",
    ) as started:
        yield House(rules, started, fault)


def chat(key: str, model: str = PAID, play: str = "") -> tuple[bytes, dict[str, str]]:
    """Write a chat: its body and its headers."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    return body, {"authorization": f"Bearer {key}", PLAY_HEADER: play}


async def ask(running: Stack, key: str = RICH, model: str = PAID, play: str = "") -> Call:
    """Ask for a chat, and read the answer to its end."""
    async with calling(running.envoy.options.listen.port, *chat(key, model, play)) as call:
        await call.end()
    return call


async def models(running: Stack, key: str) -> tuple[int, str]:
    """Ask for the list of models: the status, and the body."""
    url = f"{running.url}/v1/models"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers={"authorization": f"Bearer {key}"}) as answer,
    ):
        return answer.status, await answer.text()


def names(status_and_body: tuple[int, str]) -> list[str]:
    """Give the names of a list of models."""
    status, body = status_and_body
    assert 200 == status, body
    return [entry["id"] for entry in json.loads(body)["data"]]


def inferences(running: Stack) -> int:
    """Count the inferences that reached the upstream."""
    return sum(request.method == "POST" for request in running.upstream.requests)


def error_of(call: Call) -> dict[str, object]:
    """Read the error in the shape of OpenAI's API."""
    error: dict[str, object] = json.loads(call.received)["error"]
    return error


@pytest.mark.parametrize(
    ("key", "model", "status", "kind"),
    [
        pytest.param(BROKE, PAID, 429, "budget_exceeded", id="exhausted"),
        pytest.param("sk-nobody", PAID, 401, "authentication_error", id="unknown key"),
        pytest.param(RICH, "no-such-model", 400, "invalid_request_error", id="unknown model"),
        pytest.param(RICH, "", 400, "invalid_request_error", id="no model"),
        pytest.param("sk-narrow", PAID, 403, "permission_denied", id="model not allowed"),
    ],
)
async def test_a_decided_refusal_stays_one(house: House, key: str, model: str, status: int, kind: str) -> None:
    """Whatever Envoy is told to do without an answer: this is one."""
    before = inferences(house.stack)
    call = await ask(house.stack, key, model)

    assert (status, kind) == (call.status, error_of(call)["type"])
    assert before == inferences(house.stack)


@pytest.mark.parametrize("key", [RICH, BROKE])
async def test_our_own_exception_is_a_refusal(house: House, key: str) -> None:
    """A Check that fails in a way that nobody expected is 503 in the API's shape, for rich and poor alike."""
    before, failures = inferences(house.stack), (await house.stack.gate.metrics()).value(*CHECK_FAILURES)
    with house.wrong(Fault.BUG):
        call = await ask(house.stack, key)
    metrics = await house.settled()

    assert (503, "api_error") == (call.status, error_of(call)["type"])
    assert "true" == call.headers["x-should-retry"]
    assert before == inferences(house.stack)
    assert failures + 1 == metrics.value(*CHECK_FAILURES)


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.MUTE])
async def test_a_store_that_does_not_answer(house: House, fault: Fault) -> None:
    """`store_failure` decides; what is served is booked where we have said so, and nothing stays held."""
    served, before = inferences(house.stack), (await house.settled()).spent.get(BUDGET, 0)
    house.stack.upstream.gate.clear()
    with house.wrong(fault):
        asking = asyncio.create_task(ask(house.stack, play="waits"))
        if house.rules.without_store == 200:
            await eventually(lambda: inferences(house.stack) > served, what="the upstream has the request")
        else:
            await asking
    house.stack.upstream.gate.set()
    call = await asking

    assert house.rules.without_store == call.status
    assert served + (call.status == 200) == inferences(house.stack)
    if house.rules.store_failure is StoreFailure.DENY:
        assert "api_error" == error_of(call)["type"]
    cost = TRUTH if house.rules.store_failure is StoreFailure.ALLOW else 0
    metrics = await eventually(lambda: booked(house, before + cost), SECONDS_TO_SETTLE, f"{cost} nano-USD are booked")
    assert metrics is not None
    assert 0 == metrics.held.get(BUDGET, 0)


async def booked(house: House, spent: int) -> Metrics | None:
    """Give the metrics when nothing is open and so much is spent."""
    metrics = await house.stack.gate.metrics()
    return metrics if (0, spent) == (metrics.open, metrics.spent.get(BUDGET, 0)) else None


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.MUTE])
@pytest.mark.parametrize("key", [RICH, BROKE])
async def test_free_models_need_no_store(house: House, key: str, fault: Fault) -> None:
    """A free model is answered whatever the store does."""
    with house.wrong(fault):
        call = await ask(house.stack, key, FREE)

    assert 200 == call.status


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.MUTE])
async def test_discovery_without_a_store(house: House, fault: Fault) -> None:
    """`all` shows everything, `free_only` what is free, and under `blocked` the rule for the store decides."""
    with house.wrong(fault):
        answer = await models(house.stack, RICH)

    match house.rules.policy:
        case ModelsPolicy.ALL:
            assert {PAID, FREE} <= set(names(answer))
        case ModelsPolicy.FREE_ONLY:
            assert [FREE] == names(answer)
        case ModelsPolicy.BLOCKED:
            assert house.rules.without_store == answer[0]


async def test_an_exception_while_pruning_shows_no_list(house: House) -> None:
    """A list that must be pruned and cannot be is no list."""
    with house.wrong(Fault.PRUNE_BUG):
        status, body = await models(house.stack, BROKE)

    match house.rules.policy:
        case ModelsPolicy.FREE_ONLY:
            assert (503, "api_error") == (status, json.loads(body)["error"]["type"])
            assert PAID not in body
        case ModelsPolicy.BLOCKED:
            assert 429 == status
        case ModelsPolicy.ALL:
            assert 200 == status


async def test_a_check_that_is_cancelled_gives_its_hold_back(house: House) -> None:
    """The store has reserved, and clients leave before it answers: the cancelled Checks themselves release."""
    released = ("extauthz_reservations_ended_total", "released", "cancellation")
    before, served = await house.settled(), inferences(house.stack)
    reserved = house.mute_reservations + CANCELLED_AT_ONCE
    with house.wrong(Fault.MUTE):
        async with AsyncExitStack() as waiting:
            for _ in range(CANCELLED_AT_ONCE):
                await waiting.enter_async_context(calling(house.stack.envoy.options.listen.port, *chat(RICH)))
            await eventually(lambda: house.mute_reservations == reserved, what="the store has reserved")
        await eventually(lambda: house.stack.envoy.active(0), what="Envoy knows that all have left")
    metrics = await house.settled()

    assert before.value(*released) + CANCELLED_AT_ONCE == metrics.value(*released)
    assert (before.spent, before.held) == (metrics.spent, metrics.held)
    assert served == inferences(house.stack)


async def test_a_server_that_stands_still(house: House) -> None:
    """Envoy's own rule decides about requests; nothing is booked, and nothing stays held afterwards."""
    before = (await house.settled()).spent
    async with house.stack.gate.process.paused():
        rich, broke, (status, body) = await asyncio.gather(
            ask(house.stack, RICH), ask(house.stack, BROKE), models(house.stack, BROKE)
        )
    metrics = await house.settled()
    refused = await ask(house.stack, BROKE)

    assert [house.rules.without_server] * 2 == [rich.status, broke.status]
    assert status >= 500
    assert PAID not in body
    assert before == metrics.spent
    assert {0} == set(metrics.held.values())
    assert 429 == refused.status


@pytest.mark.parametrize("rules", BOTH_MODES, ids=str)
async def test_a_server_that_is_gone(rules: Rules) -> None:
    """Envoy's own rule decides about requests, and even where it lets them through it shows no list."""
    async with stack(rules.config, options=rules.options) as started:
        refused = await ask(started, BROKE)
        started.gate.process.kill()
        await started.gate.process.wait()
        call = await ask(started, BROKE)
        status, body = await models(started, BROKE)

    assert 429 == refused.status
    assert rules.without_server == call.status
    assert status >= 500
    assert PAID not in body


def pruned_by(port: int) -> Callable[[Document], Document]:
    """Send the pruning, and nothing else, to another port."""

    def edit(document: Document) -> Document:
        changed: dict[str, Any] = json.loads(json.dumps(document))
        resources = changed["static_resources"]
        (server,) = (cluster for cluster in resources["clusters"] if cluster["name"] == "extauthz")
        pruner = json.loads(json.dumps(server).replace('"extauthz"', '"pruner"'))
        (endpoint,) = pruner["load_assignment"]["endpoints"][0]["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
        resources["clusters"].append(pruner)
        filters = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        (prune,) = (item for item in filters if item["name"] == PRUNE_FILTER)
        prune["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = "pruner"
        return changed

    return edit


@pytest.mark.parametrize("slow", [False, True], ids=["down", "slow"])
@pytest.mark.parametrize("rules", BOTH_MODES, ids=str)
async def test_a_list_that_cannot_be_pruned_is_no_list(rules: Rules, slow: bool) -> None:  # noqa: FBT001
    """The Check says that the list must be pruned, and then the pruning is down or slow: an error, never the list."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, LOOPBACK, 0)
    port = silent.sockets[0].getsockname()[1] if slow else free_port()
    async with silent, stack(rules.config, options=rules.options, edit=pruned_by(port)) as started:
        status, body = await models(started, BROKE)
        call = await ask(started, BROKE)

    assert status >= 500
    assert PAID not in body
    assert 429 == call.status
