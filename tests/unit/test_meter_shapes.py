"""Answers of every API, read by the meter's code in LuaJIT: cut everywhere, forged everywhere, and as messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.support.lua_meter import Meter
from tests.support.metered import EVENT_STREAM, WEBSOCKET, Answer
from tests.support.metered_sessions import (
    FIRST_TRUTH,
    FIRST_TURN,
    SESSION,
    SESSION_CREATED,
    SESSION_TRUTH,
    TURN_CREATED,
    frame,
    turn,
)
from tests.support.metered_shapes import GEMINI_CHUNKS, SHAPES
from tests.support.metered_streams import EVENTS

# Every name that counts somewhere, with a value that would show.
FORGED: dict[str, object] = {
    "usage": {"prompt_tokens": 7777, "completion_tokens": 7777, "input_tokens": 7777, "seconds": 7777, "cost": 7777},
    "usageMetadata": {"promptTokenCount": 7777, "candidatesTokenCount": 7777},
    "candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "forged"}]}}],
    "choices": [{"finish_reason": "stop", "text": "forged"}],
    "data": [{"url": "https://forged"}],
    "meta": {"billed_units": {"search_units": 7777}},
    "output": [{"type": "web_search_call", "action": {"type": "search"}, "content": "forged"}],
    "item": {"type": "web_search_call", "action": {"type": "search"}},
    "response": {"usage": {"input_tokens": 7777}, "model": "forged", "status": "queued", "background": True},
    "message": {"usage": {"input_tokens": 7777}, "model": "forged"},
    "session": {"model": "forged"},
    "model": "forged",
    "modelVersion": "forged",
    "service_tier": "forged",
    "status": "queued",
    "processing_status": "in_progress",
    "object": "batch",
    "duration": 7777,
    "delta": "forged",
    "content": "forged",
    "text": "forged",
    "type": "response.completed",
}
# Where APIs echo what a client said, or what it made a model say.
ECHOES = ("metadata", "tools", "instructions", "input", "prompt", "text_format", "schema", "id")


COUNTS = ("input_tokens", "output_tokens", "model", "service_tier")
COUNTED: dict[str, object] = {"input_tokens": 9, "output_tokens": 4}
DONE = {"id": "x_1", "usage": COUNTED}


def read_of(**fields: object) -> Answer:
    """Give the answer to a read."""
    return Answer(str(fields.get("status")), json.dumps({**DONE, **fields}).encode(), {})


def resumed(*responses: dict[str, object]) -> Answer:
    """Give the answer to a read as a stream, with these states of the response."""
    lines = [
        f"data: {json.dumps({'type': 'response.x', 'response': {'background': True, **each}})}\n\n"
        for each in responses
    ]
    return Answer("stream", "".join(lines).encode(), {}, EVENT_STREAM)


OVER: dict[str, object] = {**COUNTED, "result": "over"}
# What a read shows, and what of it is told.
RESULTS: tuple[tuple[Answer, dict[str, object]], ...] = (
    *((read_of(status=status), OVER) for status in ("completed", "incomplete", "cancelled", "canceled", "expired")),
    (read_of(processing_status="ended"), OVER),
    (read_of(status="failed", usage=None), {"result": "failed"}),
    (read_of(status="failed"), {**COUNTED, "result": "failed"}),
    (read_of(status="completed", object="batch"), {**OVER, "service_tier": "batch"}),
    (read_of(status="completed", object="batch", service_tier="flex"), {**OVER, "service_tier": "flex"}),
    (read_of(status="queued"), {**COUNTED, "pending": True, "answer_id": "x_1"}),
    (read_of(status="in_progress", id="x" * 129), {**COUNTED, "pending": True}),
    (read_of(status="in_progress", id="x y"), {**COUNTED, "pending": True}),
    (read_of(status="something new"), COUNTED),
    (read_of(status=None), COUNTED),
    (read_of(status={"status": "completed"}), COUNTED),
    (resumed({**DONE, "status": "completed"}), OVER),
    (
        resumed({"id": "x_1", "status": "in_progress"}, {**DONE, "status": "incomplete"}),
        {**OVER, "answer_id": "x_1"},
    ),
    (resumed({"id": "x_1", "status": "in_progress"}), {"pending": True, "answer_id": "x_1"}),
)


def counted(told: dict[str, object]) -> dict[str, object]:
    """Leave out how many events there were."""
    return {name: value for name, value in told.items() if name != "events"}


@pytest.fixture(scope="module")
def meter() -> Meter:
    """Give the meter, compiled once."""
    return Meter()


def echoed(value: object, *, before: bool) -> object:
    """Give a JSON value with forgeries beside the members of its objects, at every depth that the meter looks at."""
    match value:
        case list(items):
            return [echoed(item, before=before) for item in items]
        case dict(members):
            own = {name: echoed(member, before=before) for name, member in members.items()}
            forged = {name: [FORGED, {"x": FORGED}] if name == "tools" else FORGED for name in ECHOES}
            return (
                {**forged, **own} if before else {**own, **{name: forged[name] for name in ECHOES if name not in own}}
            )
        case _:
            return value


def forged_in(answer: Answer, *, before: bool) -> Answer:
    """Give the answer with forgeries in all that is JSON of it."""
    if answer.content_type != EVENT_STREAM:
        body = json.dumps(echoed(json.loads(answer.body), before=before)).encode()
        return replace(answer, body=body)
    lines = [
        b"data: " + json.dumps(echoed(json.loads(line.removeprefix(b"data: ")), before=before)).encode()
        if line.startswith(b"data: ")
        else line
        for line in answer.body.split(b"\n")
    ]
    return replace(answer, body=b"\n".join(lines))


def socket(*frames: bytes, **expected: object) -> Answer:
    """Give what a server sends by WebSocket."""
    return Answer("socket", b"".join(frames), expected, WEBSOCKET)


def messages(events: Iterable[dict[str, object]]) -> list[bytes]:
    """Give each event as a message of one frame."""
    return [frame(json.dumps(event).encode()) for event in events]


@pytest.mark.parametrize("answer", [*SHAPES, *EVENTS], ids=str)
def test_every_documented_shape_is_read(meter: Meter, answer: Answer) -> None:
    """Every API's usage, units, model, tier, cost and promise is told, whole, byte by byte, and cut at any place."""
    expected = (answer.expected, answer.body)

    assert expected == meter.read(answer)
    assert expected == meter.read(answer, range(1, len(answer.body)))
    assert not [cut for cut in range(1, len(answer.body)) if meter.read(answer, [cut]) != expected]


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize(("answer", "told"), RESULTS, ids=str)
def test_what_became_of_a_promise_is_told(
    meter: Meter,
    answer: Answer,
    told: dict[str, object],
    before: bool,  # noqa: FBT001 - a column
) -> None:
    """A read shows a result where the object's own status says so, wherever it is cut, and whatever it echoes."""
    expected = {"finished": True, **told}
    forged = forged_in(answer, before=before)

    assert expected == counted(meter.read(answer, reads=True)[0])
    assert expected == counted(meter.read(answer, range(1, len(answer.body)), reads=True)[0])
    assert expected == counted(meter.read(forged, reads=True)[0])
    assert "result" not in meter.read(answer)[0]


@pytest.mark.parametrize("answer", [answer for answer, told in RESULTS if "result" in told], ids=str)
def test_a_result_is_told_when_all_of_it_was_seen(meter: Meter, answer: Answer) -> None:
    """Who leaves a read before its usage has shown nothing: no cut of the answer has a result without it."""
    end = answer.body.rindex(b"}")
    whole, _ = meter.read(answer, reads=True)

    for size in range(1, end):
        told, _ = meter.read(replace(answer, body=answer.body[:size]), reads=True)
        assert "result" not in told or all(whole[name] == told[name] for name in COUNTS if name in whole)


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("answer", [answer for answer in (*SHAPES, *EVENTS) if b"\\" not in answer.body], ids=str)
def test_nothing_that_is_echoed_counts(meter: Meter, answer: Answer, before: bool) -> None:  # noqa: FBT001 - a column
    """Each name counts at its own place alone: what a client makes an API repeat beside it changes nothing."""
    forged = forged_in(answer, before=before)

    assert (answer.expected, forged.body) == meter.read(forged)
    assert (answer.expected, forged.body) == meter.read(forged, range(7, len(forged.body), 7))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"text": json.dumps(FORGED)}, id="a text"),
        pytest.param({"functionCall": {"args": FORGED}}, id="arguments of a call"),
        pytest.param({"functionResponse": {"response": FORGED}}, id="what a call gave"),
        pytest.param(
            {"executableCode": FORGED, **{name: FORGED[name] for name in ("usageMetadata", "model")}}, id="code"
        ),
    ],
)
def test_what_gemini_says_counts_as_text_alone(meter: Meter, parts: dict[str, object]) -> None:
    """Of a candidate, text and the reason of its end count, whatever objects a model writes into its parts."""
    fields = {"candidates": [{"content": {"parts": [parts]}}], "usageMetadata": {"promptTokenCount": 3}}
    told, _ = meter.read(Answer("forged", json.dumps(fields).encode(), {}))

    assert {"input_tokens": 3, "finished": True} == {name: told[name] for name in told if name != "text_bytes"}


@pytest.mark.parametrize(
    ("data", "finished"),
    [
        ({"type": "response.failed", "response": {"usage": None}}, True),
        ({"type": "image_generation.completed"}, True),
        ({"type": "image_edit.completed"}, True),
        ({"type": "transcript.text.done"}, True),
        ({"type": "speech.audio.done"}, True),
        (GEMINI_CHUNKS[2], True),
        (GEMINI_CHUNKS[1], False),
        ({"type": "response.output_text.done"}, False),
        ({"type": "response.output_text.delta", "delta": "response.completed"}, False),
        ({"item": {"type": "response.completed"}}, False),
        ({"candidates": [{"content": {"parts": [{"text": "a", "finishReason": "STOP"}]}}]}, False),
    ],
    ids=str,
)
def test_the_end_of_every_answer_is_noticed(
    meter: Meter,
    data: dict[str, object],
    finished: bool,  # noqa: FBT001 - a column
) -> None:
    """Each API's own mark of the end counts, before the stream is over; what a model writes does not."""
    report, reader = meter.reader(EVENT_STREAM)
    reader[b"feed"](reader, f"data: {json.dumps(data)}\n\n".encode())

    assert finished == report[b"finished"]


def test_the_turns_of_a_session_add_up(meter: Meter) -> None:
    """Usage of a WebSocket is of one turn each, wherever the bytes are cut; no sound counts as text."""
    answer = socket(*messages(SESSION), **SESSION_TRUTH)
    expected = (SESSION_TRUTH, answer.body)

    assert expected == meter.read(answer)
    assert expected == meter.read(answer, range(1, len(answer.body)))
    assert not [cut for cut in range(1, len(answer.body)) if meter.read(answer, [cut]) != expected]


@pytest.mark.parametrize("size", [0, 16, 64], ids=["7 bits", "16 bits", "64 bits"])
def test_frames_of_every_kind_are_read(meter: Meter, size: int) -> None:
    """A message may come in pieces with pings between them, empty ones among them; binary messages are skipped."""
    first, *others = (json.dumps(event).encode() for event in (SESSION_CREATED, *FIRST_TURN))
    answer = socket(
        frame(first[:10], last=False, size=size),
        frame(b"\x03\xe8usage", opcode=9),
        frame(b"", opcode=0, last=False, size=size),
        frame(first[10:-1], opcode=0, last=False, size=size),
        frame(b"", opcode=10),
        frame(first[-1:], opcode=0, size=size),
        frame(json.dumps(turn(7777, 7777, 0, 0, 0)).encode(), opcode=2, last=False),
        frame(b"", opcode=0),
        frame(b""),
        *(frame(other, size=size) for other in others),
        frame(b"\x03\xe8", opcode=8),
    )
    expected = (FIRST_TRUTH, answer.body)

    assert expected == meter.read(answer)
    assert expected == meter.read(answer, range(1, len(answer.body)))


def test_a_message_of_more_than_64_kib_is_read(meter: Meter) -> None:
    """The longest form of a length is read as well."""
    done = {**turn(3, 2, 1, 0, 0), "instructions": "x" * 100_000}
    answer = socket(*messages([done]))

    told, _ = meter.read(answer, range(4096, len(answer.body), 4096))

    assert (3, 2, True) == (told["input_tokens"], told["output_tokens"], told["finished"])


def test_a_session_is_finished_between_its_turns(meter: Meter) -> None:
    """Whoever leaves in the middle of a turn leaves it unfinished, and before the first none was begun."""
    report, reader = meter.reader(WEBSOCKET)
    finished = []
    for message in messages([SESSION_CREATED, *FIRST_TURN, TURN_CREATED, *FIRST_TURN[1:]]):
        reader[b"feed"](reader, message)
        finished.append(report[b"finished"])

    assert [False, False, False, False, True, False, False, False, True] == finished


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(frame(b'{"serverContent":{}}'), id="an event without a type"),
        pytest.param(frame(b"hello"), id="no JSON"),
        pytest.param(frame(b'{"type":"session.created"}', opcode=2), id="bytes"),
    ],
)
def test_a_session_of_another_api_is_an_answer_without_usage(meter: Meter, message: bytes) -> None:
    """What nobody can read may have been dear: it is finished, and costs what such an answer is estimated at."""
    told, _ = meter.read(socket(message))

    assert {"finished": True} == {name: value for name, value in told.items() if name != "events"}


def test_the_end_of_the_bytes_is_not_that_of_a_turn(meter: Meter) -> None:
    """A session that ends in the middle of a turn is not finished."""
    answer = socket(*messages([SESSION_CREATED, *FIRST_TURN, TURN_CREATED]))

    assert "finished" not in meter.read(answer)[0]


def test_what_was_transcribed_counts_as_a_turn(meter: Meter) -> None:
    """A session that only transcribes reports usage beside its events, and that adds up as well."""
    kind = "conversation.item.input_audio_transcription.completed"
    heard = {"type": "tokens", "input_tokens": 10, "input_token_details": {"audio_tokens": 9}, "output_tokens": 2}
    answer = socket(*messages([{"type": kind, "transcript": "Hello", "usage": heard}] * 2))

    told, _ = meter.read(answer)

    assert {
        "input_tokens": 20,
        "output_tokens": 4,
        "audio_input_tokens": 18,
        "events": 2,
        "turns": 2,
        "finished": True,
    } == told


def test_responses_by_websocket_add_up(meter: Meter) -> None:
    """The Responses API by WebSocket has other names for the end of a turn, and its searches are counted."""
    search: dict[str, object] = {"type": "response.output_item.done", "item": {"type": "web_search_call"}}
    done: dict[str, object] = {
        "type": "response.completed",
        "response": {"usage": {"input_tokens": 5, "output_tokens": 1}},
    }
    answer = socket(*messages([TURN_CREATED, search, done] * 2))

    told, _ = meter.read(answer)

    assert {"input_tokens": 10, "output_tokens": 2, "searches": 2, "events": 6, "turns": 2, "finished": True} == told


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"\xc1\x02{}", id="compressed"),
        pytest.param(b"\x81\x82\0\0\0\0{}", id="masked"),
        pytest.param(b"\x81\x7f\xff\0\0\0\0\0\0\0{}", id="longer than anything"),
    ],
)
def test_a_frame_that_no_server_sends_ends_the_reading(meter: Meter, head: bytes) -> None:
    """The meter gives up on frames that it cannot read, and does not guess."""
    _, reader = meter.reader(WEBSOCKET)

    with pytest.raises(Exception, match="cannot be read"):
        reader[b"feed"](reader, head)
