"""A small OpenAI-compatible upstream: what stands behind Envoy in the demo, and shows that the books are right.

It serves the model list, chat completions, completions and embeddings, plain and streamed, and plays failures for the
models that are set to fail. It keeps books of its own: `GET /served` lists what every request really got, so that what
extauthz booked can be compared with it. Run it alone with `python -m extauthz.demo.upstream --port 8000`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from http import HTTPStatus
from itertools import count
from types import TracebackType
from typing import Self, TypeVar

import click
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from extauthz.demo import answers
from extauthz.demo.answers import ChatRequest, CompletionRequest, EmbeddingRequest, Failure, Json, Piece, ServedModel
from extauthz.domain.prices import Usage

LOOPBACK = "127.0.0.1"
REQUEST_BYTES_MAX = 32 * 1024 * 1024
REQUEST_SECONDS_MAX = 120.0
STOP_SECONDS = 1.0
SERVED_MAX = 10_000

DEMO_MODELS = (
    ServedModel("gpt-4o", output_tokens=48, reasoning_tokens=8, cached_tokens=4, pause_seconds=0.01),
    ServedModel("slow-novelist", output_tokens=400, pause_seconds=0.25),
    ServedModel("fails-500", failure=Failure.ERROR),
    ServedModel("resets", failure=Failure.RESET),
    ServedModel("local-llama", pause_seconds=0.01),
)

Q = TypeVar("Q", bound=BaseModel)


class Outcome(StrEnum):
    """How an answer ended."""

    FINISHED = "finished"
    ABORTED = "aborted"  # the client left
    FAILED = "failed"  # the upstream's own failure


@dataclass(frozen=True, slots=True)
class Served:
    """What one inference request got.

    `usage` counts the output tokens that went out, all of them when it finished; a request that failed before its
    first byte used nothing. `events` are the events that went out, 0 for an answer that was not streamed.
    """

    model: str
    usage: Usage
    events: int
    outcome: Outcome


class Books:
    """The latest SERVED_MAX requests, the oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Served] = deque(maxlen=SERVED_MAX)
        self._numbers = count(1)

    def number(self) -> int:
        """Give the next answer's number."""
        return next(self._numbers)

    def enter(self, served: Served) -> None:
        """Write down what a request got."""
        self._entries.append(served)

    @property
    def served(self) -> tuple[Served, ...]:
        """All that is written down."""
        return tuple(self._entries)


class Serving:
    """An application on a port of its own while the `async with` block runs; port 0 takes a free one.

    A client that leaves cancels the handler: that is how an abort between two events is noticed at once.
    """

    def __init__(
        self, app: web.Application, host: str = LOOPBACK, port: int = 0, *, stop_seconds: float = STOP_SECONDS
    ) -> None:
        self._host = host
        self._port = port
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=stop_seconds)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._runner.addresses[0][1]
        return port


class Upstream(Serving):
    """The upstream on a port of its own while the `async with` block runs; port 0 takes a free one."""

    def __init__(self, models: Sequence[ServedModel] = DEMO_MODELS, host: str = LOOPBACK, port: int = 0) -> None:
        self.books = Books()
        super().__init__(application(models, self.books), host, port)


def application(models: Sequence[ServedModel], books: Books) -> web.Application:
    """Build the web application: every route with and without `/v1`."""
    handlers = _Handlers(models, books)
    app = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[_deadline])
    app.router.add_get("/served", handlers.served)
    for prefix in ("", "/v1"):
        app.router.add_get(f"{prefix}/models", handlers.model_list)
        app.router.add_get(f"{prefix}/models/{{model:.+}}", handlers.model_entry)
        app.router.add_post(f"{prefix}/chat/completions", handlers.chat_completions)
        app.router.add_post(f"{prefix}/completions", handlers.completions)
        app.router.add_post(f"{prefix}/embeddings", handlers.embeddings)
    return app


def reset(request: web.BaseRequest) -> None:
    """Drop the connection of a request with a TCP reset instead of an orderly end."""
    if request.transport is None:
        return
    # Lingering for 0 seconds is what makes the kernel send RST when the socket closes.
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


@dataclass(frozen=True, slots=True)
class _Response:
    """A response to an inference: its pieces, and what they use of the input."""

    model: ServedModel
    usage: Usage
    pieces: tuple[Piece, ...]
    streamed: bool

    def used(self, sent: int) -> Usage:
        """Tell what was used when the first `sent` pieces went out."""
        if sent == 0:
            return Usage(0, 0)
        output_tokens = sum(piece.output_tokens for piece in self.pieces[:sent])
        return Usage(
            self.usage.input_tokens,
            output_tokens,
            self.usage.cache_read_input_tokens,
            reasoning_output_tokens=min(output_tokens, self.usage.reasoning_output_tokens),
        )


class _Handlers:
    def __init__(self, models: Sequence[ServedModel], books: Books) -> None:
        self._models = {model.name: model for model in models}
        self._books = books

    async def served(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(served) for served in self._books.served])

    async def model_list(self, _: web.Request) -> web.Response:
        return web.json_response(answers.model_list(list(self._models)))

    async def model_entry(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name not in self._models:
            return web.json_response(answers.unknown_model(name), status=HTTPStatus.NOT_FOUND)
        return web.json_response(answers.model_entry(name))

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await _parsed(request, ChatRequest))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await _parsed(request, CompletionRequest))

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        question = await _parsed(request, EmbeddingRequest)
        model = self._model(question.model)
        body, usage = answers.embeddings(question)
        return await self._respond(request, _unstreamed(model, usage, body))

    async def _answer(self, request: web.Request, question: ChatRequest | CompletionRequest) -> web.StreamResponse:
        model = self._model(question.model)
        answer = answers.answer_to(question, model, self._books.number())
        if not question.stream:
            return await self._respond(request, _unstreamed(model, answer.usage, answers.whole(answer)))
        pieces = tuple(answers.pieces(answer, include_usage=question.include_usage))
        return await self._respond(request, _Response(model, answer.usage, pieces, streamed=True))

    def _model(self, name: str) -> ServedModel:
        model = self._models.get(name)
        if model is None:
            raise _refusal(web.HTTPNotFound, answers.unknown_inference_model(name))
        return model

    async def _respond(self, request: web.Request, response: _Response) -> web.StreamResponse:
        match response.model.failure:
            case Failure.ERROR:
                self._enter(response, 0, Outcome.FAILED)
                body = answers.error("The server had an error while processing your request.", "server_error")
                return web.json_response(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)
            case Failure.RESET:
                self._enter(response, 0, Outcome.FAILED)
                reset(request)
                return web.Response()
            case _:
                return await self._send(request, response)

    async def _send(self, request: web.Request, response: _Response) -> web.StreamResponse:
        """Send the pieces one by one, and write down how far it came, however it ends."""
        breaks_after = len(response.pieces) // 2 if response.model.failure is Failure.BREAK else None
        pause_seconds = response.model.pause_seconds if response.streamed else 0
        stream = _headers(response)
        sent, outcome = 0, Outcome.ABORTED
        try:
            await stream.prepare(request)
            for piece in response.pieces:
                if sent == breaks_after:
                    outcome = Outcome.FAILED
                    reset(request)
                    return stream
                if sent:
                    await asyncio.sleep(pause_seconds)
                await stream.write(piece.data)
                sent += 1
            # A client may hang up as soon as it has the last piece: it has got everything.
            outcome = Outcome.FINISHED
            await stream.write_eof()
        except ConnectionError:
            return stream
        finally:
            self._enter(response, sent, outcome)
        return stream

    def _enter(self, response: _Response, sent: int, outcome: Outcome) -> None:
        events = sent if response.streamed else 0
        self._books.enter(Served(response.model.name, response.used(sent), events, outcome))


@web.middleware
async def _deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Drop a client that does not read on."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            return await handler(request)
    except TimeoutError:
        reset(request)
        return web.Response()


async def _parsed(request: web.Request, kind: type[Q]) -> Q:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as invalid:
        place = ".".join(str(step) for step in invalid.errors()[0]["loc"])
        body = answers.error(f"Invalid request body at '{place}'.", "invalid_request_error", place or None)
        raise _refusal(web.HTTPBadRequest, body) from None


def _refusal(kind: type[web.HTTPClientError], body: Json) -> web.HTTPException:
    return kind(text=answers.to_bytes(body).decode(), content_type="application/json")


def _unstreamed(model: ServedModel, usage: Usage, body: Json) -> _Response:
    """Make a response of two pieces, so that it can break off between them."""
    data = answers.to_bytes(body)
    middle = len(data) // 2
    pieces = (Piece(data[:middle], 0), Piece(data[middle:], usage.output_tokens))
    return _Response(model, usage, pieces, streamed=False)


def _headers(response: _Response) -> web.StreamResponse:
    if response.streamed:
        return web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    stream = web.StreamResponse(headers={"content-type": "application/json"})
    stream.content_length = sum(len(piece.data) for piece in response.pieces)
    return stream


async def _serve(host: str, ports: Sequence[int]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as running:
        for port in ports:
            upstream = await running.enter_async_context(Upstream(host=host, port=port))
            click.echo(f"upstream listens on http://{host}:{upstream.port}/v1")
        await stop.wait()


@click.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="Another address, such as 0.0.0.0 inside a pod.")
@click.option(
    "--port",
    "ports",
    type=click.IntRange(0, 65535),
    default=(8000,),
    show_default=True,
    multiple=True,
    help="0 takes a free port. Several ports have books of their own each.",
)
def main(host: str, ports: tuple[int, ...]) -> None:
    """Serve the demo's models, on loopback unless told otherwise, until SIGTERM or Ctrl-C."""
    asyncio.run(_serve(host, ports))


if __name__ == "__main__":
    main()
