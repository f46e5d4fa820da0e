"""What a Realtime API sends by WebSocket, and what the meter must report of it."""

from __future__ import annotations


def turn(input_tokens: int, output_tokens: int, audio: int, cached: int, cached_audio: int) -> dict[str, object]:
    """Give the end of a turn of a Realtime session."""
    return {
        "type": "response.done",
        "event_id": "event_1",
        "response": {
            "object": "realtime.response",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_audio", "transcript": '"usage":{'}]}],
            "usage": {
                "total_tokens": input_tokens + output_tokens,
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "input_token_details": {
                    "text_tokens": input_tokens - audio,
                    "audio_tokens": audio,
                    "image_tokens": 1,
                    "cached_tokens": cached,
                    "cached_tokens_details": {"text_tokens": cached - cached_audio, "audio_tokens": cached_audio},
                },
                "output_token_details": {"text_tokens": 1, "audio_tokens": output_tokens - 1},
            },
        },
    }


SESSION_CREATED: dict[str, object] = {"type": "session.created", "session": {"model": "gpt-realtime", "voice": "ash"}}
TURN_CREATED: dict[str, object] = {"type": "response.created", "response": {"status": "in_progress", "usage": None}}
FIRST_TURN: tuple[dict[str, object], ...] = (
    TURN_CREATED,
    {"type": "response.output_audio.delta", "delta": "QUJD" * 40},
    {"type": "response.output_audio_transcript.delta", "delta": "Hello"},
    turn(100, 50, 80, 30, 20),
)
SECOND_TURN: tuple[dict[str, object], ...] = (
    TURN_CREATED,
    {"type": "response.output_text.delta", "delta": "Bye"},
    turn(200, 40, 150, 100, 70),
)
FIRST_TRUTH: dict[str, object] = {
    "input_tokens": 100,
    "output_tokens": 50,
    "cache_read_input_tokens": 30,
    "cache_read_audio_input_tokens": 20,
    "audio_input_tokens": 80,
    "image_input_tokens": 1,
    "audio_output_tokens": 49,
    "model": "gpt-realtime",
    "turns": 1,
    "events": 5,
    "text_bytes": 5,
    "finished": True,
}
SESSION_TRUTH: dict[str, object] = {
    "input_tokens": 300,
    "output_tokens": 90,
    "cache_read_input_tokens": 130,
    "cache_read_audio_input_tokens": 90,
    "audio_input_tokens": 230,
    "image_input_tokens": 2,
    "audio_output_tokens": 88,
    "model": "gpt-realtime",
    "turns": 2,
    "events": 8,
    "text_bytes": 8,
    "finished": True,
}
SESSION = (SESSION_CREATED, *FIRST_TURN, *SECOND_TURN)


def frame(payload: bytes, *, opcode: int = 1, last: bool = True, size: int = 0) -> bytes:
    """Give a frame as a server sends it; `size` asks for a longer field of length (16 or 64 bits) than needed."""
    head = bytes([128 * last + opcode])
    if len(payload) >= 1 << 16 or size == 64:
        return head + b"\x7f" + len(payload).to_bytes(8, "big") + payload
    if len(payload) > 125 or size == 16:
        return head + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return head + bytes([len(payload)]) + payload
