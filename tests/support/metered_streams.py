"""Answers of every API that streams, event by event, and what the meter must report of each."""

from __future__ import annotations

import json

from tests.support.metered import EVENT_STREAM, Answer
from tests.support.metered_shapes import (
    FINISHED,
    GEMINI_CHUNKS,
    GEMINI_TEXTS,
    GEMINI_TRUTH,
    HEARD_TRUTH,
    HEARD_USAGE,
    IMAGE_TRUTH,
    IMAGE_USAGE,
    MESSAGE_OUTPUT,
    MESSAGE_TRUTH,
    MESSAGE_USAGE,
    OPENED,
    RESPONSE,
    RESPONSE_TRUTH,
    SEARCH,
)


def events(name: str, *data: dict[str, object], **expected: object) -> Answer:
    """Give an event stream, whose events are named by their type as most APIs do."""
    lines = [f"event: {event.get('type', 'message')}\ndata: {json.dumps(event)}\n\n" for event in data]
    return Answer(name, "".join(lines).encode(), {"events": len(data), **expected, **FINISHED}, EVENT_STREAM)


STARTED: dict[str, object] = {**RESPONSE, "status": "in_progress", "service_tier": "auto", "output": [], "usage": None}

EVENTS = (
    events(
        "Responses",
        {"type": "response.created", "response": STARTED},
        {"type": "response.in_progress", "response": STARTED},
        {"type": "response.reasoning_summary_text.delta", "item_id": "x", "delta": "Hm."},
        {"item_id": "x", "delta": "Yes.", "type": "response.reasoning_text.delta"},
        {"type": "response.output_item.added", "item": {**SEARCH, "status": "in_progress"}},
        {"type": "response.output_item.done", "item": SEARCH},
        {"type": "response.output_item.done", "item": OPENED},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": "response.function_call_arguments.delta", "delta": '{"a":1}'},
        {"type": "response.output_text.done", "text": "Hello"},
        {"type": "response.completed", "response": RESPONSE},
        **RESPONSE_TRUTH,
        text_bytes=19,
        reasoning_bytes=7,
    ),
    events(
        "Responses with sound",
        {"type": "response.output_audio.delta", "delta": "QUJD" * 20},
        {"delta": "QUJD" * 20, "type": "response.output_audio.delta"},
        {"type": "response.output_audio_transcript.delta", "delta": "Hello"},
        {"type": "response.incomplete", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}},
        input_tokens=1,
        output_tokens=2,
        text_bytes=5,
    ),
    events(
        "a background response",
        {"type": "response.created", "response": {**STARTED, "background": True, "status": "queued"}},
        {"type": "response.in_progress", "response": {**STARTED, "background": True}},
        model="gpt-5-2025-08-07",
        service_tier="auto",
        pending=True,
        answer_id=RESPONSE["id"],
    ),
    events(
        "a response that breaks off, and was not to go on without its stream",
        {"type": "response.in_progress", "response": STARTED},
        model="gpt-5-2025-08-07",
        service_tier="auto",
    ),
    events(
        "a background response that is done",
        {"type": "response.created", "response": {**STARTED, "background": True, "status": "queued"}},
        {"type": "response.completed", "response": {**RESPONSE, "background": True, "output": []}},
        **{name: value for name, value in RESPONSE_TRUTH.items() if name != "searches"},
        answer_id=RESPONSE["id"],
    ),
    events(
        "messages",
        {"type": "message_start", "message": {"model": "claude-sonnet-4-5", "content": [], "usage": MESSAGE_USAGE}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": MESSAGE_OUTPUT},
        {"type": "message_stop"},
        **MESSAGE_TRUTH,
    ),
    events("Gemini", *GEMINI_CHUNKS, **GEMINI_TRUTH, **GEMINI_TEXTS),
    events(
        "images",
        {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": "QUJD" * 9},
        {"type": "image_generation.completed", "b64_json": "QUJD" * 9, "usage": IMAGE_USAGE},
        **IMAGE_TRUTH,
        images=1,
    ),
    events("an edited image", {"type": "image_edit.completed", "usage": IMAGE_USAGE}, **IMAGE_TRUTH, images=1),
    events(
        "transcription",
        {"type": "transcript.text.delta", "delta": "Hel"},
        {"type": "transcript.text.delta", "delta": "lo"},
        {"type": "transcript.text.done", "text": "Hello", "usage": HEARD_USAGE},
        **HEARD_TRUTH,
        text_bytes=5,
    ),
    events(
        "speech",
        {"type": "speech.audio.delta", "audio": "QUJD" * 9},
        {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}},
        input_tokens=14,
        output_tokens=101,
    ),
    events(
        "chat completion",
        {
            "model": "gpt-4o-2024-08-06",
            "service_tier": "default",
            "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
            "usage": None,
        },
        {
            "model": "gpt-4o-2024-08-06",
            "choices": [],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2, "completion_tokens_details": {"audio_tokens": 1}},
        },
        input_tokens=4,
        output_tokens=2,
        audio_output_tokens=1,
        model="gpt-4o-2024-08-06",
        service_tier="default",
        text_bytes=2,
    ),
)
