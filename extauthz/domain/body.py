"""What the JSON body of an inference request asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """What an inference request asks for, read from its body.

    `models` are all that it names (usually one), `fallbacks` those that it names in case these fail.
    `output_tokens_max` is the client's own maximum, None when it sets none. `choices` is how many answers it wants of
    each prompt, times the prompts. `text_bytes` are the bytes of all text that the model will read, `images` the
    pictures in data URLs, whose bytes do not count as text.

    `stream_options` is None when the client already asks for usage in its stream (or does not stream); otherwise the
    JSON object that the upstream must get so that it reports usage: the client's own options with include_usage true.
    """

    models: tuple[str, ...]
    fallbacks: tuple[str, ...] = ()
    stream: bool = False
    output_tokens_max: int | None = None
    choices: int = 1
    end_user: str | None = None
    text_bytes: int = 0
    images: int = 0
    stream_options: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A body that is refused, with the reason for the client."""

    message: str
