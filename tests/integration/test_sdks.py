"""The official SDKs as clients through Envoy: what they get is booked, and a refusal is the error that they know.

They run as they come, with their own retries: an exhausted budget must not be asked again and again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from extauthz.domain.endpoints import Api
from tests.support.apis import anthropic_messages, gemini_content, openai_text, samples, sdks
from tests.support.apis.asking import PROMPT
from tests.support.apis.prices import OUTPUT_TOKENS, PRICES, model_list
from tests.support.apis.sdks import CALLS, KINDS, TALK, Call, Clients, clients, told_by
from tests.support.apis.upstream import ApisUpstream, api_of, as_play
from tests.support.apis.used import Used, bill
from tests.support.stack import Stack, patient, stack
from tests.support.storm import key_scope
from tests.support.upstream import Play, Received

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="module"),
    # Google's SDK inherits from a class of aiohttp, and OpenAI's has no other way to ask for variations.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

KEYS_MAX = 50
POOR = "sk-poor"
FREE_MODEL = "local-llama"
FREE_USED = Used(text_input=9, text_output=5)
KEYS = "\n".join(f"    - {{key: sk-{number}, max_budget: 1000}}" for number in range(KEYS_MAX))
CONFIG = f"""
{model_list()}
general_settings: {{budget_exceeded_models_policy: free_only}}
extauthz:
  estimate: {{mode: fixed, output_tokens: {OUTPUT_TOKENS}}}
  teams: {{poor: {{max_budget: 0}}}}
  keys:
    - {{key: {POOR}, team: poor}}
{KEYS}
"""


def free_answer(request: Received) -> Play:
    """Answer a chat or a message as a model that costs nothing, under its own name."""
    if api_of(request) is Api.ANTHROPIC:
        return as_play(anthropic_messages.message(FREE_USED, FREE_MODEL))
    return as_play(openai_text.chat(FREE_USED, FREE_MODEL))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house() -> AsyncIterator[Stack]:
    """Run the house, with an upstream that speaks all of these APIs."""
    async with stack(CONFIG, options=patient, scripted=ApisUpstream) as running:
        free_content = gemini_content.content(FREE_USED, FREE_MODEL)
        running.upstream.plays |= {
            FREE_MODEL: free_answer,
            f"/v1/models/{FREE_MODEL}:generateContent": lambda _: as_play(free_content),
        }
        yield running


@pytest.fixture(scope="module")
def keys() -> Iterator[str]:
    """Give keys that nobody has used."""
    return (f"sk-{number}" for number in count())


@pytest.fixture
def key(keys: Iterator[str]) -> str:
    """Give a key that nobody has used, with a budget of its own."""
    return next(keys)


async def checks(house: Stack) -> int:
    """Count the Checks so far."""
    return round((await house.gate.metrics()).total("extauthz_checks_total"))


@pytest.mark.parametrize("call", CALLS, ids=str)
async def test_an_answer_reaches_its_caller_and_is_booked(house: Stack, key: str, call: Call) -> None:
    """The caller gets what the upstream sent, and the key's budget is charged what that used."""
    async with clients(house.url, key) as made:
        given = await call.run(made)
    metrics = await house.settled()

    assert call.gives == given
    assert bill(call.used, PRICES[call.model]) == metrics.spent[key_scope(key), "lifetime"]
    assert 0 == metrics.held[key_scope(key), "lifetime"]


@pytest.mark.parametrize("call", CALLS, ids=str)
async def test_an_exhausted_budget_is_the_rate_limit_error_of_the_sdk(house: Stack, call: Call) -> None:
    """Each SDK raises its own error for a refusal, which names the budget, and asks only once."""
    before = await checks(house)

    async with clients(house.url, POOR) as made:
        with pytest.raises(call.error, match="Team=poor") as raised:
            await call.run(made)

    assert (429, KINDS[call.error]) == told_by(raised.value)
    assert 1 == await checks(house) - before


async def test_a_conversation_is_booked_turn_by_turn(house: Stack, key: str) -> None:
    """A realtime conversation of OpenAI's SDK passes in both directions, and costs what its turns used."""
    async with clients(house.url, key) as made:
        heard = await sdks.conversation(made)
    metrics = await house.settled()

    assert [sdks.text_of(turn) for turn in samples.TURNS] == heard
    assert sum(bill(turn, PRICES["omni"]) for turn in samples.TURNS) == metrics.spent[key_scope(key), "lifetime"]


async def test_an_exhausted_budget_opens_no_conversation(house: Stack) -> None:
    """The handshake is refused as any other request is, once."""
    before = await checks(house)

    async with clients(house.url, POOR) as made:
        with pytest.raises(InvalidStatus) as raised:
            await sdks.conversation(made)

    assert 429 == raised.value.response.status_code
    assert 1 == await checks(house) - before


async def listed_by_openai(made: Clients) -> list[str]:
    """List models as OpenAI's SDK does."""
    return [model.id async for model in made.openai.models.list()]


async def listed_by_anthropic(made: Clients) -> list[str]:
    """List models as Anthropic's SDK does, page by page."""
    return [model.id async for model in made.anthropic.models.list()]


async def listed_by_google(made: Clients) -> list[str]:
    """List models as Google's SDK does."""
    return [(model.name or "").removeprefix("models/") async for model in await made.google.aio.models.list()]


@pytest.mark.parametrize(
    ("listed", "free_models"),
    [(listed_by_openai, [FREE_MODEL]), (listed_by_anthropic, [FREE_MODEL]), (listed_by_google, [])],
)
async def test_the_list_shows_what_can_be_paid(
    house: Stack, key: str, listed: Callable[[Clients], Awaitable[list[str]]], free_models: list[str]
) -> None:
    """Whoever has money sees every model, and whoever has none sees those that are free.

    Google's own list is not one that is cut down: it is shown whole or not at all.
    """
    async with clients(house.url, key) as made:
        everything = await listed(made)
    async with clients(house.url, POOR) as made:
        free = await listed(made)

    assert list(PRICES) == everything
    assert free_models == free


@pytest.mark.parametrize("call", [sdks.chat, sdks.message, sdks.content])
async def test_a_free_model_answers_who_has_no_money(
    house: Stack, call: Callable[[Clients, str], Awaitable[object]]
) -> None:
    """A model that costs nothing can be called with an exhausted budget, by each SDK."""
    async with clients(house.url, POOR) as made:
        assert await call(made, FREE_MODEL)
    metrics = await house.settled()

    assert 0 == metrics.spent["team:poor", "lifetime"]


async def test_tokens_are_counted_for_nothing(house: Stack) -> None:
    """To count tokens costs nothing, and so needs no money."""
    async with clients(house.url, POOR) as made:
        counted = await made.anthropic.messages.count_tokens(model="omni", messages=TALK)
        total = await made.google.aio.models.count_tokens(model="omni", contents=PROMPT)
        asked = await made.openai.responses.input_tokens.count(model="omni", input=PROMPT)

    assert (counted.input_tokens, total.total_tokens, asked.input_tokens) == (
        samples.MESSAGE.input,
        samples.CONTENT.input,
        samples.TEXT.input,
    )


async def test_vectors_of_google_are_booked_as_estimated(house: Stack, key: str) -> None:
    """An answer of vectors that does not count its tokens costs what was held for it."""
    async with clients(house.url, key) as made:
        assert [[0.25, -0.5]] == await sdks.content_vector(made)
    metrics = await house.settled()

    assert metrics.spent[key_scope(key), "lifetime"] > 0


async def test_an_answer_that_is_only_promised_stays_held(house: Stack, key: str) -> None:
    """What a background response will cost is held when its promise came, and whoever looks for it pays nothing."""
    async with clients(house.url, key) as made:
        promise = await made.openai.responses.create(model="omni", input=PROMPT, background=True)
        held = await house.gate.metrics()
        await made.openai.responses.retrieve(promise.id)

    assert "queued" == promise.status
    assert held.held[key_scope(key), "lifetime"] > 0
