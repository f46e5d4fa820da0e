"""Anthropic's answers: messages, whose input leaves out what was cached, and the counting of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extauthz.demo.answers import words
from tests.support.apis.used import Used
from tests.support.apis.wire import Json, Piece, Wire, document, event, stream

ERROR_TYPES = {400: "invalid_request_error", 429: "rate_limit_error", 500: "api_error"}


def error(status: int) -> Wire:
    """Refuse, or fail."""
    fields = {"type": ERROR_TYPES[status], "message": "No."}
    return document({"type": "error", "error": fields, "request_id": "req_1"}, status=status)


def input_usage(used: Used, *, output: int) -> Json:
    """Count the input, and so much of the output."""
    return {
        "input_tokens": used.text_input,
        "cache_read_input_tokens": used.cached_input,
        "cache_creation_input_tokens": used.written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": used.written_input,
            "ephemeral_1h_input_tokens": used.written_1h_input,
        },
        "output_tokens": output,
        "server_tool_use": {"web_search_requests": used.searches, "web_fetch_requests": 0},
        "service_tier": "standard",
    }


def message(used: Used, model: str) -> Wire:
    """Answer a message."""
    text = "".join(words(used.text_output))
    fields = {
        **_head(model),
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": input_usage(used, output=used.output),
    }
    return document(fields)


def message_stream(used: Used, model: str) -> Wire:
    """Answer a message as a stream: the input is counted in its first event, the output in the last but one."""

    def pieces() -> Iterator[Piece]:
        start = {**_head(model), "content": [], "usage": input_usage(used, output=1)}
        yield event({"type": "message_start", "message": start}, named=True)
        block = {"type": "text", "text": ""}
        yield event({"type": "content_block_start", "index": 0, "content_block": block}, named=True)
        yield event({"type": "ping"}, named=True)
        for word in words(used.text_output):
            delta = {"type": "text_delta", "text": word}
            yield event({"type": "content_block_delta", "index": 0, "delta": delta}, text=word, named=True)
        yield event({"type": "content_block_stop", "index": 0}, named=True)
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        usage = {"output_tokens": used.output}
        yield event({"type": "message_delta", "delta": ending, "usage": usage}, named=True)
        yield event({"type": "message_stop"}, named=True)

    return stream(pieces())


def token_count(used: Used) -> Wire:
    """Tell how many tokens a message would have."""
    return document({"input_tokens": used.input})


def model_list(names: Sequence[str]) -> Wire:
    """List models."""
    data = [{"type": "model", "id": name, "display_name": name, "created_at": "2025-02-19T00:00:00Z"} for name in names]
    return document({"data": data, "first_id": names[0], "last_id": names[-1], "has_more": False})


def _head(model: str) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
    }
