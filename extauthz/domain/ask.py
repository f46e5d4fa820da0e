"""What an inference request asks for, as a value, and the refusal of one that cannot be read."""

from __future__ import annotations

from extauthz.domain.prices import NO_UNITS, Units
from extauthz.domain.value import value

OUTPUT_TOKENS_MAX = 2**31
CHOICES_MAX = 128


@value
class Ask:
    """What an inference request asks for, read from its body.

    `models` are all that it names (usually one; none when only the path does), `fallbacks` those that it names in case
    these fail. `output_tokens_max` is the client's own maximum, None when it sets none. `choices` is how many answers
    it wants of each prompt, times the prompts, times the models. `text_bytes` are the bytes of all text that the model
    will read, `images` the pictures, sounds and files, whose bytes do not count as text, and `file_bytes` those of the
    files of a form. `units` are what it asks for besides tokens. `recalls` says that the model will also read what was
    stored upstream before, `templated` that a prompt which is stored there may name another model, and `guessed` that
    nobody knows whether the call runs the models that it names. Of a `truncated` body all this is what its visible part
    says. `tags` are those that it gives itself.

    `stream_options` is None when the client already asks for usage in its stream (or does not stream); otherwise the
    JSON object that the upstream must get so that it reports usage: the client's own options with include_usage true.
    `service_tier` is the one that it asks for, None when it leaves that open.
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
    units: Units = NO_UNITS
    file_bytes: int = 0
    service_tier: str | None = None
    recalls: bool = False
    templated: bool = False
    guessed: bool = False
    tags: tuple[str, ...] = ()

    @property
    def model(self) -> str | None:
        """The first model that it names, None when it names none."""
        return next(iter(self.models), None)


@value
class Unreadable:
    """A request that is refused because it can be read in no way or in several, with the reason for the client."""

    message: str


class RefusedBodyError(Exception):
    """Carries the sentence of an Unreadable out of the functions that read bodies; it never leaves `read_ask`."""
