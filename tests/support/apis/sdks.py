"""What users of the official SDKs write, what they get for it from the samples, and what that used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anthropic
import openai
from anthropic.types import MessageParam
from google import genai
from google.genai import errors
from google.genai.types import HttpOptions
from openai.types.chat import ChatCompletionMessageParam

from extauthz.demo.answers import words
from tests.support.apis import media_samples, samples
from tests.support.apis.asking import PROMPT
from tests.support.apis.media_samples import SPOKEN_TEXT
from tests.support.apis.openai_media import SOUND
from tests.support.apis.used import Used

AUDIO = ("speech.wav", b"RIFF" + bytes(200), "audio/wav")
IMAGE = ("picture.png", b"\x89PNG" + bytes(200), "image/png")
CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
TALK: list[MessageParam] = [{"role": "user", "content": PROMPT}]


@dataclass(frozen=True, slots=True)
class Clients:
    """One of each SDK, with one key, as its users make it: with its own retries."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    google: genai.Client


@asynccontextmanager
async def clients(url: str, key: str) -> AsyncIterator[Clients]:
    """Make the clients of somebody with this key."""
    async with (
        openai.AsyncOpenAI(
            base_url=f"{url}/v1", websocket_base_url=f"{url.replace('http:', 'ws:')}/v1", api_key=key
        ) as of_openai,
        anthropic.AsyncAnthropic(base_url=url, api_key=key) as of_anthropic,
    ):
        google = genai.Client(api_key=key, http_options=HttpOptions(base_url=url))
        try:
            yield Clients(of_openai, of_anthropic, google)
        finally:
            await google.aio.aclose()
            google.close()


async def chat(made: Clients, model: str = "omni") -> object:
    """Chat, and count the output."""
    answer = await made.openai.chat.completions.create(model=model, messages=CHAT)
    return answer.usage and answer.usage.completion_tokens


async def chat_stream(made: Clients) -> object:
    """Chat as a stream, without asking for usage."""
    stream = await made.openai.chat.completions.create(model="omni", messages=CHAT, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def chat_stream_with_usage(made: Clients) -> object:
    """Chat as a stream that ends with usage."""
    stream = await made.openai.chat.completions.create(
        model="omni", messages=CHAT, stream=True, stream_options={"include_usage": True}
    )
    return [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]


async def response(made: Clients) -> object:
    """Ask for a response."""
    return (await made.openai.responses.create(model="omni", input=PROMPT)).output_text


async def response_stream(made: Clients) -> object:
    """Ask for a response as a stream."""
    stream = await made.openai.responses.create(model="omni", input=PROMPT, stream=True)
    return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def embedding(made: Clients) -> object:
    """Ask for a vector."""
    answer = await made.openai.embeddings.create(model="vector", input=PROMPT, encoding_format="float")
    return answer.data[0].embedding


async def images(made: Clients) -> object:
    """Ask for pictures."""
    return len((await made.openai.images.generate(model="painter", prompt=PROMPT, n=2)).data or [])


async def images_stream(made: Clients) -> object:
    """Ask for a picture that becomes clearer."""
    stream = await made.openai.images.generate(model="sketcher", prompt=PROMPT, stream=True, partial_images=3)
    return [event.type async for event in stream][-1]


async def image_edit(made: Clients) -> object:
    """Ask for another picture than the one that is sent."""
    return len((await made.openai.images.edit(model="sketcher", image=IMAGE, prompt=PROMPT)).data or [])


async def image_variations(made: Clients) -> object:
    """Ask for pictures like the one that is sent."""
    return len((await made.openai.images.create_variation(model="painter", image=IMAGE, n=2)).data or [])


async def speech(made: Clients) -> object:
    """Ask for a text to be read aloud."""
    return (await made.openai.audio.speech.create(model="speaker", input=SPOKEN_TEXT, voice="alloy")).content


async def transcript(made: Clients) -> object:
    """Ask for what was said, from a model that counts tokens."""
    return (await made.openai.audio.transcriptions.create(model="listener", file=AUDIO)).text


async def timed_transcript(made: Clients) -> object:
    """Ask for what was said, from a model that counts seconds."""
    return (await made.openai.audio.transcriptions.create(model="scribe", file=AUDIO)).text


async def transcript_stream(made: Clients) -> object:
    """Ask for what was said as a stream."""
    stream = await made.openai.audio.transcriptions.create(model="listener", file=AUDIO, stream=True)
    return "".join([event.delta async for event in stream if event.type == "transcript.text.delta"])


async def message(made: Clients, model: str = "omni") -> object:
    """Send a message, and count the output."""
    answer = await made.anthropic.messages.create(model=model, max_tokens=64, messages=TALK)
    return answer.usage.output_tokens


async def message_stream(made: Clients) -> object:
    """Send a message, and read the answer as a stream."""
    async with made.anthropic.messages.stream(model="omni", max_tokens=64, messages=TALK) as stream:
        return await stream.get_final_text()


async def content(made: Clients, model: str = "omni") -> object:
    """Generate content."""
    return (await made.google.aio.models.generate_content(model=model, contents=PROMPT)).text


async def content_stream(made: Clients) -> object:
    """Generate content as a stream."""
    stream = await made.google.aio.models.generate_content_stream(model="omni", contents=PROMPT)
    return "".join([chunk.text or "" async for chunk in stream])


async def content_vector(made: Clients) -> object:
    """Ask for a vector of some content."""
    answer = await made.google.aio.models.embed_content(model="vector", contents=PROMPT)
    return [vector.values for vector in answer.embeddings or []]


async def conversation(made: Clients) -> object:
    """Talk in real time, and hear two turns."""
    heard = []
    async with made.openai.realtime.connect(model="omni") as connection:
        for _ in samples.TURNS:
            await connection.response.create()
            text = ""
            async for event in connection:
                if event.type == "response.output_text.delta":
                    text += event.delta
                elif event.type == "response.done":
                    break
            heard.append(text)
    return heard


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an SDK, what it gives to its caller, what that used of which model, and the error of its rate limit."""

    run: Callable[[Clients], Awaitable[object]]
    gives: object
    model: str
    used: Used
    error: type[Exception] = openai.RateLimitError

    def __str__(self) -> str:
        return self.run.__name__


def text_of(used: Used) -> str:
    """Give the text of an answer that used so much."""
    return "".join(words(used.text_output))


def told_by(error: Exception) -> tuple[int, str]:
    """Read an SDK's error: its status, and its kind in the words of the API."""
    match error:
        case openai.APIStatusError():
            return error.status_code, error.type or ""
        case anthropic.APIStatusError():
            return error.status_code, error.type or ""
        case errors.APIError():
            return error.code, error.status or ""
        case _:
            return 0, ""


# What each SDK calls the refusal of a budget.
KINDS = {
    openai.RateLimitError: "budget_exceeded",
    anthropic.RateLimitError: "rate_limit_error",
    errors.ClientError: "RESOURCE_EXHAUSTED",
}

CALLS = (
    Call(chat, samples.CHAT.output, "omni", samples.CHAT),
    Call(chat_stream, text_of(samples.CHAT), "omni", samples.CHAT),
    Call(chat_stream_with_usage, [samples.CHAT.output], "omni", samples.CHAT),
    Call(response, text_of(samples.TEXT), "omni", samples.TEXT),
    Call(response_stream, text_of(samples.TEXT), "omni", samples.TEXT),
    Call(embedding, [0.25, -0.5, 0.125, 1.0], "vector", samples.VECTOR),
    Call(images, 2, "painter", media_samples.PICTURES),
    Call(images_stream, "image_generation.completed", "sketcher", media_samples.SKETCH),
    Call(image_edit, 1, "sketcher", media_samples.SKETCH),
    Call(image_variations, 2, "painter", media_samples.PICTURES),
    Call(speech, SOUND, "speaker", Used(characters=len(SPOKEN_TEXT))),
    Call(transcript, text_of(media_samples.HEARD), "listener", media_samples.HEARD),
    Call(timed_transcript, "".join(words(12)), "scribe", media_samples.TIMED),
    Call(transcript_stream, text_of(media_samples.HEARD), "listener", media_samples.HEARD),
    Call(message, samples.MESSAGE.output, "omni", samples.MESSAGE, anthropic.RateLimitError),
    Call(message_stream, text_of(samples.MESSAGE), "omni", samples.MESSAGE, anthropic.RateLimitError),
    Call(content, text_of(samples.CONTENT), "omni", samples.CONTENT, errors.ClientError),
    Call(content_stream, text_of(samples.CONTENT), "omni", samples.CONTENT, errors.ClientError),
)
