"""OpenAI's answers in pictures, sound and film, and those about files and batches."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from extauthz.demo.answers import CREATED, words
from tests.support.apis.used import Used
from tests.support.apis.wire import MP3, Json, Piece, Wire, document, event, stream

# A picture that says nothing, as text: the API sends thousands of times as much.
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"picture " * 64).decode()
# Sound that looks like what it must not be taken for.
SOUND = b'ID3\x04{"usage":{"input_tokens":0}}\xff\xfb' + b"sound" * 200


def image_usage(used: Used) -> Json:
    """Count as the image models do that are paid by tokens."""
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"text_tokens": used.text_input, "image_tokens": used.image_input},
        "output_tokens": used.output,
        "output_tokens_details": {"text_tokens": used.text_output, "image_tokens": used.image_output},
        "total_tokens": used.input + used.output,
    }


def images(used: Used, *, usage: bool) -> Wire:
    """Answer with pictures; older models report no usage."""
    data = [{"b64_json": PICTURE} for _ in range(max(1, used.images))]
    counted = {"usage": image_usage(used), "size": "1024x1024", "quality": "high"} if usage else {}
    return document({"created": CREATED, "data": data, **counted})


def images_stream(used: Used, kind: str) -> Wire:
    """Answer with a picture that becomes clearer; `kind` is image_generation or image_edit."""
    fields = {"b64_json": PICTURE, "created_at": CREATED, "size": "1024x1024", "quality": "high"}
    partial = [
        event({"type": f"{kind}.partial_image", **fields, "partial_image_index": index}, named=True)
        for index in range(3)
    ]
    return stream([*partial, event({"type": f"{kind}.completed", **fields, "usage": image_usage(used)}, named=True)])


def speech() -> Wire:
    """Answer with sound, which says nothing about usage."""
    return Wire((Piece(SOUND),), MP3)


def speech_stream(used: Used) -> Wire:
    """Answer with sound in events, which end with usage."""
    usage = {"input_tokens": used.input, "output_tokens": used.output, "total_tokens": used.input + used.output}
    parts = [SOUND[start : start + 200] for start in range(0, len(SOUND), 200)]
    deltas = [{"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()} for part in parts]
    return stream([*map(event, deltas), event({"type": "speech.audio.done", "usage": usage})])


def token_transcript(used: Used) -> Wire:
    """Answer with what was said, counted in tokens."""
    return document({"text": "".join(words(used.text_output)), "usage": transcript_usage(used)})


def timed_transcript(used: Used) -> Wire:
    """Answer with what was said, counted in seconds."""
    usage = {"type": "duration", "seconds": used.heard_milliseconds / 1000}
    return document({"text": "".join(words(12)), "usage": usage})


def transcript_stream(used: Used) -> Wire:
    """Answer with what was said as a stream."""
    text = words(used.text_output)

    def pieces() -> Iterator[Piece]:
        for word in text:
            yield event({"type": "transcript.text.delta", "delta": word}, text=word)
        yield event({"type": "transcript.text.done", "text": "".join(text), "usage": transcript_usage(used)})

    return stream(pieces())


def transcript_usage(used: Used) -> Json:
    """Count as the models do that listen in tokens."""
    return {
        "type": "tokens",
        "input_tokens": used.input,
        "input_token_details": {"text_tokens": used.text_input, "audio_tokens": used.audio_input},
        "output_tokens": used.output,
        "total_tokens": used.input + used.output,
    }


def translation() -> Wire:
    """Answer with what was said in another language, which says nothing about usage."""
    return document({"text": "".join(words(12))})


def video(model: str, *, seconds: int, status: str = "queued", id_: str = "video_1") -> Wire:
    """Promise a film, or say how far it is."""
    return document(
        {
            "id": id_,
            "object": "video",
            "created_at": CREATED,
            "status": status,
            "model": model,
            "progress": 0,
            "seconds": str(seconds),
            "size": "1280x720",
        }
    )


def batch(*, status: str = "validating", used: Used | None = None, id_: str = "batch_1") -> Wire:
    """Promise the answers of a batch; one that is over says what they used."""
    usage = None if used is None else {"input_tokens": used.input, "output_tokens": used.output}
    return document(
        {
            "id": id_,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "completion_window": "24h",
            "status": status,
            "created_at": CREATED,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "usage": usage,
        }
    )


def file() -> Wire:
    """Confirm a file."""
    return document(
        {
            "id": "file-1",
            "object": "file",
            "bytes": 120,
            "created_at": CREATED,
            "filename": "batch.jsonl",
            "purpose": "batch",
            "status": "processed",
        }
    )


def realtime_turn(used: Used) -> tuple[Json, ...]:
    """Answer one turn of a conversation: the events that the server sends, the last of which counts."""
    usage = {
        "total_tokens": used.input + used.output,
        "input_tokens": used.input,
        "output_tokens": used.output,
        "input_token_details": {
            "text_tokens": used.text_input + used.cached_input,
            "audio_tokens": used.audio,
            "cached_tokens": used.cached,
            "cached_tokens_details": {"text_tokens": used.cached_input, "audio_tokens": used.cached_audio_input},
        },
        "output_token_details": {"text_tokens": used.text_output, "audio_tokens": used.audio_output},
    }
    return (
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}},
        *({"type": "response.output_text.delta", "delta": word} for word in words(used.text_output)),
        {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "usage": usage}},
    )
