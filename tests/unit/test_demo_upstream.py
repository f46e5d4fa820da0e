"""The demo's upstream, asked by the official client with no Envoy between: it answers and fails as the real ones do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from yarl import URL

from extauthz.demo import answers
from extauthz.demo.answers import Failure, ServedModel
from extauthz.demo.upstream import Outcome, Served, Upstream
from extauthz.domain.prices import Usage
from tests.support.processes import eventually

MODELS = (
    ServedModel("paid", output_tokens=6, reasoning_tokens=2, cached_tokens=3),
    ServedModel("slow", output_tokens=1000, pause_seconds=0.001),
    ServedModel("pauses", pause_seconds=60),
    ServedModel("vendor/free", output_tokens=4),
    ServedModel("fails-500", failure=Failure.ERROR),
    ServedModel("resets", failure=Failure.RESET),
    ServedModel("breaks", output_tokens=6, failure=Failure.BREAK),
)
QUESTION = "what does one more token cost"
QUESTION_TOKENS = 6


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Serve MODELS."""
    async with Upstream(MODELS) as running:
        yield running


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[AsyncOpenAI]:
    """Give a client that asks once and never again."""
    url = f"http://127.0.0.1:{upstream.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key="sk-none", max_retries=0, timeout=10) as running:
        yield running


async def ask(
    client: AsyncOpenAI, model: str, options: dict[str, int] | None = None
) -> openai.types.chat.ChatCompletion:
    """Ask the question in a chat."""
    return await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], extra_body=options
    )


async def stream(
    client: AsyncOpenAI, model: str, *, include_usage: bool | None = None
) -> openai.AsyncStream[openai.types.chat.ChatCompletionChunk]:
    """Ask the question in a chat and stream the answer."""
    return await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options=openai.omit if include_usage is None else {"include_usage": include_usage},
    )


async def test_lists_every_model(client: AsyncOpenAI) -> None:
    """The model list names the models in the order in which they were given."""
    listed = await client.models.list()

    assert [model.name for model in MODELS] == [model.id for model in listed.data]


@pytest.mark.parametrize("name", ["paid", "vendor/free"])
async def test_retrieves_a_model(client: AsyncOpenAI, name: str) -> None:
    """An entry of the list can be read alone, also when its name holds a slash."""
    entry = await client.models.retrieve(name)

    assert (name, "model") == (entry.id, entry.object)


async def test_answers_404_for_an_unknown_model(client: AsyncOpenAI) -> None:
    """An unknown entry is a 404 in OpenAI's shape."""
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nope")

    assert 404 == caught.value.status_code
    assert {
        "error": {
            "message": "The model 'nope' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    } == caught.value.response.json()
    assert answers.unknown_model("nope") == caught.value.response.json()


async def test_refuses_an_inference_with_an_unknown_model(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A chat with an unknown model is a 404, and nothing was served."""
    with pytest.raises(openai.NotFoundError) as caught:
        await ask(client, "nope")

    assert "model_not_found" == caught.value.code
    assert () == upstream.books.served


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models", 200),
        ("/v1/models", 200),
        ("/models/paid", 200),
        ("/v1/models/vendor/free", 200),
        ("/v1/models/vendor%2Ffree", 200),
        ("/models/nope", 404),
        ("/nothing", 404),
    ],
)
async def test_answers_with_and_without_the_version(upstream: Upstream, path: str, status: int) -> None:
    """The routes stand with and without `/v1`, and a slash in a model's name may be escaped or not."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(f"http://127.0.0.1:{upstream.port}{path}", encoded=True)) as response,
    ):
        assert status == response.status


async def test_answers_a_chat(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A chat reports its tokens with the cached and the reasoning ones, and shows the words that are no reasoning."""
    answer = await ask(client, "paid")

    assert "Every token has its" == answer.choices[0].message.content
    assert "stop" == answer.choices[0].finish_reason
    assert answer.usage is not None
    assert (6, 6, 12) == (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
    assert answer.usage.prompt_tokens_details is not None
    assert 3 == answer.usage.prompt_tokens_details.cached_tokens
    assert answer.usage.completion_tokens_details is not None
    assert 2 == answer.usage.completion_tokens_details.reasoning_tokens
    assert (Served("paid", Usage(6, 6, 3, 0, 2), 0, Outcome.FINISHED),) == upstream.books.served


@pytest.mark.parametrize("option", ["max_tokens", "max_completion_tokens"])
async def test_honours_the_maximum(client: AsyncOpenAI, option: str) -> None:
    """An answer ends at the client's maximum and says so."""
    answer = await ask(client, "paid", {option: 5})

    assert "Every token has" == answer.choices[0].message.content
    assert "length" == answer.choices[0].finish_reason


@pytest.mark.parametrize("include_usage", [None, False], ids=["silent", "declined"])
async def test_streams_without_usage(
    upstream: Upstream,
    client: AsyncOpenAI,
    include_usage: bool | None,  # noqa: FBT001 - a column of the table
) -> None:
    """A client that did not ask for usage finds none in its stream, and the books have it all the same."""
    chunks = [chunk async for chunk in await stream(client, "paid", include_usage=include_usage)]

    assert ["", "Every", " token", " has", " its", None] == [chunk.choices[0].delta.content for chunk in chunks]
    assert [None] * 5 + ["stop"] == [chunk.choices[0].finish_reason for chunk in chunks]
    assert [None] * 6 == [chunk.usage for chunk in chunks]
    assert (Served("paid", Usage(6, 6, 3, 0, 2), 7, Outcome.FINISHED),) == upstream.books.served


async def test_streams_with_usage(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A client that asked for usage finds it in one last event that has no choices."""
    chunks = [chunk async for chunk in await stream(client, "paid", include_usage=True)]

    assert [None] * 6 == [chunk.usage for chunk in chunks[:-1]]
    assert all("usage" in chunk.model_fields_set for chunk in chunks)
    assert [] == chunks[-1].choices
    assert chunks[-1].usage is not None
    assert (6, 6) == (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)
    assert (Served("paid", Usage(6, 6, 3, 0, 2), 8, Outcome.FINISHED),) == upstream.books.served


async def test_books_what_an_aborted_stream_got(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A client that hangs up is noticed while the stream runs, and only the tokens that went out are booked."""
    chunks = await stream(client, "slow")
    for _ in range(3):
        await anext(chunks)
    await chunks.close()

    (served,) = await eventually(lambda: upstream.books.served)
    assert ("slow", Outcome.ABORTED) == (served.model, served.outcome)
    assert 3 <= served.events < 1000
    assert Usage(QUESTION_TOKENS, served.events - 1) == served.usage


async def test_notices_an_abort_between_two_events(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A client that hangs up is noticed at once, however long the next event would take."""
    chunks = await stream(client, "pauses")
    await anext(chunks)
    await chunks.close()

    (served,) = await eventually(lambda: upstream.books.served)
    assert (1, Outcome.ABORTED) == (served.events, served.outcome)


async def test_books_a_client_that_hangs_up_after_the_last_event_as_finished(
    upstream: Upstream, client: AsyncOpenAI
) -> None:
    """Who closes the connection with the last event in hand got everything."""
    async with client.chat.completions.with_streaming_response.create(
        model="paid", messages=[{"role": "user", "content": QUESTION}], stream=True
    ) as response:
        async for line in response.iter_lines():
            if line == "data: [DONE]":
                break

    (served,) = await eventually(lambda: upstream.books.served)
    assert (Outcome.FINISHED, 7) == (served.outcome, served.events)


async def test_answers_completions(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A completion reports its tokens."""
    answer = await client.completions.create(model="vendor/free", prompt=["one two", "three"])

    assert "Every token has its" == answer.choices[0].text
    assert answer.usage is not None
    assert (3, 4) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert (Served("vendor/free", Usage(3, 4), 0, Outcome.FINISHED),) == upstream.books.served


async def test_streams_completions(client: AsyncOpenAI) -> None:
    """A streamed completion brings the same text and its usage."""
    stream = await client.completions.create(
        model="vendor/free", prompt="one", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "Every token has its" == "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage is not None
    assert (1, 4) == (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)


async def test_answers_embeddings(upstream: Upstream, client: AsyncOpenAI) -> None:
    """Each text gets its vector, the same whether it travels as numbers or as base64."""
    packed = await client.embeddings.create(model="vendor/free", input=["one two", "three"])
    plain = await client.embeddings.create(model="vendor/free", input=["one two", "three"], encoding_format="float")

    assert [8, 8] == [len(entry.embedding) for entry in packed.data]
    assert [entry.embedding for entry in plain.data] == [entry.embedding for entry in packed.data]
    assert packed.data[0].embedding != packed.data[1].embedding
    assert 3 == packed.usage.prompt_tokens
    assert [Served("vendor/free", Usage(3, 0), 0, Outcome.FINISHED)] * 2 == list(upstream.books.served)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("fails-500", openai.InternalServerError),
        ("resets", openai.APIConnectionError),
        ("breaks", openai.APIConnectionError),
    ],
)
async def test_fails_as_the_model_says(
    upstream: Upstream, client: AsyncOpenAI, model: str, error: type[openai.APIError]
) -> None:
    """Each way to fail is the client's own error, and booked as a failure that brought no tokens."""
    with pytest.raises(error):
        await ask(client, model)

    (served,) = upstream.books.served
    assert (model, 0, Outcome.FAILED) == (served.model, served.usage.output_tokens, served.outcome)


async def test_breaks_in_the_middle_of_a_stream(upstream: Upstream, client: AsyncOpenAI) -> None:
    """A stream that is reset brings its first half and then a connection error."""
    chunks = await stream(client, "breaks")
    texts = [(await anext(chunks)).choices[0].delta.content for _ in range(4)]
    with pytest.raises(openai.APIConnectionError):
        await anext(chunks)

    assert ["", "Every", " token", " has"] == texts
    assert (Served("breaks", Usage(QUESTION_TOKENS, 3), 4, Outcome.FAILED),) == upstream.books.served


async def test_refuses_a_body_that_it_cannot_read(upstream: Upstream) -> None:
    """A wrong body is a 400 that names the place."""
    url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"
    body = {"model": "paid", "messages": [{"content": 5}]}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        answer = await response.json()

    assert 400 == response.status
    assert answer["error"]["param"].startswith("messages.0.content")


async def test_shows_its_books(upstream: Upstream, client: AsyncOpenAI) -> None:
    """`GET /served` tells what every request got."""
    await ask(client, "paid")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{upstream.port}/served") as response,
    ):
        served = await response.json()

    assert [
        {
            "model": "paid",
            "usage": asdict(Usage(6, 6, cache_read_input_tokens=3, reasoning_output_tokens=2)),
            "events": 0,
            "outcome": "finished",
        }
    ] == served
