"""A call of every kind."""

from __future__ import annotations

from dataclasses import replace

from extauthz.domain.endpoints import Api, Endpoint
from tests.support.apis import anthropic_messages as anthropic
from tests.support.apis import further
from tests.support.apis import gemini_content as gemini
from tests.support.apis import openai_media as media
from tests.support.apis import openai_text as text
from tests.support.apis.asking import PROMPT, posted, read, uploaded
from tests.support.apis.media_samples import MEDIA
from tests.support.apis.sample import Due, Sample, constant, id_of
from tests.support.apis.used import Used
from tests.support.apis.wire import document

# No two counts are alike, so that none can stand for another unnoticed.
CHAT = Used(
    text_input=31, cached_input=7, audio_input=5, image_input=3, text_output=20, reasoning_output=11, audio_output=4
)
TEXT = Used(text_input=31, cached_input=7, text_output=20, reasoning_output=11)
MESSAGE = Used(text_input=31, cached_input=7, written_input=13, written_1h_input=17, text_output=23)
CONTENT = Used(text_input=31, cached_input=7, audio_input=5, text_output=19, reasoning_output=11)
VECTOR = Used(text_input=41)
RANKED = Used(queries=1)
# Two turns of a conversation.
TURNS = (
    Used(text_input=11, cached_input=2, audio_input=40, cached_audio_input=6, text_output=8, audio_output=30),
    Used(text_input=13, cached_input=5, audio_input=70, cached_audio_input=9, text_output=6, audio_output=21),
)


def told_by_message(pieces: int) -> Used:
    """Read usage off the beginning of Anthropic's stream: all of the input, and a token."""
    return replace(MESSAGE, text_output=1) if pieces else Used()


def told_by_content(pieces: int) -> Used:
    """Read usage off the beginning of Google's stream: each event says how far it is."""
    return replace(CONTENT, text_output=pieces) if pieces else Used()


MESSAGES = [{"role": "user", "content": PROMPT}]
CONTENTS = [{"role": "user", "parts": [{"text": PROMPT}]}]

TEXTS = (
    Sample(
        "chat",
        Endpoint.CHAT_COMPLETIONS,
        posted("/v1/chat/completions", model="omni", messages=MESSAGES),
        constant(text.chat(CHAT, "omni")),
        "omni",
        CHAT,
    ),
    Sample(
        "chat stream",
        Endpoint.CHAT_COMPLETIONS,
        posted("/v1/chat/completions", model="omni", messages=MESSAGES, stream=True),
        lambda request: text.chat_stream(CHAT, "omni", usage=request.include_usage),
        "omni",
        CHAT,
        streamed=True,
    ),
    Sample(
        "completion",
        Endpoint.COMPLETIONS,
        posted("/v1/completions", model="omni", prompt=PROMPT),
        constant(text.completion(TEXT, "omni")),
        "omni",
        TEXT,
    ),
    Sample(
        "completion stream",
        Endpoint.COMPLETIONS,
        posted("/v1/completions", model="omni", prompt=PROMPT, stream=True),
        lambda request: text.completion_stream(TEXT, "omni", usage=request.include_usage),
        "omni",
        TEXT,
        streamed=True,
    ),
    Sample(
        "embedding",
        Endpoint.EMBEDDINGS,
        posted("/v1/embeddings", model="vector", input=PROMPT),
        constant(text.embedding(VECTOR, "vector")),
        "vector",
        VECTOR,
    ),
    Sample(
        "response",
        Endpoint.RESPONSES,
        posted("/v1/responses", model="omni", input=PROMPT),
        constant(text.response(TEXT, "omni")),
        "omni",
        TEXT,
    ),
    Sample(
        "response stream",
        Endpoint.RESPONSES,
        posted("/v1/responses", model="omni", input=PROMPT, stream=True),
        constant(text.response_stream(TEXT, "omni")),
        "omni",
        TEXT,
        streamed=True,
    ),
    Sample(
        "background response",
        Endpoint.RESPONSES,
        posted("/v1/responses", model="omni", input=PROMPT, background=True),
        lambda request: text.response_promise("omni", id_of(request)),
        "omni",
        TEXT,
        Due.LATER,
    ),
    Sample(
        "message",
        Endpoint.MESSAGES,
        posted("/v1/messages", model="omni", max_tokens=64, messages=MESSAGES),
        constant(anthropic.message(MESSAGE, "omni")),
        "omni",
        MESSAGE,
        api=Api.ANTHROPIC,
    ),
    Sample(
        "message stream",
        Endpoint.MESSAGES,
        posted("/v1/messages", model="omni", max_tokens=64, messages=MESSAGES, stream=True),
        constant(anthropic.message_stream(MESSAGE, "omni")),
        "omni",
        MESSAGE,
        api=Api.ANTHROPIC,
        streamed=True,
        told=told_by_message,
    ),
    Sample(
        "content",
        Endpoint.GENERATE_CONTENT,
        posted("/v1beta/models/omni:generateContent", contents=CONTENTS),
        constant(gemini.content(CONTENT, "omni")),
        "omni",
        CONTENT,
        api=Api.GEMINI,
    ),
    Sample(
        "content stream",
        Endpoint.GENERATE_CONTENT,
        posted("/v1beta/models/omni:streamGenerateContent?alt=sse", contents=CONTENTS),
        constant(gemini.content_stream(CONTENT, "omni")),
        "omni",
        CONTENT,
        api=Api.GEMINI,
        streamed=True,
        told=told_by_content,
    ),
    Sample(
        "content vector",
        Endpoint.EMBEDDINGS,
        posted("/v1beta/models/vector:embedContent", content=CONTENTS[0]),
        constant(document({"embedding": {"values": [0.25, -0.5]}})),
        "vector",
        due=Due.HELD,
        api=Api.GEMINI,
    ),
    Sample(
        "content vectors",
        Endpoint.EMBEDDINGS,
        posted("/v1/models/vector:batchEmbedContents", requests=[{"model": "models/vector", "content": CONTENTS[0]}]),
        constant(document({"embeddings": [{"values": [0.25, -0.5]}]})),
        "vector",
        due=Due.HELD,
        api=Api.GEMINI,
    ),
    Sample(
        "moderation",
        Endpoint.MODERATIONS,
        posted("/v1/moderations", model="omni", input=PROMPT),
        constant(text.moderation("omni")),
        "omni",
        due=Due.HELD,
    ),
)

OTHERS = (
    Sample(
        "ranking",
        Endpoint.RERANK,
        posted("/v1/rerank", model="ranker", query=PROMPT, documents=["One.", "Two."]),
        constant(further.ranking(RANKED)),
        "ranker",
        RANKED,
    ),
    Sample(
        "ranking by tokens",
        Endpoint.RERANK,
        posted("/v1/rerank", model="token-ranker", query=PROMPT, documents=["One.", "Two."]),
        constant(further.token_ranking(VECTOR)),
        "token-ranker",
        VECTOR,
    ),
    Sample(
        "reading",
        Endpoint.OCR,
        posted("/v1/ocr", model="omni", document={"type": "document_url", "document_url": "https://example.com/a"}),
        constant(further.pages("omni", 3)),
        "omni",
        due=Due.FLAT,
    ),
    Sample(
        "search",
        Endpoint.SEARCH,
        posted("/v1/search/a-tool", query=PROMPT),
        constant(further.search()),
        due=Due.FLAT,
    ),
    Sample(
        "batch",
        Endpoint.BATCHES,
        posted("/v1/batches", input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"),
        lambda request: media.batch(id_=id_of(request)),
        due=Due.LATER,
    ),
    Sample(
        "message batch",
        Endpoint.BATCHES,
        posted("/v1/messages/batches", requests=[{"custom_id": "1", "params": {"model": "omni", "max_tokens": 9}}]),
        lambda request: document({"id": id_of(request), "type": "message_batch", "processing_status": "in_progress"}),
        due=Due.LATER,
        api=Api.ANTHROPIC,
    ),
    Sample(
        "run",
        Endpoint.RUNS,
        posted("/v1/threads/runs", assistant_id="asst_1"),
        lambda request: document({"id": id_of(request), "object": "thread.run", "status": "queued", "usage": None}),
        due=Due.LATER,
    ),
    Sample(
        "run stream",
        Endpoint.RUNS,
        posted("/v1/threads/thread_1/runs", assistant_id="asst_1", stream=True),
        constant(further.run_stream(TEXT, "omni")),
        "omni",
        TEXT,
        streamed=True,
    ),
    Sample(
        "opaque",
        Endpoint.OPAQUE,
        posted("/v1/something/new", prompt=PROMPT),
        constant(document({"answer": 42})),
        due=Due.FLAT,
    ),
    Sample(
        "local chat",
        Endpoint.OPAQUE,
        posted("/api/chat", model="omni", messages=MESSAGES, stream=True),
        constant(further.local_chat(TEXT, "omni")),
        "omni",
        due=Due.HELD,
        streamed=True,
    ),
)

FREE = (
    Sample(
        "file",
        Endpoint.FILES,
        uploaded("/v1/files", file="file", purpose="batch"),
        constant(media.file()),
        due=Due.NOTHING,
    ),
    Sample(
        "count of a response",
        Endpoint.COUNT_TOKENS,
        posted("/v1/responses/input_tokens", model="omni", input=PROMPT),
        constant(text.input_tokens(TEXT)),
        due=Due.NOTHING,
    ),
    Sample(
        "count of a message",
        Endpoint.COUNT_TOKENS,
        posted("/v1/messages/count_tokens", model="omni", messages=MESSAGES),
        constant(anthropic.token_count(MESSAGE)),
        due=Due.NOTHING,
        api=Api.ANTHROPIC,
    ),
    Sample(
        "count of content",
        Endpoint.COUNT_TOKENS,
        posted("/v1beta/models/omni:countTokens", contents=CONTENTS),
        constant(gemini.token_count(CONTENT)),
        due=Due.NOTHING,
        api=Api.GEMINI,
    ),
    Sample(
        "look at a response",
        Endpoint.RESULTS,
        read("/v1/responses/resp_1"),
        constant(text.response(TEXT, "omni")),
        due=Due.NOTHING,
    ),
    Sample(
        "look at a message batch",
        Endpoint.RESULTS,
        read("/v1/messages/batches/msgbatch_1"),
        constant(document({"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended"})),
        due=Due.NOTHING,
        api=Api.ANTHROPIC,
    ),
    Sample(
        "look at a file",
        Endpoint.UNBILLED,
        read("/v1/files/file-1"),
        constant(media.file()),
        due=Due.NOTHING,
    ),
    Sample(
        "list of message batches",
        Endpoint.UNBILLED,
        read("/v1/messages/batches"),
        constant(document({"data": [], "has_more": False})),
        due=Due.NOTHING,
        api=Api.ANTHROPIC,
    ),
)

SAMPLES = (*TEXTS, *MEDIA, *OTHERS, *FREE)
