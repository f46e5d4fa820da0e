"""The meter in a real Envoy: what it reports at the end of a stream and meanwhile, and what it does to the bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import accumulate

import pytest
import pytest_asyncio
import yaml

from extauthz.envoy.bootstrap import Document, to_yaml
from extauthz.usage import Field
from tests.support.envoy import ENVOY_VERSIONS, EnvoyProcess, options_for
from tests.support.metered import (
    CHAT,
    CHAT_TRUTH,
    CHOICES,
    COST_LITELLM,
    DOCUMENTS,
    EVENT_STREAM,
    FINISH,
    FORGED,
    STREAMS,
    TRUTH,
    USAGE,
    USAGE_ONLY,
    USAGE_ONLY_LITELLM,
    Answer,
    delta,
)
from tests.support.processes import eventually
from tests.support.scene import Scene, exchange_of, set_scene
from tests.support.stage import Ending, Exchange

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

OPTIONS = '{"include_usage":true}'
INJECT: dict[str, Field] = {"extauthz.inject": True, "extauthz.stream_options": OPTIONS}
STREAM_REQUEST = b'{"model":"m","stream":true}'
EVENTS = tuple(f"data: {data}\n\n".encode() for data in CHAT)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Give a stage with an Envoy whose streams log a sign of life ten times a second."""
    async with set_scene(request.param) as scene:
        yield scene


@pytest.mark.parametrize("answer", [*DOCUMENTS, *STREAMS], ids=str)
async def test_usage_arrives_with_the_access_log_and_the_bytes_unchanged(scene: Scene, answer: Answer) -> None:
    """Usage is read wherever it stands, never from what a client made the API echo, and no byte is changed."""
    performance = await scene.play(exchange_of(answer))

    assert answer.body == performance.received
    assert answer.expected == await performance.usage()


@pytest.mark.parametrize("answer", [DOCUMENTS[2], STREAMS[0]], ids=str)
async def test_usage_is_read_when_the_answer_is_cut_anywhere(scene: Scene, answer: Answer) -> None:
    """Two chunks, cut at each byte in turn."""
    performances = await scene.play_all(exchange_of(answer, cut) for cut in range(1, len(answer.body)))
    reports = [await performance.usage() for performance in performances]

    assert [answer.expected] * (len(answer.body) - 1) == reports
    assert {bytes(performance.received) for performance in performances} == {answer.body}


@pytest.mark.parametrize("answer", [DOCUMENTS[2], STREAMS[1]], ids=str)
async def test_usage_is_read_from_chunks_of_one_byte(scene: Scene, answer: Answer) -> None:
    """Every byte comes on its own."""
    performance = await scene.play(exchange_of(answer, *range(1, len(answer.body))))

    assert answer.body == performance.received
    assert answer.expected == await performance.usage()


async def test_a_megabyte_of_embeddings_is_metered(scene: Scene) -> None:
    """An answer far larger than the buffer of a connection's reads passes in its chunks, and its usage counts."""
    data = [{"object": "embedding", "index": index, "embedding": [0.0123456789] * 3072} for index in range(25)]
    usage = {"prompt_tokens": 41, "total_tokens": 41}
    body = json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()

    performance = await scene.play(Exchange((body,), length=True))

    assert len(body) > 1_000_000
    assert body == performance.received
    assert {"input_tokens": 41, "model": "m", "finished": True} == await performance.usage()


async def test_an_answer_without_a_reservation_is_left_alone(scene: Scene) -> None:
    """Nothing is reported of a request for which nothing is held."""
    performance = await scene.play(replace(exchange_of(DOCUMENTS[0]), reserved=False))

    assert {} == await performance.usage()


async def test_a_compressed_answer_is_not_scanned(scene: Scene) -> None:
    """Compressed bytes pass, and the report says why it is empty."""
    exchange = replace(exchange_of(DOCUMENTS[0]), headers=(("content-encoding", "gzip"),))

    performance = await scene.play(exchange)

    assert DOCUMENTS[0].body == performance.received
    assert {"error": "the upstream compressed its answer"} == await performance.usage()


@pytest.mark.parametrize(
    ("request_body", "sent"),
    [
        pytest.param(STREAM_REQUEST, {"model": "m", "stream": True}, id="absent"),
        pytest.param(b'{"model":"m","stream_options":null}', {"model": "m"}, id="null"),
        pytest.param(b'{"stream_options":{"include_usage":false,"x":1},"model":"m"}', {"model": "m"}, id="refused"),
        pytest.param(
            b'{"messages":[{"stream_options":1}],"model":"m"}',
            {"messages": [{"stream_options": 1}], "model": "m"},
            id="echo",
        ),
    ],
)
async def test_stream_options_are_written_into_the_request(
    scene: Scene, request_body: bytes, sent: dict[str, object]
) -> None:
    """The upstream is asked for usage, whatever the client said, under a content-length that fits."""
    performance = await scene.play(Exchange(EVENTS[:1], EVENT_STREAM, request=request_body, metadata=INJECT))

    assert {**sent, "stream_options": {"include_usage": True}} == json.loads(performance.upstream_body)
    assert str(len(performance.upstream_body)) == performance.upstream_headers["content-length"]


async def test_a_large_request_gets_its_stream_options(scene: Scene) -> None:
    """A body that only just fits the Check's view of it becomes larger, and still passes."""
    body = b'{"model":"m","messages":["%s"]}' % (b"x" * (scene.envoy.options.max_request_bytes - 29))

    performance = await scene.play(Exchange(EVENTS[:1], EVENT_STREAM, request=body, metadata=INJECT))

    assert len(body) == scene.envoy.options.max_request_bytes
    assert b'{"stream_options":' + OPTIONS.encode() + b"," + body[1:] == performance.upstream_body


@pytest.mark.parametrize("inject", ["", "true", False, None, 0, 1], ids=repr)
async def test_only_a_true_injects(scene: Scene, inject: Field) -> None:
    """Anything but the boolean leaves request and answer as they are; an empty string would be true in Lua."""
    metadata = {**INJECT, "extauthz.inject": inject}

    performance = await scene.play(Exchange(EVENTS, EVENT_STREAM, request=STREAM_REQUEST, metadata=metadata))

    assert STREAM_REQUEST == performance.upstream_body
    assert b"".join(EVENTS) == performance.received


@pytest.mark.parametrize(
    ("usage_only", "more"),
    [pytest.param(USAGE_ONLY, {}, id="OpenAI"), pytest.param(USAGE_ONLY_LITELLM, COST_LITELLM, id="LiteLLM")],
)
async def test_the_usage_event_is_taken_out_when_it_was_asked_for_by_us(
    scene: Scene, usage_only: str, more: dict[str, object]
) -> None:
    """Two chunks, cut at each byte in turn: the client gets exactly the other events, and the usage counts."""
    events = (*EVENTS[:3], f"data: {usage_only}\n\n".encode(), EVENTS[4])
    body, left = b"".join(events), b"".join((*EVENTS[:3], EVENTS[4]))

    performances = await scene.play_all(
        Exchange(
            (body[:cut], body[cut:]),
            EVENT_STREAM,
            request=STREAM_REQUEST,
            metadata=INJECT,
            awaited=(_complete(events, cut), len(left)),
        )
        for cut in range(1, len(body))
    )
    reports = [await performance.usage() for performance in performances]

    assert {left} == {bytes(performance.received) for performance in performances}
    assert [{**CHAT_TRUTH, **more, "finished": True, "injected": True}] * (len(body) - 1) == reports


def _complete(events: tuple[bytes, ...], cut: int) -> int:
    """Count the bytes of the events that are complete before the cut, but for the fourth, which is taken out."""
    ends = zip(accumulate(map(len, events)), events, strict=True)
    return sum(len(event) for index, (end, event) in enumerate(ends) if end <= cut and index != 3)


async def test_a_client_that_asks_for_usage_itself_gets_its_event(scene: Scene) -> None:
    """Without injection the event that only reports usage passes."""
    performance = await scene.play(Exchange(EVENTS, EVENT_STREAM, request=STREAM_REQUEST))

    assert b"".join(EVENTS) == performance.received


async def test_a_stream_with_a_length_gets_shorter(scene: Scene) -> None:
    """When an event is taken out, the upstream's content-length no longer holds and is gone."""
    exchange = Exchange(
        (b"".join(EVENTS),), EVENT_STREAM, length=True, request=STREAM_REQUEST, metadata=INJECT, awaited=(0,)
    )

    performance = await scene.play(exchange)

    assert "content-length" not in performance.headers
    assert b"".join((*EVENTS[:3], EVENTS[4])) == performance.received


async def test_half_an_event_at_the_end_is_not_lost(scene: Scene) -> None:
    """What was held back goes on when the stream ends without the empty line."""
    pieces = (*EVENTS[:2], EVENTS[2].rstrip())

    performance = await scene.play(
        Exchange(pieces, EVENT_STREAM, request=STREAM_REQUEST, metadata=INJECT, awaited=(0, 0, 0))
    )

    assert b"".join(pieces) == performance.received


async def test_a_fault_of_the_meter_costs_the_client_nothing(scene: Scene) -> None:
    """When the meter fails in the middle of an event that it holds back, every byte goes on, and the report says so."""

    def break_meter(document: Document) -> Document:
        text = to_yaml(document)
        broken = text.replace("function Report:commit()", "function Report:commit() error('a fault')")
        assert text != broken
        whole: Document = yaml.safe_load(broken)
        return whole

    body = b"".join(EVENTS)
    cut = len(b"".join(EVENTS[:3])) + 20
    exchange = Exchange(
        (body[:cut], body[cut:]),
        EVENT_STREAM,
        request=STREAM_REQUEST,
        metadata=INJECT,
        awaited=(cut - 20, len(body)),
    )
    options = options_for(scene.stage.upstream_port, scene.stage.extauthz_port)
    async with EnvoyProcess(options, scene.envoy.version, edit=break_meter) as envoy:
        performance = await scene.stage.perform(envoy.url, exchange)
        usage = await performance.usage()

    assert body == performance.received
    assert "a fault" in str(usage["error"])


async def test_an_aborted_stream_has_its_progress(scene: Scene) -> None:
    """A client that leaves in the middle leaves the events and the text that it was sent, and no finish."""
    exchange = Exchange(EVENTS[:2], EVENT_STREAM, ending=Ending.HANG, leave_after=len(EVENTS[0] + EVENTS[1]))

    performance = await scene.play(exchange)

    assert {"events": 2, "text_bytes": 6} == await performance.usage()


async def test_a_stream_broken_off_by_the_upstream_has_its_progress(scene: Scene) -> None:
    """An upstream that breaks off in the middle leaves what it sent, and no finish."""
    performance = await scene.play(Exchange(EVENTS[:2], EVENT_STREAM, ending=Ending.BREAK))

    assert {"events": 2, "text_bytes": 6} == await performance.usage()


async def test_usage_counts_although_the_answer_breaks_off_behind_it(scene: Scene) -> None:
    """A usage object that is complete is the upstream's word, even when the rest of the body never comes."""
    body = json.dumps({"usage": USAGE, "choices": CHOICES, "metadata": FORGED}).encode()
    cut = body.index(b'"choices"')

    performance = await scene.play(Exchange((body[:cut],), ending=Ending.BREAK))

    assert TRUTH == await performance.usage()


async def test_the_finish_is_noticed_by_a_client_that_hangs_up_on_it(scene: Scene) -> None:
    """A client that reads up to finish_reason and leaves has had the whole answer."""
    sent = b"".join(EVENTS[:3])
    exchange = Exchange((sent,), EVENT_STREAM, ending=Ending.HANG, leave_after=len(sent))

    performance = await scene.play(exchange)

    assert {"events": 3, "text_bytes": 6, "finished": True} == await performance.usage()


async def test_progress_stands_in_the_entries_of_a_living_stream(scene: Scene) -> None:
    """While a stream lives, its periodic entries say how far it has come."""
    sent = b"".join(EVENTS[:2])
    exchange = Exchange((sent,), EVENT_STREAM, ending=Ending.HANG)

    playing = asyncio.create_task(scene.play(exchange))
    number = len(scene.stage.performances)
    performance = await eventually(lambda: next(iter(scene.stage.performances[number:]), None))
    assert performance is not None
    await eventually(lambda: {"events": 2, "text_bytes": 6} in performance.progress, what="a periodic entry")
    playing.cancel()

    assert {"events": 2, "text_bytes": 6} == await performance.usage()


async def test_text_counts_before_its_event_is_complete(scene: Scene) -> None:
    """A long piece of text that breaks off in the middle of its event is counted as far as it came."""
    event = f"data: {delta('x' * 1000)}\n\n".encode()
    half = event.index(b"xx") + 500

    performance = await scene.play(Exchange((event[:half],), EVENT_STREAM, ending=Ending.BREAK))

    assert {"text_bytes": 500} == await performance.usage()


async def test_the_finish_of_an_answer_stands_in_its_choice(scene: Scene) -> None:
    """The event with the finish_reason is the end; a text that says the same is not."""
    events = (f"data: {delta(FINISH)}\n\n".encode(),)

    performance = await scene.play(Exchange(events, EVENT_STREAM, ending=Ending.BREAK))

    assert "finished" not in await performance.usage()
