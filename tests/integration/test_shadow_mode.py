"""Shadow mode through a real Envoy: nobody is refused, the books are kept, and what would have been is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from extauthz.domain.prices import Usage
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.stack import Stack, patient, stack
from tests.support.upstream import MODELS

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 10_000
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/house-model, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
general_settings: {budget_exceeded_models_policy: free_only}
extauthz:
  lease_seconds: 5
  teams:
    trial: {max_budget: 0, shadow_mode: true}
    strict: {max_budget: 0}
  keys:
    - {key: sk-trial, team: trial}
    - {key: sk-strict, team: strict}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENVOY_VERSIONS, ids=str)
async def house(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Run the whole stack, on the oldest Envoy and the newest."""
    version: EnvoyVersion = request.param
    async with stack(CONFIG, version=version, options=patient) as running:
        yield running


async def test_an_exhausted_team_is_served_and_booked(house: Stack) -> None:
    """Each request goes on, costs what the upstream served, ends its reservation, and is counted as what it was."""
    async with house.openai("sk-trial") as client:
        answers = [
            await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello."}])
            for _ in range(3)
        ]
    metrics = await house.settled()

    used = [Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens) for answer in answers if answer.usage]
    cost = sum(usage.input_tokens * INPUT_NANOUSD + usage.output_tokens * OUTPUT_NANOUSD for usage in used)
    assert len(used) == 3
    assert metrics.spent[("team:trial", "lifetime")] == cost
    assert metrics.value("extauthz_checks_total", "shadow_deny", "budget_exceeded", "inference") == 3


async def test_no_model_is_hidden(house: Stack) -> None:
    """The list stays whole for a team in shadow mode, and is pruned for its neighbour."""
    async with house.openai("sk-trial") as trial, house.openai("sk-strict") as strict:
        whole = [model.id async for model in trial.models.list()]
        pruned = [model.id async for model in strict.models.list()]

    assert list(MODELS) == whole
    assert pruned == ["local-llama"]


async def test_others_are_refused(house: Stack) -> None:
    """A team beside it, and a key that nobody knows, are refused as ever."""
    async with house.openai("sk-strict") as strict, house.openai("sk-nobody") as nobody:
        with pytest.raises(openai.RateLimitError):
            await strict.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello."}])
        with pytest.raises(openai.AuthenticationError):
            await nobody.models.list()
