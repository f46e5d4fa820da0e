"""An upstream that does what a test tells it, in the test's own process.

By default it answers as asked: the model list, or the API's answer, streamed or not, with usage when the request asks
for it. What is different stands in `plays`, under the name that a request gives in the header PLAY_HEADER, under the
model that its body names, or under its path. A play is a list of steps, so that a test can say to the byte what goes
out, and where the connection waits, hangs or breaks.

    async with ScriptedUpstream() as upstream:
        upstream.plays["gpt-4o"] = as_asked(Usage(10, 500), before=(Cue.GATE,))
        ...                                  # requests come in through Envoy
        await eventually(lambda: len(upstream.requests) == 10)
        upstream.gate.set()
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import assert_never
from urllib.parse import unquote

from aiohttp import web

from extauthz.demo import answers
from extauthz.demo.answers import Answer, Api
from extauthz.demo.upstream import Outcome, Serving, reset
from extauthz.domain.prices import Usage

PLAY_HEADER = "x-play"
MODELS = ("gpt-4o", "gpt-4o-mini", "local-llama")
USAGE = Usage(input_tokens=10, output_tokens=20)

BODY_BYTES_MAX = 64 * 1024 * 1024
PLAY_SECONDS_MAX = 60.0
STOP_SECONDS = 0.1
REQUESTS_MAX = 20_000

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


class Cue(Enum):
    """A step that sends nothing."""

    GATE = "gate"  # wait until the test sets `upstream.gate`
    HANG = "hang"  # wait until the client leaves
    RESET = "reset"  # reset the connection


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that takes so long, as a model does between two words."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Head:
    """The step that sends status and headers. Without a length the body goes out chunked, a chunk for each step."""

    status: int = 200
    content_type: str = JSON
    content_length: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


Step = Head | bytes | Cue | Pause


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived: the path with its query, the headers with lower-case names."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Give the first value of a header, None when it is absent."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def asked(self) -> Mapping[str, object]:
        """The JSON object of the body; empty when it is none."""
        try:
            asked = json.loads(self.body)
        except ValueError:
            return {}
        return asked if isinstance(asked, dict) else {}

    @property
    def model(self) -> str:
        """The model that the body names, "" when it names none."""
        model = self.asked.get("model")
        return model if isinstance(model, str) else ""

    @property
    def include_usage(self) -> bool:
        """Whether the body asks for usage in a stream."""
        match self.asked.get("stream_options"):
            case {"include_usage": True}:
                return True
            case _:
                return False


@dataclass(frozen=True, slots=True)
class Play:
    """What happens to one request: a Head goes before the first bytes, and nothing follows a reset.

    `usage` is that of the whole answer, None when there is nothing to pay.
    """

    steps: tuple[Step, ...]
    usage: Usage | None = None


Behaviour = Callable[[Received], Play]


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a request.

    `usage` is that of the whole answer, however much of it went out; `writes` are the pieces of the body that did,
    in a stream the events.
    """

    request: Received
    usage: Usage | None
    writes: int
    outcome: Outcome


def as_asked(usage: Usage = USAGE, *, before: Sequence[Cue] = (), cut: Cue | None = None) -> Behaviour:
    """Answer an inference as its API does, with this usage.

    `before` comes before the headers; `cut` in the middle of the body, and nothing after it.
    """

    def behave(request: Received) -> Play:
        chat = request.path.partition("?")[0].endswith("/chat/completions")
        answer = Answer(Api.CHAT if chat else Api.COMPLETION, "scripted", request.model, usage, "stop")
        if request.asked.get("stream") is True:
            head = Head(content_type=EVENT_STREAM)
            body = [piece.data for piece in answers.pieces(answer, include_usage=request.include_usage)]
        else:
            data = answers.to_bytes(answers.whole(answer))
            head = Head(content_length=len(data))
            body = [data[: len(data) // 2], data[len(data) // 2 :]]
        ending = body if cut is None else [*body[: len(body) // 2], cut]
        return Play((*before, head, *ending), usage)

    return behave


def chunks(*data: bytes, content_type: str = JSON, status: int = 200, usage: Usage | None = None) -> Behaviour:
    """Answer everything with these bytes, one chunk each."""
    return lambda _: Play((Head(status, content_type), *data), usage)


def fails(status: int = 500) -> Behaviour:
    """Answer everything with an error."""
    return chunks(answers.to_bytes(answers.error("The server had an error.", "server_error")), status=status)


# What a request can name in PLAY_HEADER, or as its model, in any test.
PLAYS: Mapping[str, Behaviour] = MappingProxyType(
    {
        "waits": as_asked(before=(Cue.GATE,)),
        "fails": fails(),
        "resets": as_asked(before=(Cue.RESET,)),
        "hangs": as_asked(before=(Cue.HANG,)),
        "breaks": as_asked(cut=Cue.RESET),
        "stalls": as_asked(cut=Cue.HANG),
    }
)


class ScriptedUpstream(Serving):
    """The upstream on a free loopback port while the `async with` block runs.

    `requests` are those that arrived, `played` what came of them, both in order and the latest REQUESTS_MAX. `plays`
    starts with PLAYS; a test adds its own.
    """

    def __init__(self, models: Sequence[str] = MODELS) -> None:
        self.plays: dict[str, Behaviour] = dict(PLAYS)
        self.gate = asyncio.Event()
        self.requests: deque[Received] = deque(maxlen=REQUESTS_MAX)
        self.played: deque[Played] = deque(maxlen=REQUESTS_MAX)
        self._models = models
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._handle)
        super().__init__(app, stop_seconds=STOP_SECONDS)

    @property
    def served(self) -> tuple[Usage, ...]:
        """The usage of every answer that went out whole."""
        return tuple(
            played.usage for played in self.played if played.outcome is Outcome.FINISHED and played.usage is not None
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = tuple((name.lower(), value) for name, value in request.headers.items())
        received = Received(request.method, request.raw_path, headers, await request.read())
        self.requests.append(received)
        return await self._perform(request, received, self._play(received))

    def _play(self, received: Received) -> Play:
        for name in (received.header(PLAY_HEADER), received.model, received.path):
            if name is not None and name in self.plays:
                return self.plays[name](received)
        if received.method in ("GET", "HEAD"):
            return self._discovery(received.path.partition("?")[0])
        return as_asked()(received)

    def _discovery(self, path: str) -> Play:
        _, models, name = path.partition("/models")
        name = unquote(name.removeprefix("/"))
        if not models:
            return Play((Head(), b"{}"))
        if not name:
            return Play((Head(), answers.to_bytes(answers.model_list(self._models))))
        if name in self._models:
            return Play((Head(), answers.to_bytes(answers.model_entry(name))))
        return Play((Head(404), answers.to_bytes(answers.unknown_model(name))))

    async def _perform(self, request: web.Request, received: Received, play: Play) -> web.StreamResponse:
        """Do the steps one after the other, and note how far it came, however it ends."""
        response = web.StreamResponse()
        writes, outcome = 0, Outcome.ABORTED
        try:
            async with asyncio.timeout(PLAY_SECONDS_MAX):
                for step in play.steps:
                    match step:
                        case Head(status, content_type, content_length, headers):
                            fields = {"content-type": content_type, **dict(headers)}
                            response = web.StreamResponse(status=status, headers=fields)
                            response.content_length = content_length
                            await response.prepare(request)
                        case bytes() if request.method == "HEAD":
                            pass
                        case bytes(data):
                            await response.write(data)
                            writes += 1
                        case Pause(seconds):
                            await asyncio.sleep(seconds)
                        case Cue.GATE:
                            await self.gate.wait()
                        case Cue.HANG:
                            await asyncio.Event().wait()
                        case Cue.RESET:
                            outcome = Outcome.FAILED
                            reset(request)
                            return response
                        case _:
                            assert_never(step)
            # A client may hang up as soon as it has the last byte: it has got everything.
            outcome = Outcome.FINISHED
            await response.write_eof()
        except ConnectionError:
            return response
        finally:
            self.played.append(Played(received, play.usage, writes, outcome))
        return response
