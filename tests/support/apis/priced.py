"""Calls whose price does not follow from the model that they ask for and its tokens alone, and odd answers."""

from __future__ import annotations

from dataclasses import replace

from extauthz.domain.endpoints import Api, Endpoint
from tests.support.apis import anthropic_messages as anthropic
from tests.support.apis import further
from tests.support.apis import gemini_content as gemini
from tests.support.apis import openai_media as media
from tests.support.apis import openai_text as text
from tests.support.apis.asking import PROMPT, posted
from tests.support.apis.prices import LONG, PRICES, SHORT, at
from tests.support.apis.sample import Due, Sample, constant
from tests.support.apis.samples import CONTENT, CONTENTS, MESSAGES
from tests.support.apis.used import Fields, Used
from tests.support.apis.wire import Wire

PLAIN = Used(text_input=31, text_output=20)
SHORT_USED = Used(text_input=32_000, text_output=20)
LONG_USED = Used(text_input=200_001, text_output=20)


def chat_of(name: str, asked: str, used: Used, wire: Wire, by: Fields | None = None) -> Sample:
    """Give a chat that asks for a model."""
    asking = posted("/v1/chat/completions", model=asked, messages=MESSAGES)
    return Sample(name, Endpoint.CHAT_COMPLETIONS, asking, constant(wire), asked, used, by=by)


STEPPED = PRICES["stepped"]
SEARCHED = Used(text_input=31, text_output=23, searches=3, requests=1)

# What decides the price besides the model that was asked for: length, tier, who answered, and what is paid by the call.
PRICED = (
    chat_of("short chat", "stepped", PLAIN, text.chat(PLAIN, "stepped")),
    chat_of("long chat", "stepped", LONG_USED, text.chat(LONG_USED, "stepped"), by=at("_above_200k_tokens", STEPPED)),
    chat_of(
        "priority chat",
        "stepped",
        PLAIN,
        text.chat(PLAIN, "stepped", tier="priority"),
        by=at("_priority", STEPPED),
    ),
    chat_of("flex chat", "stepped", PLAIN, text.chat(PLAIN, "stepped", tier="flex"), by=at("_flex", STEPPED)),
    chat_of("chat of an unknown tier", "stepped", PLAIN, text.chat(PLAIN, "stepped", tier="gold"), by=STEPPED),
    chat_of("tiered, short", "tiered", SHORT_USED, text.chat(SHORT_USED, "tiered"), by=SHORT),
    chat_of(
        "tiered, long",
        "tiered",
        replace(SHORT_USED, text_input=32_001),
        text.chat(replace(SHORT_USED, text_input=32_001), "tiered"),
        by=LONG,
    ),
    chat_of("answered by another", "omni", PLAIN, text.chat(PLAIN, "stepped"), by=STEPPED),
    chat_of("answered by nobody known", "stepped", PLAIN, text.chat(PLAIN, "stepped-2026-01-01"), by=STEPPED),
    chat_of("answered by a free one", "stepped", PLAIN, text.chat(PLAIN, "local-llama"), by=STEPPED),
    Sample(
        "pictures that say nothing of tokens",
        Endpoint.IMAGE_GENERATIONS,
        posted("/v1/images/generations", model="sketcher", prompt=PROMPT, n=2),
        constant(media.images(Used(images=2), usage=False)),
        "sketcher",
        due=Due.HELD,
    ),
    Sample(
        "fewer pictures than were asked for",
        Endpoint.IMAGE_GENERATIONS,
        posted("/v1/images/generations", model="painter", prompt=PROMPT, n=3),
        constant(media.images(Used(images=2), usage=False)),
        "painter",
        Used(images=2),
    ),
    Sample(
        "ranking that says nothing of tokens",
        Endpoint.RERANK,
        posted("/v1/rerank", model="token-ranker", query=PROMPT, documents=["One.", "Two."]),
        constant(further.ranking(Used(queries=1))),
        "token-ranker",
        due=Due.HELD,
    ),
    Sample(
        "a stream that is an array",
        Endpoint.GENERATE_CONTENT,
        posted("/v1beta/models/omni:streamGenerateContent", contents=CONTENTS),
        constant(gemini.content_array(CONTENT, "omni")),
        "omni",
        CONTENT,
        api=Api.GEMINI,
    ),
    Sample(
        "message that searched",
        Endpoint.MESSAGES,
        posted("/v1/messages", model="toll", max_tokens=64, messages=MESSAGES),
        constant(anthropic.message(SEARCHED, "toll")),
        "toll",
        SEARCHED,
        api=Api.ANTHROPIC,
    ),
)
# Free as it was asked for, and paid as it was answered: nothing can be held for it.
UNFORESEEN = chat_of("free, answered by a paid one", "local-llama", PLAIN, text.chat(PLAIN, "stepped"), by=STEPPED)
