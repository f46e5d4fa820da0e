"""The meter's code without Envoy, in LuaJIT: every answer cut everywhere, which would be too slow through sockets.

That Envoy hands it the same bytes is what tests/integration/test_meter.py shows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.support.lua_meter import OPTIONS, Meter
from tests.support.metered import (
    CHAT,
    CHAT_TRUTH,
    COST_LITELLM,
    DOCUMENTS,
    EVENT_STREAM,
    FINISH,
    STREAMS,
    USAGE,
    USAGE_ONLY,
    USAGE_ONLY_LITELLM,
    Answer,
    delta,
    stream,
)


@pytest.fixture(scope="module")
def meter() -> Meter:
    """Give the meter, compiled once."""
    return Meter()


def edited(*data: str, without: Sequence[str], newline: str = "\n") -> tuple[Answer, bytes]:
    """Give a stream, and what is left of it without some of its events."""
    left = [part for part in data if part not in without]
    return (
        stream("edited", *data, expected={}, newline=newline),
        stream("left", *left, expected={}, newline=newline).body,
    )


@pytest.mark.parametrize("answer", [*DOCUMENTS, *STREAMS], ids=str)
def test_usage_is_read_wherever_the_answer_is_cut(meter: Meter, answer: Answer) -> None:
    """One cut at any place, a cut at every place, and none at all give the same report; the bytes stay the same."""
    expected = (answer.expected, answer.body)

    assert expected == meter.read(answer)
    assert expected == meter.read(answer, range(1, len(answer.body)))
    assert not [cut for cut in range(1, len(answer.body)) if meter.read(answer, [cut]) != expected]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    ("usage_only", "more"),
    [pytest.param(USAGE_ONLY, {}, id="OpenAI"), pytest.param(USAGE_ONLY_LITELLM, COST_LITELLM, id="LiteLLM")],
)
def test_the_usage_event_is_taken_out_wherever_it_is_cut(
    meter: Meter, usage_only: str, more: dict[str, object], newline: str
) -> None:
    """Exactly the event that only reports usage is missing, and it is read all the same."""
    answer, left = edited(*CHAT[:3], usage_only, "[DONE]", without=[usage_only], newline=newline)
    expected = ({**CHAT_TRUTH, **more, "finished": True}, left)

    assert expected == meter.read(answer, edits=True)
    assert expected == meter.read(answer, range(1, len(answer.body)), edits=True)
    assert not [cut for cut in range(1, len(answer.body)) if meter.read(answer, [cut], edits=True) != expected]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(delta("Hello.", usage=USAGE), id="text and usage"),
        pytest.param(FINISH.replace("]}", f'],"usage":{json.dumps(USAGE)}}}'), id="finish_reason and usage"),
        pytest.param('{"choices":[],"usage":null}', id="no usage"),
        pytest.param('{"choices":[],"usage":{}}', id="empty usage"),
        pytest.param('{"choices":[],"prompt_filter_results":[]}', id="Azure's first event"),
        pytest.param('{"usage":{"prompt_tokens":1}}', id="no choices"),
        pytest.param('{"choices":[{"delta":{"role":"assistant"}}],"usage":{"prompt_tokens":1}}', id="a role"),
        pytest.param('{"choices":[{"delta":{"tool_calls":[]}}],"usage":{"prompt_tokens":1}}', id="tool calls"),
        pytest.param('{"choices":[{"delta":{},"logprobs":{}}],"usage":{"prompt_tokens":1}}', id="log probabilities"),
        pytest.param('{"choices":[],"usage":{"prompt_tokens":1}', id="a broken event"),
    ],
)
def test_other_events_stay(meter: Meter, data: str) -> None:
    """An event that could say anything else to the client is not taken out, in one piece or byte by byte."""
    answer = stream("other", delta("a"), data, delta("b"), "[DONE]", expected={})

    assert answer.body == meter.read(answer, edits=True)[1]
    assert answer.body == meter.read(answer, range(1, len(answer.body)), edits=True)[1]


@pytest.mark.parametrize("data", ['{"choices":[]}', '{"choices":[],"usage":null}', '{"choices":[],"usage":{}}'])
def test_usage_of_one_event_does_not_take_out_another(meter: Meter, data: str) -> None:
    """What an event said is forgotten with it."""
    answer = stream("running totals", delta("a", usage=USAGE), data, "[DONE]", expected={})

    assert answer.body == meter.read(answer, edits=True)[1]


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (f"id: 1\ndata: {USAGE_ONLY}\nid: 2\n\n", ""),
        (f": ping\n\ndata: {USAGE_ONLY}\n\n: ping\n\n", ": ping\n\n: ping\n\n"),
        (f"data: {USAGE_ONLY}", ""),
        (f"data: {USAGE_ONLY}\r\n\r", ""),
    ],
    ids=["with other fields", "between comments", "with no end", "with half an end"],
)
def test_the_whole_usage_event_is_taken_out_and_no_more(meter: Meter, event: str, left: str) -> None:
    """An event is all of its lines, and what stands between events is not part of one."""
    first = f"data: {delta('a')}\n\n"
    answer = Answer("edited", (first + event).encode(), {}, EVENT_STREAM)
    expected = (first + left).encode()

    assert expected == meter.read(answer, edits=True)[1]
    assert expected == meter.read(answer, range(1, len(answer.body)), edits=True)[1]


def test_an_event_too_large_to_hold_back_passes(meter: Meter) -> None:
    """What the meter keeps of a stream has a maximum; an event above it goes on in pieces and whole."""
    huge = '{"choices":[],"usage":{"prompt_tokens":1},"x":"' + "x" * 20_000 + '"}'
    answer = stream("huge", delta("a"), huge, USAGE_ONLY, "[DONE]", expected={})
    left = stream("left", delta("a"), huge, "[DONE]", expected={})

    assert left.body == meter.read(answer, range(1000, len(answer.body), 1000), edits=True)[1]


@pytest.mark.parametrize(
    ("data", "finished"),
    [
        (FINISH, True),
        ("[DONE]", True),
        ('{"type":"message_stop"}', True),
        ('{"type":"response.completed"}', True),
        (delta("Hello."), False),
        (delta("[DONE]"), False),
        ('{"choices":[{"finish_reason":""}]}', False),
        ('{"choices":[{"delta":{"finish_reason":"stop"}}]}', False),
        ('{"type":"ping"}', False),
        ('["[DONE]"]', False),
    ],
)
def test_the_end_of_an_answer_is_noticed(meter: Meter, data: str, finished: bool) -> None:  # noqa: FBT001 - a column
    """Each API's own mark of the end counts, before the stream is over; what a model writes does not."""
    report, reader = meter.reader(EVENT_STREAM)
    reader[b"feed"](reader, f"data: {data}\n\n".encode())

    assert finished == report[b"finished"]


def test_complete_events_are_not_held_back(meter: Meter) -> None:
    """Of a stream that is being edited, every event goes on as soon as its last byte is there."""
    events = [f"data: {data}\n\n".encode() for data in CHAT[:3]]
    _, reader = meter.reader(EVENT_STREAM, edits=True)

    assert events == [reader[b"feed"](reader, event) for event in events]


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (b" \n{ }", b' \n{"stream_options":{"include_usage":true} }'),
        (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options" : {"a":[1,"}"]} , "b":1}', b'{"stream_options" : {"include_usage":true} , "b":1}'),
        (b'{"stream_options":"x","b":1}', b'{"stream_options":{"include_usage":true},"b":1}'),
        (b'{"stream_options":12}', b'{"stream_options":{"include_usage":true}}'),
        (
            b'{"stream_options":1,"stream_options":2}',
            b'{"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}',
        ),
        (b'{"stream\\u005foptions":1}', b'{"stream\\u005foptions":{"include_usage":true}}'),
        (
            b'{"messages":[{"stream_options":1,"content":"\\"stream_options\\":"}]}',
            b'{"stream_options":{"include_usage":true},"messages":[{"stream_options":1,"content":"\\"stream_options\\":"}]}',
        ),
        (b"[]", None),
        (b'{"stream":true', None),
    ],
)
def test_stream_options_are_written_at_the_top_level(meter: Meter, body: bytes, changed: bytes | None) -> None:
    """They are replaced however often and however escaped they stand there, added when absent, elsewhere left alone."""
    assert changed == meter.with_member(body)


def test_a_name_in_escapes_alone_is_recognised(meter: Meter) -> None:
    """No way of writing the name gets past the meter to the upstream's parser."""
    name = b"".join(b"\\u%04X" % letter for letter in b"stream_options")

    assert b'{"' + name + b'":' + OPTIONS + b"}" == meter.with_member(b'{"' + name + b'":null}')


@pytest.mark.parametrize(
    ("body", "models"),
    [
        pytest.param(b'{"model":"a","messages":[{"model":"b"}],"n":1}', 1, id="one, and one that is nested"),
        pytest.param(b'{"model":"a","x":"\\"model\\":","model":"b"}', 2, id="two"),
        pytest.param(b'{"model":"a","MoDeL":["b"]}', 2, id="in another case, and a list"),
        pytest.param(b'{"model":"a","mod\\u0065l":null}', 2, id="escaped, and null"),
        pytest.param(b'{"model":"a","fallbacks":["b"]}', 2, id="a way to another"),
        pytest.param(b'{"model":"a","Extra_Body":{"model":"b"}}', 2, id="one that is laid over it"),
        pytest.param(b'{"model":"a","user_config":{},"prompt_id":"b","deployment_id":"c"}', 4, id="more ways"),
        pytest.param(b'{"model":"a","models":["b"]}', 2, id="OpenRouter's way to another"),
        pytest.param(b'{"modelss":"a","amodel":{}}', 0, id="none"),
        pytest.param(b'{"model":"a"', None, id="cut off"),
        pytest.param(b'["model"]', None, id="no object"),
    ],
)
def test_models_of_a_request_are_counted(meter: Meter, body: bytes, models: int | None) -> None:
    """Every way of naming a model at the top level counts, wherever the body is cut."""
    counts = {meter.models(body, (cut,)) for cut in range(1, len(body))}

    assert {models} == counts
