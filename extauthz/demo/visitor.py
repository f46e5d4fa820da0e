"""A team's member with the official OpenAI client: does one thing and tells in one line what came of it."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam

CLIENT_SECONDS_MAX = 10.0

QUESTION = "what does one more token of this cost"


class Visitor:
    """Speaks to one house with one key, and never asks twice.

    A refusal is an openai.APIStatusError; `refused` puts it in one line.
    """

    def __init__(self, url: str, key: str) -> None:
        self._client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=CLIENT_SECONDS_MAX)

    @property
    def connection(self) -> AbstractAsyncContextManager[AsyncOpenAI]:
        """Close the client's connections when the `async with` block ends."""
        return self._client

    async def list_models(self) -> str:
        """List the models."""
        return ", ".join([model.id async for model in self._client.models.list()])

    async def retrieve(self, model: str) -> str:
        """Retrieve one model."""
        return (await self._client.models.retrieve(model)).id

    async def chat(self, model: str) -> str:
        """Ask the question."""
        answer = await self._client.chat.completions.create(model=model, messages=_messages())
        if answer.usage is None:
            return "answered without usage"
        return f"answered, {answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out"

    async def chat_body(self, model: str) -> str:
        """Ask the question, and give the status and the exact body of the refusal."""
        try:
            await self._client.chat.completions.create(model=model, messages=_messages())
        except openai.APIStatusError as refusal:
            return f"{refusal.status_code} {refusal.response.text}"
        return "answered"

    async def stream(self, model: str) -> str:
        """Ask the question and read the answer as it is written."""
        pieces, usages = 0, 0
        stream = await self._client.chat.completions.create(model=model, messages=_messages(), stream=True)
        async with stream:
            async for chunk in stream:
                pieces += any(choice.delta.content for choice in chunk.choices)
                usages += chunk.usage is not None
        return f"streamed {pieces} words, {usages} usage events"

    async def hang_up(self, model: str, words: int) -> str:
        """Ask for a stream, and hang up after so many words."""
        pieces = 0
        stream = await self._client.chat.completions.create(model=model, messages=_messages(), stream=True)
        async with stream:
            async for chunk in stream:
                pieces += any(choice.delta.content for choice in chunk.choices)
                if pieces == words:
                    return f"hung up after {pieces} words"
        return f"the stream ended after {pieces} words"


def refused(refusal: openai.APIStatusError) -> str:
    """Give the status of a refusal with its code, or with its type where the code is only the status again."""
    code = refusal.code if refusal.code and not refusal.code.isdecimal() else refusal.type
    return f"{refusal.status_code} {code}" if code else str(refusal.status_code)


def streamed_body(model: str) -> bytes:
    """Give the body with which a stream is asked for."""
    return json.dumps({"messages": _messages(), "model": model, "stream": True}).encode()


def _messages() -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": QUESTION}]
