"""An upstream that answers every documented call as documented, and talks where a client wants to talk."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator

from aiohttp import WSMsgType, web

from extauthz.domain.endpoints import Api
from tests.support.apis import anthropic_messages as anthropic
from tests.support.apis import gemini_content as gemini
from tests.support.apis import openai_text as text
from tests.support.apis.openai_media import realtime_turn
from tests.support.apis.prices import PRICES
from tests.support.apis.sample import Sample
from tests.support.apis.samples import SAMPLES, TURNS
from tests.support.apis.used import Used
from tests.support.apis.wire import Wire
from tests.support.upstream import PLAY_HEADER, Head, Play, Received, ScriptedUpstream

MODELS = tuple(PRICES)
# What the fields of a form say that decide what is answered.
FORM_FIELD = re.compile(rb'name="(model|stream)"\r\n\r\n([^\r]*)\r\n')


class ApisUpstream(ScriptedUpstream):
    """A scripted upstream whose answers are those of the samples, where no play says otherwise.

    `called` are the requests that named a play, by it, `arrivals` tell of them, `over` are the plays that are over, and
    `turns` those of each conversation that were answered.
    """

    def __init__(self, models: object = MODELS) -> None:
        super().__init__(MODELS)
        self.called: dict[str, Received] = {}
        self.arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.over: set[str] = set()
        self.turns: defaultdict[str, list[Used]] = defaultdict(list)

    def _play(self, received: Received) -> Play:
        if any(name in self.plays for name in (received.header(PLAY_HEADER), received.model)):
            return super()._play(received)
        listed = model_list(received)
        sample = documented(received)
        if listed is None and sample is None:
            return super()._play(received)
        wire = listed if sample is None else sample.answer(received)
        assert wire is not None
        return as_play(wire)

    async def _perform(self, request: web.Request, received: Received, play: Play) -> web.StreamResponse:
        name = received.header(PLAY_HEADER) or ""
        self.called[name] = received
        self.arrivals[name].set()
        try:
            if request.headers.get("upgrade", "").lower() == "websocket":
                return await self._converse(request, name)
            return await super()._perform(request, received, play)
        finally:
            self.over.add(name)

    async def _converse(self, request: web.Request, name: str) -> web.StreamResponse:
        """Greet, and answer each `response.create` with the next turn."""
        socket, turns = web.WebSocketResponse(), iter(TURNS)
        await socket.prepare(request)
        await socket.send_json({"type": "session.created", "session": {"id": "sess_1", "model": "omni"}})
        async for message in socket:
            if message.type is WSMsgType.TEXT and message.json()["type"] == "response.create":
                turn = next(turns)
                for event in realtime_turn(turn):
                    await socket.send_json(event)
                self.turns[name].append(turn)
        return socket


def as_play(wire: Wire) -> Play:
    """Send an answer, a piece in a chunk."""
    head = Head(wire.status, wire.content_type, None if wire.streamed else len(wire.body))
    return Play((head, *(piece.data for piece in wire.pieces)))


def model_list(request: Received) -> Wire | None:
    """List all models in the shape of the API that asks for them; None when none does."""
    match request.method, api_of(request), plain(request.path):
        case "GET", Api.GEMINI, "/v1/models":
            return gemini.model_list(MODELS)
        case "GET", Api.ANTHROPIC, "/v1/models":
            return anthropic.model_list(MODELS)
        case "GET", _, "/v1/models":
            return text.model_list(list(MODELS))
        case _:
            return None


def api_of(request: Received) -> Api:
    """Tell whose client asks."""
    if request.header("anthropic-version") is not None:
        return Api.ANTHROPIC
    return Api.GEMINI if request.header("x-goog-api-key") is not None else Api.OPENAI


def plain(path: str) -> str:
    """Leave out the query, and what tells Google's two versions apart."""
    return path.partition("?")[0].replace("/v1beta/", "/v1/")


def documented(request: Received) -> Sample | None:
    """Find the sample of a request: that of its path, and among these the one that is most like it."""
    path = plain(request.path)
    called = [
        sample for sample in SAMPLES if (sample.asking.method, plain(sample.asking.path)) == (request.method, path)
    ]
    asked = fields_of(request)
    streams = asked.get("stream") in (True, "true") or asked.get("stream_format") == "sse" or ":stream" in path
    wanted = (streams, asked.get("model"), asked.get("background") is True)

    def likeness(sample: Sample) -> Iterator[bool]:
        background = b'"background": true' in sample.asking.body
        named = sample.model if asked.get("model") else None
        yield from (mine == theirs for mine, theirs in zip(wanted, (sample.streamed, named, background), strict=True))

    return max(called, key=lambda sample: tuple(likeness(sample)), default=None)


def fields_of(request: Received) -> dict[str, object]:
    """Read the fields of a body that decide what is answered, be it JSON or a form."""
    form = {name.decode(): value.decode() for name, value in FORM_FIELD.findall(request.body)}
    return {**form, **request.asked}
