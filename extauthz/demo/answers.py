"""What the demo's upstream is asked and what it answers, in OpenAI's words. Pure: `upstream.py` does the sending.

Answers are made up but always the same: the input tokens are the words of the text, the output tokens are what the
model is set to, and every word of an answer is one token. A request gets one choice, whatever `n` says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from extauthz.domain.prices import Usage

# One moment for everything that was ever created, so that answers do not differ from run to run.
CREATED = 1_700_000_000
SENTENCE = ("Every", "token", "has", "its", "price", "and", "every", "budget", "has", "its", "end.")
VECTOR_DIMENSIONS = 8

# OpenAI's own sentence for `GET /v1/models/{id}`; the one of an inference is another and quotes the name otherwise.
UNKNOWN_MODEL_MESSAGE = "The model '{model}' does not exist"
UNKNOWN_INFERENCE_MODEL_MESSAGE = "The model `{model}` does not exist or you do not have access to it."

Json = dict[str, object]


class Failure(StrEnum):
    """How a model fails."""

    ERROR = "error"  # answers 500
    RESET = "reset"  # resets the connection before the headers
    BREAK = "break"  # resets the connection halfway through the answer


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the upstream serves.

    `output_tokens` is the length of every answer, the reasoning included, unless the client's maximum is lower.
    `cached_tokens` of the input count as cached, if there are as many. `pause_seconds` pass between the events of
    a stream, so that there is time to abort it.
    """

    name: str
    output_tokens: int = 24
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    pause_seconds: float = 0.0
    failure: Failure | None = None


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True)


class StreamOptions(_Question):
    """What a client wants to find in its stream."""

    include_usage: bool = False


class TextPart(_Question):
    """A part of a message; one that is no text has none."""

    text: str = ""


class Message(_Question):
    """A message of a chat."""

    content: str | tuple[TextPart, ...] | None = None

    @property
    def text(self) -> str:
        """All its text."""
        match self.content:
            case None:
                return ""
            case str(text):
                return text
            case parts:
                return " ".join(part.text for part in parts)


class _Inference(_Question):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream shall end with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Inference):
    """The body of `POST /v1/chat/completions`."""

    messages: tuple[Message, ...]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def text(self) -> str:
        """All that the model reads."""
        return " ".join(message.text for message in self.messages)

    @property
    def output_tokens_max(self) -> int | None:
        """The client's maximum; None when it sets none."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Inference):
    """The body of `POST /v1/completions`."""

    prompt: str | tuple[str, ...]

    @property
    def text(self) -> str:
        """All that the model reads."""
        return self.prompt if isinstance(self.prompt, str) else " ".join(self.prompt)

    @property
    def output_tokens_max(self) -> int | None:
        """The client's maximum; None when it sets none."""
        return self.max_tokens


class EmbeddingRequest(_Question):
    """The body of `POST /v1/embeddings`."""

    model: str
    input: str | tuple[str, ...]
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts, one vector each."""
        return (self.input,) if isinstance(self.input, str) else self.input


class Api(StrEnum):
    """The two APIs that answer with text; the value names the kind of object that they answer with."""

    CHAT = "chat.completion"
    COMPLETION = "text_completion"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it is written down for one API."""

    api: Api
    id: str
    model: str
    usage: Usage
    finish_reason: str

    @property
    def words(self) -> list[str]:
        """The words of the answer, each with the blank before it. Reasoning is paid, not shown."""
        return words(self.usage.output_tokens - self.usage.reasoning_output_tokens)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a response that go out together, and the output tokens that they bring."""

    data: bytes
    output_tokens: int


def answer_to(request: ChatRequest | CompletionRequest, model: ServedModel, number: int) -> Answer:
    """Make up the answer to a request; `number` tells it from the other answers."""
    api, prefix = (Api.CHAT, "chatcmpl") if isinstance(request, ChatRequest) else (Api.COMPLETION, "cmpl")
    output_tokens = min(model.output_tokens, request.output_tokens_max or model.output_tokens)
    input_tokens = count_tokens(request.text)
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_input_tokens=min(model.cached_tokens, input_tokens),
        reasoning_output_tokens=min(model.reasoning_tokens, output_tokens),
    )
    finish_reason = "stop" if output_tokens == model.output_tokens else "length"
    return Answer(api, f"{prefix}-{number:08}", model.name, usage, finish_reason)


def words(count: int) -> list[str]:
    """Give the first words that every answer begins with, each with the blank before it."""
    return [word if number == 0 else f" {word}" for number, word in enumerate(islice(cycle(SENTENCE), count))]


def count_tokens(text: str) -> int:
    """Count words, which are this upstream's tokens."""
    return len(text.split())


def whole(answer: Answer) -> Json:
    """Write an answer down as one JSON object."""
    return _envelope(answer, answer.api.value, [_full_choice(answer)]) | {"usage": usage_json(answer.usage)}


def pieces(answer: Answer, *, include_usage: bool) -> Iterator[Piece]:
    """Write an answer down as a stream of events.

    Only a client that asks for usage gets it, in a last event without choices; `usage` is null in all the others then.
    """
    usage: Json = {"usage": None} if include_usage else {}
    kind = "chat.completion.chunk" if answer.api is Api.CHAT else answer.api.value

    def chunk(text: str, finish_reason: str | None = None, *, first: bool = False) -> bytes:
        choice = _partial_choice(answer.api, text, finish_reason, first=first)
        return event(_envelope(answer, kind, [choice]) | usage)

    yield Piece(chunk("", first=True), answer.usage.reasoning_output_tokens)
    for word in answer.words:
        yield Piece(chunk(word), 1)
    yield Piece(chunk("", answer.finish_reason), 0)
    if include_usage:
        yield Piece(event(_envelope(answer, kind, []) | {"usage": usage_json(answer.usage)}), 0)
    yield Piece(b"data: [DONE]\n\n", 0)


def event(data: Json) -> bytes:
    """Write one server-sent event."""
    return b"data: " + to_bytes(data) + b"\n\n"


def to_bytes(data: object) -> bytes:
    """Write JSON as compactly as the real ones do."""
    return json.dumps(data, separators=(",", ":")).encode()


def usage_json(usage: Usage) -> Json:
    """Write down usage in OpenAI's words."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens},
    }


def embeddings(request: EmbeddingRequest) -> tuple[Json, Usage]:
    """Answer a request for vectors, and tell what it used."""
    usage = Usage(sum(map(count_tokens, request.texts)), 0)
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, request.encoding_format)}
        for index, text in enumerate(request.texts)
    ]
    tokens = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": tokens}, usage


def model_entry(name: str) -> Json:
    """Write down one entry of the model list."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "demo"}


def model_list(names: Sequence[str]) -> Json:
    """Write down the model list."""
    return {"object": "list", "data": [model_entry(name) for name in names]}


def error(message: str, kind: str, param: str | None = None, code: str | None = None) -> Json:
    """Write down an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def unknown_model(model: str) -> Json:
    """Write down the 404 of `GET /v1/models/{id}`."""
    return error(UNKNOWN_MODEL_MESSAGE.format(model=model), "invalid_request_error", "model", "model_not_found")


def unknown_inference_model(model: str) -> Json:
    """Write down the 404 of an inference that names a model which is not served."""
    message = UNKNOWN_INFERENCE_MODEL_MESSAGE.format(model=model)
    return error(message, "invalid_request_error", code="model_not_found")


def _envelope(answer: Answer, kind: str, choices: list[Json]) -> Json:
    return {"id": answer.id, "object": kind, "created": CREATED, "model": answer.model, "choices": choices}


def _full_choice(answer: Answer) -> Json:
    text = "".join(answer.words)
    shown: Json = {"message": {"role": "assistant", "content": text}} if answer.api is Api.CHAT else {"text": text}
    return {"index": 0, **shown, "logprobs": None, "finish_reason": answer.finish_reason}


def _partial_choice(api: Api, text: str, finish_reason: str | None, *, first: bool) -> Json:
    role = {"role": "assistant"} if first else {}
    content = {} if finish_reason else {"content": text}
    shown: Json = {"delta": {**role, **content}} if api is Api.CHAT else {"text": text}
    return {"index": 0, **shown, "logprobs": None, "finish_reason": finish_reason}


def _vector(text: str, encoding_format: Literal["float", "base64"]) -> list[float] | str:
    numbers = [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:VECTOR_DIMENSIONS]]
    if encoding_format == "float":
        return numbers
    # The SDK asks for base64 unless told otherwise: little-endian 32-bit floats.
    return base64.b64encode(struct.pack(f"<{VECTOR_DIMENSIONS}f", *numbers)).decode()
