"""OpenAI's answers in text: chat, completions, embeddings, responses and moderations, and errors."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.demo.answers import CREATED, words
from tests.support.apis.used import Used
from tests.support.apis.wire import DONE, Json, Piece, Wire, document, event, stream

ERROR_TYPES = {400: "invalid_request_error", 429: "rate_limit_exceeded", 500: "server_error"}


def error(status: int) -> Wire:
    """Refuse, or fail."""
    fields = {"message": "No.", "type": ERROR_TYPES[status], "param": None, "code": None}
    return document({"error": fields}, status=status)


def chat_usage(used: Used) -> Json:
    """Count as chat, completions and embeddings do: details are parts of the whole."""
    return {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": {
            "cached_tokens": used.cached,
            "audio_tokens": used.audio,
            "image_tokens": used.image_input,
        },
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning_output,
            "audio_tokens": used.audio_output,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat(used: Used, model: str, *, tier: str = "default") -> Wire:
    """Answer a chat; `tier` is the one of service that it got."""
    message: Json = {
        "role": "assistant",
        "content": "".join(words(used.text_output)),
        "refusal": None,
        "annotations": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return document(
        {
            **_envelope("chatcmpl-1", "chat.completion", model),
            "choices": [choice],
            "usage": chat_usage(used),
            "service_tier": tier,
        }
    )


def chat_stream(used: Used, model: str, *, usage: bool) -> Wire:
    """Answer a chat as a stream; `usage` says whether the request asked for it."""
    envelope = {**_envelope("chatcmpl-1", "chat.completion.chunk", model), "service_tier": "default"}

    def chunk(delta: Json, finish: str | None = None, text: str = "") -> Piece:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return event({**envelope, "choices": choices, **({"usage": None} if usage else {})}, text=text)

    def pieces() -> Iterator[Piece]:
        yield chunk({"role": "assistant", "content": "", "refusal": None})
        for word in words(used.text_output):
            yield chunk({"content": word}, text=word)
        yield chunk({}, "stop")
        if usage:
            yield event({**envelope, "choices": [], "usage": chat_usage(used)})
        yield DONE

    return stream(pieces())


def completion(used: Used, model: str) -> Wire:
    """Answer a completion."""
    choice = {"index": 0, "text": "".join(words(used.text_output)), "logprobs": None, "finish_reason": "stop"}
    return document({**_envelope("cmpl-1", "text_completion", model), "choices": [choice], "usage": chat_usage(used)})


def completion_stream(used: Used, model: str, *, usage: bool) -> Wire:
    """Answer a completion as a stream."""
    envelope = _envelope("cmpl-1", "text_completion", model)

    def pieces() -> Iterator[Piece]:
        for word in words(used.text_output):
            yield event({**envelope, "choices": [{"index": 0, "text": word, "finish_reason": None}]}, text=word)
        yield event({**envelope, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
        if usage:
            yield event({**envelope, "choices": [], "usage": chat_usage(used)})
        yield DONE

    return stream(pieces())


def embedding(used: Used, model: str) -> Wire:
    """Answer with one vector."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125, 1.0]}]
    usage = {"prompt_tokens": used.input, "total_tokens": used.input}
    return document({"object": "list", "data": data, "model": model, "usage": usage})


def response_usage(used: Used) -> Json:
    """Count as Responses do."""
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_output},
        "total_tokens": used.input + used.output,
    }


def response(used: Used, model: str) -> Wire:
    """Answer a request of the Responses API."""
    return document(_response(used, model))


def response_promise(model: str, id_: str) -> Wire:
    """Promise the answer of a background response, to be asked for by its id."""
    promise = {"id": id_, "status": "queued", "background": True, "output": [], "usage": None}
    return document({**_response_head(model), **promise})


def response_result(used: Used, model: str, id_: str) -> Wire:
    """Give the answer that was promised."""
    return document({**_response(used, model), "id": id_, "background": True})


def response_stream(used: Used, model: str) -> Wire:
    """Answer a request of the Responses API as a stream: usage stands in its last event, asked for or not."""
    head = {**_response_head(model), "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    numbers = iter(range(1_000))

    def named(kind: str, fields: Json, text: str = "") -> Piece:
        return event({"type": kind, "sequence_number": next(numbers), **fields}, text=text, named=True)

    def pieces() -> Iterator[Piece]:
        yield named("response.created", {"response": head})
        yield named("response.in_progress", {"response": head})
        for word in words(used.text_output):
            yield named("response.output_text.delta", {**place, "delta": word}, word)
        whole = _response(used, model)
        yield named("response.completed", {"response": whole})

    return stream(pieces())


def response_deleted() -> Wire:
    """Confirm that a response is gone."""
    return document({"id": "resp_1", "object": "response", "deleted": True})


def input_tokens(used: Used) -> Wire:
    """Tell how many tokens a request would have."""
    return document({"object": "response.input_tokens", "input_tokens": used.input})


def moderation(model: str) -> Wire:
    """Judge a text, which is answered without usage."""
    scores = {"violence": 0.01, "self-harm": 0.0}
    result = {"flagged": False, "categories": dict.fromkeys(scores, False), "category_scores": scores}
    return document({"id": "modr-1", "model": model, "results": [result]})


def model_list(names: list[str]) -> Wire:
    """List models."""
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "tests"} for name in names]
    return document({"object": "list", "data": data})


def _envelope(id_: str, kind: str, model: str) -> Json:
    return {"id": id_, "object": kind, "created": CREATED, "model": model}


def _response_head(model: str) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": CREATED,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def _response(used: Used, model: str) -> Json:
    text = {"type": "output_text", "text": "".join(words(used.text_output)), "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    return {**_response_head(model), "status": "completed", "output": [message], "usage": response_usage(used)}
