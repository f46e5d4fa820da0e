"""Answers of every API in the shape that its reference documents, and what the meter must report of each.

Those that stream stand in metered_streams, and sessions in metered_sessions.
"""

from __future__ import annotations

import json

from tests.support.metered import Answer

FINISHED: dict[str, object] = {"finished": True}


def shape(name: str, fields: object, **expected: object) -> Answer:
    """Give a JSON answer, and the fields that are reported of it."""
    return Answer(name, json.dumps(fields).encode(), {**expected, **FINISHED})


GEMINI_USAGE: dict[str, object] = {
    "promptTokenCount": 40,
    "toolUsePromptTokenCount": 5,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 9,
    "cachedContentTokenCount": 12,
    "totalTokenCount": 74,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 12},
        {"modality": "AUDIO", "tokenCount": 21},
        {"tokenCount": 7, "modality": "IMAGE"},
    ],
    "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "IMAGE", "tokenCount": 1}],
    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 8}, {"modality": "TEXT", "tokenCount": 4}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 14}, {"modality": "AUDIO", "tokenCount": 6}],
}
GEMINI_TRUTH: dict[str, object] = {
    "input_tokens": 45,
    "output_tokens": 29,
    "cache_read_input_tokens": 12,
    "reasoning_output_tokens": 9,
    "audio_input_tokens": 21,
    "image_input_tokens": 8,
    "cache_read_audio_input_tokens": 8,
    "audio_output_tokens": 6,
    "model": "gemini-2.5-flash",
}


def candidates(*parts: dict[str, object], **more: object) -> list[dict[str, object]]:
    """Give Gemini's one candidate with these parts."""
    return [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}]


GEMINI_CHUNKS: tuple[dict[str, object], ...] = (
    {
        "candidates": candidates({"text": "Hm.", "thought": True}),
        "usageMetadata": {"promptTokenCount": 40, "totalTokenCount": 40},
        "modelVersion": "gemini-2.5-flash",
    },
    {
        "candidates": candidates({"thought": True, "text": "Yes."}, {"text": "Hello"}),
        "usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 2, "thoughtsTokenCount": 9},
        "modelVersion": "gemini-2.5-flash",
    },
    {
        "candidates": candidates({"functionCall": {"name": "look", "args": {"usageMetadata": 1}}}, finishReason="STOP"),
        "usageMetadata": GEMINI_USAGE,
        "modelVersion": "gemini-2.5-flash",
    },
)
GEMINI_TEXTS: dict[str, object] = {"text_bytes": 16, "reasoning_bytes": 7}

RESPONSE_USAGE: dict[str, object] = {
    "input_tokens": 60,
    "input_tokens_details": {
        "cached_tokens": 7,
        "cache_write_tokens": 20,
        "cache_write_tokens_details": {"ttl_30m_tokens": 15, "ttl_12h_tokens": 5},
    },
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 11},
    "total_tokens": 90,
}
RESPONSE_TRUTH: dict[str, object] = {
    "input_tokens": 60,
    "output_tokens": 30,
    "cache_read_input_tokens": 7,
    "cache_creation_input_tokens": 20,
    "cache_creation_1h_input_tokens": 5,
    "reasoning_output_tokens": 11,
    "searches": 1,
    "model": "gpt-5-2025-08-07",
    "service_tier": "flex",
}
SEARCH = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "prices"}}
OPENED = {"type": "web_search_call", "status": "completed", "action": {"type": "open_page", "url": "https://e.org"}}
OUTPUT = [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    SEARCH,
    OPENED,
    {"type": "function_call", "name": "look", "arguments": '{"a":1}'},
    {"type": "message", "content": [{"type": "output_text", "text": "Hello", "annotations": [{"type": "x"}]}]},
]
RESPONSE: dict[str, object] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "background": False,
    "model": "gpt-5-2025-08-07",
    "service_tier": "flex",
    "output": OUTPUT,
    "usage": RESPONSE_USAGE,
}

MESSAGE_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
    "output_tokens": 1,
    "service_tier": "priority",
}
MESSAGE_TRUTH: dict[str, object] = {
    "input_tokens": 90,
    "output_tokens": 25,
    "cache_read_input_tokens": 50,
    "cache_creation_input_tokens": 30,
    "cache_creation_1h_input_tokens": 10,
    "searches": 2,
    "model": "claude-sonnet-4-5",
    "service_tier": "priority",
    "text_bytes": 8,
    "reasoning_bytes": 3,
}
MESSAGE_OUTPUT = {"output_tokens": 25, "server_tool_use": {"web_search_requests": 2}}

IMAGE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 1056,
    "total_tokens": 1106,
}
IMAGE_TRUTH: dict[str, object] = {
    "input_tokens": 50,
    "output_tokens": 1056,
    "image_input_tokens": 40,
    "image_output_tokens": 1056,
}
HEARD_USAGE: dict[str, object] = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
    "output_tokens": 3,
    "total_tokens": 17,
}
HEARD_TRUTH: dict[str, object] = {"input_tokens": 14, "output_tokens": 3, "audio_input_tokens": 10}

SHAPES = (
    shape(
        "chat completion",
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-4o-audio-preview",
            "service_tier": "priority",
            "choices": [
                {
                    "message": {"content": None, "audio": {"data": "AAAA", "transcript": "Hello"}},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {
                    "cached_tokens": 30,
                    "cache_write_tokens": 20,
                    "audio_tokens": 15,
                    "image_tokens": 5,
                    "text_tokens": 80,
                },
                "completion_tokens_details": {
                    "reasoning_tokens": 8,
                    "audio_tokens": 12,
                    "image_tokens": 3,
                    "accepted_prediction_tokens": 1,
                    "rejected_prediction_tokens": 1,
                },
            },
        },
        input_tokens=100,
        output_tokens=50,
        cache_read_input_tokens=30,
        cache_creation_input_tokens=20,
        reasoning_output_tokens=8,
        audio_input_tokens=15,
        audio_output_tokens=12,
        image_input_tokens=5,
        image_output_tokens=3,
        model="gpt-4o-audio-preview",
        service_tier="priority",
        text_bytes=5,
    ),
    shape(
        "chat completion of LiteLLM from Anthropic",
        {
            "model": "claude-sonnet-4-5",
            "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 90,
                "completion_tokens": 25,
                "total_tokens": 115,
                "cache_creation_input_tokens": 30,
                "cache_read_input_tokens": 50,
                "prompt_tokens_details": {
                    "cached_tokens": 50,
                    "cache_creation_tokens": 30,
                    "cache_creation_token_details": {
                        "ephemeral_5m_input_tokens": 20,
                        "ephemeral_1h_input_tokens": 10,
                    },
                    "web_search_requests": 2,
                    "audio_tokens": None,
                },
                "cost": 0.00035000000000000005,
            },
        },
        input_tokens=90,
        output_tokens=25,
        cache_read_input_tokens=50,
        cache_creation_input_tokens=30,
        cache_creation_1h_input_tokens=10,
        searches=2,
        model="claude-sonnet-4-5",
        upstream_cost="0.00035000000000000005",
        text_bytes=5,
    ),
    shape("an upstream's cost of nothing", {"usage": {"prompt_tokens": 3, "cost": 0}}, input_tokens=3),
    shape("completion", {"choices": [{"text": "Hi"}], "usage": {"prompt_tokens": 3}}, input_tokens=3, text_bytes=2),
    shape("response", RESPONSE, **RESPONSE_TRUTH, text_bytes=19, reasoning_bytes=3),
    shape(
        "background response",
        {"id": "resp_1", "object": "response", "status": "queued", "background": True, "usage": None, "model": "o3"},
        pending=True,
        answer_id="resp_1",
        model="o3",
    ),
    shape(
        "message",
        {
            "type": "message",
            "model": "claude-sonnet-4-5",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "server_tool_use", "name": "web_search", "input": {"query": "prices"}},
                {"type": "text", "text": "Hello"},
            ],
            "usage": MESSAGE_USAGE | MESSAGE_OUTPUT,
        },
        **MESSAGE_TRUTH,
    ),
    shape(
        "message that tells of its cache by age only",
        {"usage": {"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 4}}},
        input_tokens=5,
        output_tokens=2,
        cache_creation_input_tokens=4,
    ),
    shape(
        "Gemini",
        {
            "candidates": candidates({"text": "Hm.", "thought": True}, {"text": "Hello"}, finishReason="STOP"),
            "usageMetadata": GEMINI_USAGE,
            "modelVersion": "gemini-2.5-flash",
        },
        **GEMINI_TRUTH,
        text_bytes=8,
        reasoning_bytes=3,
    ),
    shape(
        "Gemini, blocked",
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 8}},
        input_tokens=8,
    ),
    shape(
        "Gemini, only thoughts",
        {"usageMetadata": {"promptTokenCount": 8, "thoughtsTokenCount": 9}},
        input_tokens=8,
        output_tokens=9,
        reasoning_output_tokens=9,
    ),
    shape("Gemini's stream as an array", list(GEMINI_CHUNKS), **GEMINI_TRUTH, **GEMINI_TEXTS, events=3),
    shape("an array of something else", [{"usage": {"prompt_tokens": 4}, "model": "x", "index": 0}]),
    shape(
        "embeddings",
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": [0.1, -2e-3]} for index in range(2)],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        },
        input_tokens=8,
        model="text-embedding-3-small",
    ),
    shape(
        "rerank of Cohere",
        {
            "results": [{"index": 1, "relevance_score": 0.9}],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 2, "total_tokens": 77}},
        },
        queries=2,
        input_tokens=77,
    ),
    shape("rerank by searches alone", {"meta": {"billed_units": {"search_units": 1}, "tokens": None}}, queries=1),
    shape(
        "rerank of vLLM",
        {"model": "bge-reranker", "usage": {"total_tokens": 56}},
        input_tokens=56,
        model="bge-reranker",
    ),
    shape(
        "a total with its output",
        {"usage": {"completion_tokens": 6, "total_tokens": 56}},
        input_tokens=50,
        output_tokens=6,
    ),
    shape("moderation", {"id": "modr-1", "model": "omni-moderation", "results": [{}]}, model="omni-moderation"),
    shape("images by URL", {"created": 1, "data": [{"url": "https://e.org/1"}, {"url": "https://e.org/2"}]}, images=2),
    shape(
        "images with usage",
        {"created": 1, "data": [{"b64_json": "QUJD" * 9, "revised_prompt": "a cat"}], "usage": IMAGE_USAGE},
        **IMAGE_TRUTH,
        images=1,
    ),
    shape(
        "images with usage before them",
        {"usage": IMAGE_USAGE, "data": [{"b64_json": "QUJD", "url": None}]},
        **IMAGE_TRUTH,
        images=1,
    ),
    shape(
        "images with text",
        {
            "data": [{"b64_json": "QUJD"}],
            "usage": IMAGE_USAGE | {"output_tokens_details": {"text_tokens": 56, "image_tokens": 1000}},
        },
        **{**IMAGE_TRUTH, "image_output_tokens": 1000},
        images=1,
    ),
    shape("no images", {"data": [{"b64_json": "", "url": None}, {"id": "file-1", "b64": "x"}]}),
    shape("transcription by tokens", {"text": "Hello", "usage": HEARD_USAGE}, **HEARD_TRUTH, text_bytes=5),
    shape(
        "transcription by length",
        {"text": "Hello", "usage": {"type": "duration", "seconds": 8.4701}},
        milliseconds=8471,
        text_bytes=5,
    ),
    shape(
        "verbose transcription",
        {"task": "transcribe", "language": "english", "duration": 12.5, "text": "Hi", "segments": [{"text": "Hi"}]},
        milliseconds=12500,
        text_bytes=2,
    ),
    shape(
        "verbose transcription with its usage",
        {"duration": 12.5, "text": "Hi", "usage": {"type": "duration", "seconds": 13}},
        milliseconds=13000,
        text_bytes=2,
    ),
    shape("batch", {"object": "batch", "status": "validating", "usage": None}, pending=True),
    shape(
        "batch that is done",
        {
            "object": "batch",
            "status": "completed",
            "model": "gpt-4o",
            "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 4},
        },
        input_tokens=9,
        output_tokens=4,
        cache_read_input_tokens=2,
        model="gpt-4o",
    ),
    shape("batch of messages", {"type": "message_batch", "processing_status": "in_progress"}, pending=True),
    shape("video", {"object": "video", "model": "sora-2", "status": "queued"}, pending=True, model="sora-2"),
    shape("video that is done", {"object": "video", "model": "sora-2", "status": "completed"}, model="sora-2"),
    shape("a model with a slash", {"model": "meta-llama/Llama-3"}, model="meta-llama/Llama-3"),
    shape("a model that is too long", {"model": "m" * 257}),
    shape("the longest model", {"model": "m" * 256}, model="m" * 256),
    shape("a tier that is too long", {"service_tier": "t" * 33}),
    Answer("an escaped model", rb'{"model":"meta\/\u006clama"}', {"model": "meta/llama", **FINISHED}),
    shape("nulls", {"model": None, "service_tier": None, "status": None, "usage": None, "data": None, "meta": None}),
    shape(
        "absurd counts pass on for the server to judge",
        {"usage": {"seconds": "long", "server_tool_use": {"web_search_requests": "x"}, "search_units": -1}},
        milliseconds="long",
        searches="x",
        queries=-1,
    ),
)
