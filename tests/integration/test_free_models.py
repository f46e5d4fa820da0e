"""Which models are free: only those whose every reachable deployment says so explicitly, and prices nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.support.processes import eventually
from tests.support.stack import Metrics, Stack, patient, stack
from tests.support.upstream import USAGE, Play, Received, as_asked

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

CONFIG = """
model_list:
  - model_name: no-price
    litellm_params: {model: openai/house-model}
  - model_name: only-input-0
    litellm_params: {model: openai/house-model, input_cost_per_token: 0}
  - model_name: only-output-0
    litellm_params: {model: openai/house-model, output_cost_per_token: 0}
  - model_name: input-0-output-priced
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0.00001}
  - model_name: input-priced-output-0
    litellm_params: {model: openai/house-model, input_cost_per_token: 0.00001, output_cost_per_token: 0}
  - model_name: one-of-two-priced
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: one-of-two-priced
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: one-of-two-silent
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: one-of-two-silent
    litellm_params: {model: openai/house-model}
  - model_name: priced-per-image
    litellm_params:
      {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0, output_cost_per_image: 0.04}
  - model_name: priced-per-second
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
    model_info: {output_cost_per_second: 0.001}
  - model_name: priced-reasoning
    litellm_params:
      model: openai/house-model
      input_cost_per_token: 0
      output_cost_per_token: 0
      output_cost_per_reasoning_token: 0.00001
  - model_name: falls-back-to-paid
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: long-falls-back-to-paid
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: falls-back-twice
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: falls-back-to-nothing
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: paid
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: hosted/*
    litellm_params: {model: openai/*}

  - model_name: free
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: free-in-model-info
    litellm_params: {model: openai/house-model}
    model_info: {input_cost_per_token: 0.0, output_cost_per_token: 0.0}
  - model_name: free-of-a-priced-name
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: free-twice
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: free-twice
    litellm_params: {model: openai/other-house-model, input_cost_per_token: 0.0, output_cost_per_token: "0"}
  - model_name: free-images
    litellm_params:
      {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0, output_cost_per_image: 0}
  - model_name: falls-back-to-free
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: local/*
    litellm_params: {model: openai/*, input_cost_per_token: 0, output_cost_per_token: 0}

litellm_settings:
  fallbacks:
    - {falls-back-to-paid: [free, paid]}
    - {falls-back-twice: [falls-back-to-paid]}
    - {falls-back-to-nothing: [not-in-the-list]}
    - {falls-back-to-free: [free]}
  context_window_fallbacks: [{long-falls-back-to-paid: [paid]}]
router_settings:
  model_group_alias: {alias-of-paid: paid, alias-of-free: free}
general_settings: {budget_exceeded_models_policy: free_only}
extauthz:
  teams: {broke: {max_budget: 0.0}, rich: {max_budget: 100}}
  keys: [{key: sk-broke, team: broke}, {key: sk-rich, team: rich}]
"""

PAID = (
    "no-price",
    "only-input-0",
    "only-output-0",
    "input-0-output-priced",
    "input-priced-output-0",
    "one-of-two-priced",
    "one-of-two-silent",
    "priced-per-image",
    "priced-per-second",
    "priced-reasoning",
    "falls-back-to-paid",
    "long-falls-back-to-paid",
    "falls-back-twice",
    "falls-back-to-nothing",
    "paid",
    "alias-of-paid",
    "hosted/gpt-4o",
)
FREE = (
    "free",
    "free-in-model-info",
    "free-of-a-priced-name",
    "free-twice",
    "free-images",
    "falls-back-to-free",
    "alias-of-free",
    "local/llama",
)

PAID_WAYS: Mapping[str, Mapping[str, object]] = {
    "fallbacks by name": {"fallbacks": ["paid"]},
    "fallbacks, the last of them": {"fallbacks": ["alias-of-free", "paid"]},
    "fallbacks as objects": {"fallbacks": [{"model": "paid"}]},
    "fallbacks by model": {"fallbacks": [{"free": ["paid"]}]},
    "context_window_fallbacks": {"context_window_fallbacks": [{"free": ["paid"]}]},
    "content_policy_fallbacks": {"content_policy_fallbacks": [{"free": ["paid"]}]},
    "an alias of a paid model": {"fallbacks": ["alias-of-paid"]},
    "a free model that falls back": {"fallbacks": ["falls-back-to-paid"]},
    "a list of models": {"model": ["free", "paid"]},
    "several models in one text": {"model": "free,paid"},
}


@dataclass(frozen=True, slots=True)
class House:
    """A stack, and the client of it."""

    stack: Stack
    client: AsyncOpenAI

    async def ask(self, key: str, model: str, body: Mapping[str, object] | None = None) -> Mapping[str, str]:
        """Ask a model something, and give the headers of the answer."""
        answer = await self.client.with_options(api_key=key).chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "Hello."}], extra_body=body
        )
        return answer.headers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Run a stack whose upstream lists every model."""
    async with stack(CONFIG, options=patient, models=(*PAID, *FREE)) as running, running.openai("nobody") as client:
        yield House(running, client)


async def test_only_free_models_are_listed(house: House) -> None:
    """With an exhausted budget the list has the free models and no other."""
    listed = [model.id async for model in house.client.with_options(api_key="sk-broke").models.list()]

    assert [*FREE] == listed


@pytest.mark.parametrize("model", PAID)
async def test_a_paid_model(house: House, model: str) -> None:
    """A model that may cost something is hidden and refused when the budget is exhausted, and holds money otherwise."""
    with pytest.raises(openai.NotFoundError):
        await house.client.with_options(api_key="sk-broke").models.retrieve(model)
    with pytest.raises(openai.RateLimitError) as refused:
        await house.ask("sk-broke", model)

    assert "budget_exceeded" == refused.value.type
    assert "x-extauthz-reservation" in await house.ask("sk-rich", model)


@pytest.mark.parametrize("model", FREE)
async def test_a_free_model(house: House, model: str) -> None:
    """A model that costs nothing is shown and answers when the budget is exhausted, and holds nothing."""
    entry = await house.client.with_options(api_key="sk-broke").models.retrieve(model)
    headers = await house.ask("sk-broke", model)

    assert model == entry.id
    assert "x-extauthz-reservation" not in headers
    assert "x-extauthz-reservation" not in await house.ask("sk-rich", model)


@pytest.mark.parametrize("way", PAID_WAYS)
async def test_a_request_that_brings_a_paid_model(house: House, way: str) -> None:
    """A request for a free model is paid when its body leads to a paid one in any way."""
    before = len(house.stack.upstream.requests)
    with pytest.raises(openai.RateLimitError) as refused:
        await house.ask("sk-broke", "free", PAID_WAYS[way])

    assert "budget_exceeded" == refused.value.type
    assert before == len(house.stack.upstream.requests)
    assert "x-extauthz-reservation" in await house.ask("sk-rich", "free", PAID_WAYS[way])


async def test_a_request_that_brings_free_models(house: House) -> None:
    """Fallbacks to free models leave a request free."""
    headers = await house.ask("sk-broke", "free", {"fallbacks": ["alias-of-free", {"model": "local/llama"}]})

    assert "x-extauthz-reservation" not in headers


async def test_a_fallback_that_nobody_knows(house: House) -> None:
    """A fallback that is not in the list is no way to be free: it is refused."""
    with pytest.raises(openai.BadRequestError, match="not-in-the-list"):
        await house.ask("sk-broke", "free", {"fallbacks": ["not-in-the-list"]})


def led_elsewhere(received: Received) -> Play:
    """Answer as a proxy whose free model failed and whose own fallback is a paid one."""
    body = json.dumps({**received.asked, "model": "paid"}).encode()
    return as_asked()(replace(received, body=body))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_free_request_that_a_paid_model_answers(house: House, *, stream: bool) -> None:
    """It passes, exhausted or not; its answer names a paid model, and is booked at that model's price, and counted."""
    team = ("team:broke", "lifetime")
    house.stack.upstream.plays["local/fallen"] = led_elsewhere
    before = await house.stack.gate.metrics()
    await house.ask("sk-broke", "local/fallen", {"stream": stream, "stream_options": {"include_usage": True}})

    async def booked() -> Metrics | None:
        metrics = await house.stack.gate.metrics()
        return metrics if metrics.spent.get(team, 0) > before.spent.get(team, 0) else None

    after = await eventually(booked)
    assert after is not None
    cost_nanousd = 2_500 * USAGE.input_tokens + 10_000 * USAGE.output_tokens
    assert cost_nanousd == after.spent[team] - before.spent.get(team, 0)
    assert 1 == after.total("extauthz_free_answers_paid_total") - before.total("extauthz_free_answers_paid_total")
    assert 0 == after.open
