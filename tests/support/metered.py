"""Answers of upstreams, and what the meter must report of each: honest ones, and those that a client has a hand in."""

from __future__ import annotations

import json
from dataclasses import dataclass

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
WEBSOCKET = "websocket"  # it has no type, but a protocol

USAGE = {
    "prompt_tokens": 41,
    "completion_tokens": 59,
    "total_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 11},
}
TRUTH: dict[str, object] = {
    "input_tokens": 41,
    "output_tokens": 59,
    "cache_read_input_tokens": 7,
    "reasoning_output_tokens": 11,
}
FORGED = {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}}
FORGED_TEXT = '"}}]},"usage":{"prompt_tokens":0,"completion_tokens":0},"x":[{"y":"\\'
CHOICES = [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}]


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and the fields that stand in the metadata once it is over."""

    name: str
    body: bytes
    expected: dict[str, object]
    content_type: str = JSON

    def __str__(self) -> str:
        return self.name


def document(name: str, fields: dict[str, object], *, text_bytes: int = 6, indent: int | None = None) -> Answer:
    """Give a JSON answer that tells the truth in its top-level usage."""
    expected = {**TRUTH, "text_bytes": text_bytes, "finished": True}
    return Answer(name, json.dumps(fields, indent=indent).encode(), expected)


def text_answer(name: str, text: str, *, ascii_only: bool = False) -> Answer:
    """Give a JSON answer with this text as its content, and with it as text and nothing else in the report."""
    choices = [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]
    body = json.dumps({"choices": choices, "usage": USAGE}, ensure_ascii=ascii_only).encode()
    return Answer(name, body, {**TRUTH, "text_bytes": len(text.encode()), "finished": True})


def stream(
    name: str, *data: str, expected: dict[str, object], newline: str = "\n", before_event: str = "", last: str = ""
) -> Answer:
    """Give an event stream with one event for each data."""
    lines = [f"{before_event}data: {part}{newline}{newline}" for part in data]
    body = "".join(lines).removesuffix(newline + newline) + (last or newline + newline)
    return Answer(name, body.encode(), {**expected, "finished": True}, EVENT_STREAM)


def delta(content: str, **more: object) -> str:
    """Write the data of an event that carries a piece of text."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}], **more})


FINISH = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE_ONLY = json.dumps({"choices": [], "usage": USAGE})
# LiteLLM 1.108 does not leave the choices empty.
USAGE_ONLY_LITELLM = json.dumps({"choices": [{"index": 0, "delta": {}}], "usage": {**USAGE, "cost": 0.001}})
COST_LITELLM: dict[str, object] = {"upstream_cost": "0.001"}
CHAT = (delta("Hel", usage=None), delta("lo."), FINISH, USAGE_ONLY, "[DONE]")
CHAT_TRUTH: dict[str, object] = {**TRUTH, "events": 4, "text_bytes": 6}

DOCUMENTS = (
    document("usage first", {"usage": USAGE, "id": "x", "choices": CHOICES}),
    document("usage in the middle", {"id": "x", "usage": USAGE, "choices": CHOICES, "system_fingerprint": None}),
    document("usage last", {"id": "x", "choices": CHOICES, "usage": USAGE}),
    document("indented", {"id": "x", "choices": CHOICES, "usage": USAGE}, indent=2),
    document("before 8 KB of metadata", {"usage": USAGE, "choices": CHOICES, "metadata": {"note": "n" * 8192}}),
    document("behind 8 KB of metadata", {"metadata": {"note": "n" * 8192}, "choices": CHOICES, "usage": USAGE}),
    document(
        "echoed before and after",
        {
            "metadata": FORGED,
            "response_format": {"json_schema": {"schema": {"properties": FORGED}}},
            "choices": CHOICES,
            "usage": {**USAGE, "extra": FORGED},
            "tools": [{"function": {"parameters": FORGED}}, FORGED],
            "prompt": FORGED_TEXT,
        },
    ),
    document(
        "texts in objects that are skipped",
        {"metadata": {"a": [FORGED_TEXT, {"b": FORGED_TEXT}], FORGED_TEXT: "\\"}, "choices": CHOICES, "usage": USAGE},
    ),
    document("two choices", {"choices": [*CHOICES, {**CHOICES[0], "index": 1}], "usage": USAGE}, text_bytes=12),
    Answer(
        "more behind the end",
        b'{"usage":{"prompt_tokens":1}},"usage":{"prompt_tokens":0}}{"usage":{"prompt_tokens":0}}',
        {"input_tokens": 1, "finished": True},
    ),
    document("usage in a choice", {"choices": [{**CHOICES[0], **FORGED}], "usage": USAGE}),
    document("null after the truth", {"choices": CHOICES, "usage": USAGE, "usageMetadata": None}),
    text_answer("braces and quotes in text", FORGED_TEXT * 3),
    text_answer("a text that ends in backslashes", "C:\\\\"),
    text_answer("a text of two scripts", "naïve 你好 \u2028"),
    text_answer("escaped control characters", "a\nb\tc"),
    Answer(
        "an escaped name",
        rb'{"us\u0061ge":{"prompt_tokens":41,"completion_tokens":59}}',
        {"input_tokens": 41, "output_tokens": 59, "finished": True},
    ),
    Answer(
        "escaped Chinese",
        b'{"choices":[{"message":{"content":"\\u4f60\\u597d"}}]}',
        {"text_bytes": 6, "finished": True},
    ),
    Answer(
        "usage in one line that comes twice",
        b'{"usage":{"prompt_tokens":1,"completion_tokens":null},"usage":{"prompt_tokens":null,"completion_tokens":2}}',
        {"input_tokens": 1, "output_tokens": 2, "finished": True},
    ),
    Answer(
        "absurd numbers pass on for the server to judge",
        b'{"usage":{"prompt_tokens":-5,"completion_tokens":"many"}}',
        {"input_tokens": -5, "output_tokens": "many", "finished": True},
    ),
    Answer("no object", b'[{"usage":{"prompt_tokens":41}}]', {"finished": True}),
    Answer("no JSON", b'<html>"usage":{"prompt_tokens":41}</html>', {"finished": True}),
    Answer(
        "broken off by the upstream itself", b'{"a":{"usage":{"prompt_tokens":0}},"usage":{"pro', {"finished": True}
    ),
    Answer(
        "LiteLLM, which adds Anthropic's names to OpenAI's",
        b'{"usage":{"prompt_tokens":10,"input_tokens":10,"cache_read_input_tokens":3,"completion_tokens":5}}',
        {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3, "finished": True},
    ),
    Answer(
        "Gemini, whose candidates leave out the thoughts",
        b'{"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"cachedContentTokenCount":3,'
        b'"thoughtsTokenCount":2}}',
        {
            "input_tokens": 10,
            "output_tokens": 7,
            "cache_read_input_tokens": 3,
            "reasoning_output_tokens": 2,
            "finished": True,
        },
    ),
    Answer(
        "Anthropic, whose input leaves out what was cached",
        b'{"content":[{"type":"text","text":"Hi"}],"usage":{"input_tokens":10,"cache_read_input_tokens":3,'
        b'"cache_creation_input_tokens":4,"output_tokens":5}}',
        {
            "input_tokens": 17,
            "output_tokens": 5,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 4,
            "text_bytes": 2,
            "finished": True,
        },
    ),
)

STREAMS = (
    stream("chat", *CHAT, expected=CHAT_TRUTH),
    stream("chat with CRLF", *CHAT, expected=CHAT_TRUTH, newline="\r\n"),
    stream("chat with CR", *CHAT, expected=CHAT_TRUTH, newline="\r"),
    stream("comments and other fields", *CHAT, expected=CHAT_TRUTH, before_event=": ping\nevent: data\nid: 7\ndat\n"),
    stream("no empty line at the end", *CHAT, expected=CHAT_TRUTH, last="\n"),
    stream("no line end at the end", *CHAT[:-1], expected=CHAT_TRUTH, last=" "),
    stream("LiteLLM's usage", *CHAT[:3], USAGE_ONLY_LITELLM, "[DONE]", expected={**CHAT_TRUTH, **COST_LITELLM}),
    stream(
        "data of several lines",
        delta("Hello."),
        json.dumps({"choices": [], "usage": USAGE}, indent=1).replace("\n", "\ndata:"),
        expected={**CHAT_TRUTH, "events": 2},
    ),
    stream(
        "running totals",
        delta("Hello.", usage={"prompt_tokens": 41, "completion_tokens": 1}),
        delta("", usage=USAGE),
        expected={**CHAT_TRUTH, "events": 2},
    ),
    stream(
        "forged in texts, tool calls and choices",
        delta(FORGED_TEXT),
        json.dumps({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": FORGED_TEXT}}]}, **FORGED}]}),
        json.dumps({"choices": [], "metadata": FORGED, "usage": USAGE, "tools": [FORGED]}),
        expected={**TRUTH, "events": 3, "text_bytes": 2 * len(FORGED_TEXT)},
    ),
    stream(
        "reasoning that is shown",
        json.dumps({"choices": [{"delta": {"reasoning_content": "Hm,"}}]}),
        json.dumps({"choices": [{"delta": {"reasoning": "hm."}}]}),
        delta("Hello."),
        expected={"events": 3, "text_bytes": 12, "reasoning_bytes": 6},
    ),
    stream(
        "Anthropic's thinking",
        '{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}',
        expected={"events": 1, "text_bytes": 3, "reasoning_bytes": 3},
    ),
    stream(
        "Anthropic",
        '{"type":"message_start","message":{"content":[],"usage":{"input_tokens":10,"cache_read_input_tokens":3,'
        '"output_tokens":1}}}',
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}',
        '{"type":"message_stop"}',
        before_event="event: named\n",
        expected={
            "input_tokens": 13,
            "output_tokens": 5,
            "cache_read_input_tokens": 3,
            "events": 4,
            "text_bytes": 2,
        },
    ),
    stream(
        "Responses",
        '{"type":"response.created","response":{"usage":null,"metadata":{"usage":{"input_tokens":0}}}}',
        '{"type":"response.output_text.delta","delta":"Hi"}',
        '{"type":"response.completed","response":{"instructions":"\\"usage\\":{","usage":{"input_tokens":10,'
        '"input_tokens_details":{"cached_tokens":3},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2}}}}',
        expected={
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 3,
            "reasoning_output_tokens": 2,
            "events": 3,
            "text_bytes": 2,
        },
    ),
)
