"""Who gets in while others are on their way: holds, refusals that pass soon, windows, and the books afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, Omit, omit
from openai.types.chat import ChatCompletion

from extauthz.domain.prices import Usage
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.processes import eventually
from tests.support.stack import Stack, patient, stack
from tests.support.upstream import PLAY_HEADER, Cue, as_asked, fails

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

# An output token costs 10,000 nano-USD and input nothing, so an estimate of 100 tokens is $0.001 exactly.
OUTPUT_NANOUSD = 10_000
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/house-model, input_cost_per_token: 0, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
extauthz:
  estimate: {mode: fixed, output_tokens: 100}
  organizations: {broke: {max_budget: 0.0}, tiny: {max_budget: 0.0001}, rich: {max_budget: 100}}
  teams:
    ten: {max_budget: 0.01}
    strict: {max_budget: 0.05, admission: strict}
    brief: {max_budget: 0.0001, budget_duration: 2s}
    rich-in-broke: {max_budget: 100, organization: broke}
    tiny-in-rich: {max_budget: 0.0001, organization: rich}
    rich-in-tiny: {max_budget: 100, organization: tiny}
  users: {ana: {max_budget: 100}}
  keys:
    - {key: sk-ten, team: ten}
    - {key: sk-strict, team: strict}
    - {key: sk-brief, team: brief}
    - {key: sk-rich-in-broke, team: rich-in-broke, user: ana, max_budget: 100}
    - {key: sk-tiny-in-rich, team: tiny-in-rich, user: ana, max_budget: 100}
    - {key: sk-both, team: rich-in-tiny, user: ana, max_budget: 0.00005}
"""


@dataclass(frozen=True, slots=True)
class House:
    """A stack, and the client of it."""

    stack: Stack
    client: AsyncOpenAI

    async def chat(self, key: str, play: str = "", *, max_tokens: int | Omit = omit) -> ChatCompletion:
        """Ask the paid model something; the upstream plays what is named."""
        return await self.client.with_options(api_key=key).chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "Hello."}],
            max_tokens=max_tokens,
            extra_headers={PLAY_HEADER: play},
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Run the stack that the tests below share, each with budgets of its own."""
    async with stack(CONFIG, options=patient) as running, running.openai("nobody") as client:
        yield House(running, client)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Requests in flight at once, and what became of them so far."""

    tasks: Sequence[asyncio.Task[ChatCompletion]]

    @property
    def refused(self) -> list[openai.APIStatusError]:
        """The refusals that came back."""
        failures = [task.exception() for task in self.tasks if task.done()]
        return [failure for failure in failures if isinstance(failure, openai.APIStatusError)]

    async def answered(self) -> int:
        """Wait for all, and count the answers."""
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        return sum(isinstance(result, ChatCompletion) for result in results)


async def decide_all(house: House, requests: Sequence[Awaitable[ChatCompletion]]) -> Crowd:
    """Send requests whose answers wait at the gate, and come back when each has met the upstream or its refusal."""
    upstream = house.stack.upstream
    upstream.gate.clear()
    before = len(upstream.requests)
    crowd = Crowd([asyncio.ensure_future(request) for request in requests])
    await eventually(lambda: len(upstream.requests) - before + len(crowd.refused) == len(requests), 30.0)
    return crowd


async def test_as_many_pass_at_once_as_fit(house: House) -> None:
    """Of 32 requests in flight at once on a budget of exactly 10 estimates, exactly 10 pass and 22 are held out.

    They may come again soon, and they do pass once the first ten have settled below their estimates.
    """
    crowd = await decide_all(house, [house.chat("sk-ten", "waits") for _ in range(32)])
    refused = crowd.refused
    metrics = await house.stack.gate.metrics()

    assert 22 == len(refused)
    assert {429} == {failure.status_code for failure in refused}
    assert {"budget_held"} == {failure.type for failure in refused}
    assert {"1"} == {failure.response.headers["retry-after"] for failure in refused}
    assert {"true"} == {failure.response.headers["x-should-retry"] for failure in refused}
    assert 10 * 100 * OUTPUT_NANOUSD == metrics.held["team:ten", "lifetime"]

    house.stack.upstream.gate.set()
    assert 10 == await crowd.answered()
    settled = await house.stack.settled()
    assert 10 * 20 * OUTPUT_NANOUSD == settled.spent["team:ten", "lifetime"]
    assert 0 == settled.held["team:ten", "lifetime"]

    # $0.008 are left: room for eight estimates.
    others = await decide_all(house, [house.chat("sk-ten", "waits") for _ in range(9)])
    assert 1 == len(others.refused)
    house.stack.upstream.gate.set()
    assert 8 == await others.answered()


async def test_strict_admission(house: House) -> None:
    """With `admission: strict` a request passes only when its whole maximum fits, and that is what it holds."""
    with pytest.raises(openai.RateLimitError) as refused:
        await house.chat("sk-strict", max_tokens=5001)
    crowd = await decide_all(house, [house.chat("sk-strict", "waits", max_tokens=2500) for _ in range(3)])
    metrics = await house.stack.gate.metrics()
    house.stack.upstream.gate.set()

    assert "budget_exceeded" == refused.value.type
    assert "false" == refused.value.response.headers["x-should-retry"]
    assert "Ask for fewer tokens." in refused.value.message
    assert ["budget_held"] == [failure.type for failure in crowd.refused]
    assert 2 * 2500 * OUTPUT_NANOUSD == metrics.held["team:strict", "lifetime"]
    assert 2 == await crowd.answered()

    # $0.0496 are left.
    await house.stack.settled()
    assert await house.chat("sk-strict", max_tokens=4900)


async def refusal(house: House, key: str) -> openai.RateLimitError | None:
    """Ask once, and give the refusal for an exhausted budget if that is the answer."""
    try:
        await house.chat(key)
    except openai.RateLimitError as refused:
        return refused if refused.type == "budget_exceeded" else None
    return None


async def spend(house: House, key: str) -> openai.RateLimitError:
    """Ask until a budget is exhausted, and give the refusal."""
    refused = await eventually(lambda: refusal(house, key), what="a budget is exhausted")
    assert refused is not None
    return refused


async def test_a_window_resets(house: House) -> None:
    """A spent window refuses until it ends, says when that is, and then requests pass again."""
    refused = await spend(house, "sk-brief")

    assert refused.response.headers["retry-after"] in {"1", "2"}
    assert "The 2s budget resets at " in refused.message

    async def passes() -> bool:
        return await refusal(house, "sk-brief") is None

    assert await eventually(passes, what="the next window has begun")


KEY_DIGITS = sha256(b"sk-both").hexdigest()[:12]


@pytest.mark.parametrize(
    ("key", "named"),
    [
        pytest.param("sk-rich-in-broke", "Organization=broke Current cost: 0.0, Max budget: 0.0", id="organization"),
        pytest.param("sk-tiny-in-rich", "Team=tiny-in-rich Current cost: 0.0002, Max budget: 0.0001", id="team"),
        pytest.param("sk-both", f"Key={KEY_DIGITS} Current cost: 0.0002, Max budget: 0.00005", id="the most overdrawn"),
    ],
)
async def test_the_scope_that_binds_is_named(house: House, key: str, named: str) -> None:
    """Of all scopes of a request the refusal names the one whose money is spent."""
    refused = await spend(house, key)

    assert f"Budget has been exceeded! {named}" == refused.body["message"]  # type: ignore[index]


# ------------------------------------------------------------------------------------------------ agents ask for a lot

AGENTS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
extauthz:
  teams: {silent: {max_budget: 1}, greedy: {max_budget: 1}}
  keys: [{key: sk-silent, team: silent}, {key: sk-greedy, team: greedy}]
"""


async def test_parallel_calls_that_cost_little_all_pass() -> None:
    """12 parallel calls that cost $0.004 together pass on $1, without a maximum and with `max_tokens: 16384`."""
    async with stack(AGENTS, options=patient) as running, running.openai("nobody") as client:
        house = House(running, client)
        # $0.0003 and $0.0004: eight and four of them are $0.004.
        running.upstream.plays["short"] = as_asked(Usage(4, 29), before=(Cue.GATE,))
        running.upstream.plays["long"] = as_asked(Usage(4, 39), before=(Cue.GATE,))
        for key, maximum in (("sk-silent", omit), ("sk-greedy", 16_384)):
            plays = ("short", "short", "long") * 4
            crowd = await decide_all(house, [house.chat(key, play, max_tokens=maximum) for play in plays])
            running.upstream.gate.set()

            assert [] == crowd.refused
            assert 12 == await crowd.answered()
        settled = await running.settled()

    assert {("team:silent", "lifetime"): 4_000_000, ("team:greedy", "lifetime"): 4_000_000} == settled.spent
    assert {0} == set(settled.held.values())


# ---------------------------------------------------------------------------------------------------------- the books

BOOKS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: gpt-4o-mini
    litellm_params: {model: openai/gpt-4o-mini, input_cost_per_token: 0.00000015, output_cost_per_token: 0.0000006}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
extauthz:
  global: {max_budget: 100}
  organizations: {acme: {max_budget: 100}}
  teams:
    research:
      organization: acme
      budget_limits: [{budget_duration: 30d, max_budget: 100}, {max_budget: 100}]
      members: {ana: {max_budget: 100}}
  users: {ana: {max_budget: 100}}
  keys: [{key: sk-ana, team: research, user: ana, max_budget: 100}]
  end_users: {default: {max_budget: 100}}
"""
NANOUSD = {"gpt-4o": (2500, 10_000), "gpt-4o-mini": (150, 600)}
SCOPES = {
    ("global", "lifetime"),
    ("org:acme", "lifetime"),
    ("team:research", "30d"),
    ("team:research", "lifetime"),
    ("member:research/ana", "lifetime"),
    ("user:ana", "lifetime"),
    (f"key:{sha256(b'sk-ana').hexdigest()}", "lifetime"),
    ("end_user:customer-1", "lifetime"),
}


@pytest.mark.parametrize("version", ENVOY_VERSIONS, ids=lambda version: version.name)
async def test_the_books_are_what_was_served(version: EnvoyVersion) -> None:
    """Spent is the served usage times the prices on every scope alike, and nothing stays held."""
    served = 0
    async with stack(BOOKS, version=version, options=patient) as running, running.openai("sk-ana") as client:
        running.upstream.plays["error"] = fails()
        for number, model in enumerate(("gpt-4o", "gpt-4o-mini") * 6):
            usage = Usage(input_tokens=100 + number, output_tokens=10 * number)
            running.upstream.plays["now"] = as_asked(usage)
            await _ask(client, model, "now", stream=number % 4 < 2)
            input_nanousd, output_nanousd = NANOUSD[model]
            served += usage.input_tokens * input_nanousd + usage.output_tokens * output_nanousd
        await _ask(client, "local-llama", "now", stream=True)
        with pytest.raises(openai.InternalServerError):
            await _ask(client, "gpt-4o", "error", stream=False)
        settled = await running.settled()

    assert dict.fromkeys(SCOPES, served) == settled.spent
    assert dict.fromkeys(SCOPES, 0) == settled.held


async def _ask(client: AsyncOpenAI, model: str, play: str, *, stream: bool) -> None:
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Hello."}],
        stream=stream,
        user="customer-1",
        extra_headers={PLAY_HEADER: play},
    )
    if not isinstance(answer, ChatCompletion):
        async for _ in answer:
            pass
