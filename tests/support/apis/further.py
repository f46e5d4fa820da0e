"""Answers of further APIs: reranking, reading of documents, searching, and those of a model that runs nearby."""

from __future__ import annotations

from extauthz.demo.answers import words
from tests.support.apis.openai_text import chat_usage
from tests.support.apis.used import Used
from tests.support.apis.wire import DONE, Json, Piece, Wire, document, stream, to_bytes

JSON_LINES = "application/x-ndjson"


def ranking(used: Used) -> Wire:
    """Answer a rerank as Cohere does: counted in units of search."""
    results = [{"index": 1, "relevance_score": 0.98}, {"index": 0, "relevance_score": 0.11}]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": used.queries}}
    return document({"id": "rr-1", "results": results, "meta": meta})


def token_ranking(used: Used) -> Wire:
    """Answer a rerank as those do that count tokens."""
    results = [{"index": 0, "relevance_score": 0.98}]
    usage = {"total_tokens": used.input, "prompt_tokens": used.input}
    return document({"id": "rr-1", "results": results, "usage": usage})


def pages(model: str, count: int) -> Wire:
    """Answer with the text of a document."""
    read = [{"index": index, "markdown": "# Page", "images": []} for index in range(count)]
    return document({"pages": read, "model": model, "usage_info": {"pages_processed": count}})


def search() -> Wire:
    """Answer a search."""
    results = [{"title": "A page", "url": "https://example.com/", "snippet": "Text", "date": None}]
    return document({"object": "search", "results": results})


def run_stream(used: Used, model: str) -> Wire:
    """Answer with the run of a thread, by a model that the assistant has and the request need not name."""
    run = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "model": model}

    def named(kind: str, fields: Json) -> Piece:
        return Piece(f"event: thread.{kind}\ndata: ".encode() + to_bytes(fields) + b"\n\n", event=True)

    deltas = [
        {
            "id": "msg_1",
            "object": "thread.message.delta",
            "delta": {"content": [{"type": "text", "text": {"value": word}}]},
        }
        for word in words(used.text_output)
    ]
    return stream(
        (
            named("run.created", {**run, "status": "queued", "usage": None}),
            *(named("message.delta", delta) for delta in deltas),
            named("run.completed", {**run, "status": "completed", "usage": chat_usage(used)}),
            Piece(b"event: done\n" + DONE.data),
        )
    )


def local_chat(used: Used, model: str) -> Wire:
    """Answer a chat as Ollama does: a line for each piece of text, and the last one counts."""
    head = {"model": model, "created_at": "2026-01-01T00:00:00Z"}
    lines = [
        {**head, "message": {"role": "assistant", "content": word}, "done": False} for word in words(used.text_output)
    ]
    counts = {"prompt_eval_count": used.input, "eval_count": used.output}
    last = {**head, "message": {"role": "assistant", "content": ""}, "done": True, **counts}
    return Wire(tuple(Piece(to_bytes(line) + b"\n") for line in (*lines, last)), JSON_LINES)
