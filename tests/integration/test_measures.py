"""Budgets in tokens, in requests, of a model and of a provider, through Envoy: until they are used up, no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.support.stack import Stack, patient, stack
from tests.support.upstream import USAGE

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0.00001}
  - model_name: claude
    litellm_params: {model: anthropic/house-model, input_cost_per_token: 0, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: ollama/house-model, input_cost_per_token: 0, output_cost_per_token: 0}
router_settings:
  provider_budget_config: {anthropic: {budget_limit: 0.0001, time_period: 1d}}
general_settings: {budget_exceeded_models_policy: free_only}
extauthz:
  estimate: {mode: fixed, output_tokens: 10}
  teams:
    tokens: {max_tokens: 15}
    requests: {max_requests: 2, budget_duration: 1d}
    model: {model_max_budget: {gpt-4o: {budget_limit: 0.0001, time_period: 1d}}}
    provider: {max_budget: 100}
    free: {max_budget: 0, max_requests: 1}
  keys:
    - {key: sk-tokens, team: tokens}
    - {key: sk-requests, team: requests}
    - {key: sk-model, team: model}
    - {key: sk-provider, team: provider}
    - {key: sk-free, team: free}
"""


@dataclass(frozen=True, slots=True)
class House:
    """A stack, and the client of it."""

    stack: Stack
    client: AsyncOpenAI

    async def chat(self, key: str, model: str = "gpt-4o") -> None:
        """Ask something, and wait until it is booked."""
        await self.client.with_options(api_key=key).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello."}]
        )
        await self.stack.settled()

    async def refused(self, key: str, model: str = "gpt-4o") -> str:
        """Ask something that is refused, and give the message."""
        with pytest.raises(openai.RateLimitError) as refused:
            await self.chat(key, model)
        assert "budget_exceeded" == refused.value.type
        assert "false" == refused.value.response.headers["x-should-retry"]
        return str(refused.value.message)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Run the stack that the tests below share, each with budgets of its own."""
    async with stack(CONFIG, options=patient) as running, running.openai("nobody") as client:
        yield House(running, client)


async def test_tokens(house: House) -> None:
    """Those of the answer are booked, input and output together, and refused when they are used up."""
    used = USAGE.input_tokens + USAGE.output_tokens

    await house.chat("sk-tokens")

    assert f"Team=tokens Current tokens: {used}, Max tokens: 15" in await house.refused("sk-tokens")
    metrics = await house.stack.gate.metrics()
    assert used == metrics.value("extauthz_budget_spent", "tokens", "team:tokens", "lifetime/tokens")


async def test_requests(house: House) -> None:
    """Two pass, whatever they cost, and the third is told when there will be others."""
    await house.chat("sk-requests")
    await house.chat("sk-requests", "local-llama")

    message = await house.refused("sk-requests")

    assert "Team=requests Current requests: 2, Max requests: 2 The 1d/requests budget resets at " in message


async def test_one_model(house: House) -> None:
    """Its money is used up, and others go on; it alone leaves the list of models."""
    await house.chat("sk-model")

    assert "Team=model Model=gpt-4o Current cost: " in await house.refused("sk-model")
    await house.chat("sk-model", "local-llama")
    shown = [model.id async for model in house.client.with_options(api_key="sk-model").models.list()]
    assert "gpt-4o" not in shown
    assert "local-llama" in shown


async def test_one_provider(house: House) -> None:
    """LiteLLM's budget of a provider is one of all together: another team meets it as well."""
    await house.chat("sk-provider", "claude")

    assert "exceeded! Provider=anthropic Current cost: " in await house.refused("sk-provider", "claude")
    assert "exceeded! Provider=anthropic Current cost: " in await house.refused("sk-model", "claude")
    await house.chat("sk-provider")


async def test_a_free_model_with_a_budget_of_requests(house: House) -> None:
    """No money limits it, and requests do."""
    await house.chat("sk-free", "local-llama")

    assert "Team=free Current requests: 1, Max requests: 1" in await house.refused("sk-free", "local-llama")
