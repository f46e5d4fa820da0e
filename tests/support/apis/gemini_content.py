"""Google's answers: content, whose candidates leave out the thoughts, and the counting of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from extauthz.demo.answers import words
from tests.support.apis.used import Used
from tests.support.apis.wire import Json, Piece, Wire, document, event, stream

STATUSES = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}


def error(status: int) -> Wire:
    """Refuse, or fail."""
    return document({"error": {"code": status, "message": "No.", "status": STATUSES[status]}}, status=status)


def usage(used: Used, *, output: int) -> Json:
    """Count the input, the thoughts and so much of the other output."""
    return {
        "promptTokenCount": used.input,
        "cachedContentTokenCount": used.cached,
        "candidatesTokenCount": output,
        "thoughtsTokenCount": used.reasoning_output,
        "totalTokenCount": used.input + output + used.reasoning_output,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": used.text_input + used.cached_input},
            {"modality": "AUDIO", "tokenCount": used.audio},
        ],
    }


def content(used: Used, model: str) -> Wire:
    """Answer with content."""
    text = "".join(words(used.text_output))
    return document(_content(used, model, text, used.text_output, finish="STOP"))


def content_stream(used: Used, model: str) -> Wire:
    """Answer as a stream: each event counts what there was so far, and each is an answer of its own."""
    written = words(used.text_output)
    last = len(written)
    return stream(
        event(_content(used, model, word, number, finish="STOP" if number == last else None), text=word)
        for number, word in enumerate(written, start=1)
    )


def content_array(used: Used, model: str) -> Wire:
    """Answer as the stream that a client gets which does not ask for events: an array that grows."""
    written = words(used.text_output)
    documents = [
        document(_content(used, model, word, number, finish="STOP" if number == len(written) else None)).body
        for number, word in enumerate(written, start=1)
    ]
    return Wire((Piece(b"[" + b",\r\n".join(documents) + b"]"),))


def token_count(used: Used) -> Wire:
    """Tell how many tokens some content has."""
    return document({"totalTokens": used.input})


def model_list(names: Sequence[str]) -> Wire:
    """List models."""
    return document({"models": [{"name": f"models/{name}", "displayName": name} for name in names]})


def _content(used: Used, model: str, text: str, output: int, *, finish: str | None) -> Json:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    return {
        "candidates": [candidate if finish is None else {**candidate, "finishReason": finish}],
        "usageMetadata": usage(used, output=output),
        "modelVersion": model,
        "responseId": "r1",
    }
