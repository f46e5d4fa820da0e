"""What answers cost, and how much of what was used: the values that pricing and settlement share."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from extauthz.domain.budgets import Spent
from extauthz.domain.value import value

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per token or unit, exact.

    A field that is None costs what its plain kind costs: cached input, sound and pictures as input, cached sound as
    cached input, reasoning as output, a cache entry of an hour as one of five minutes. What is no token costs nothing
    where it has no rate.
    """

    input: Decimal
    output: Decimal
    cache_read_input: Decimal | None = None
    cache_creation_input: Decimal | None = None
    reasoning_output: Decimal | None = None
    cache_creation_1h_input: Decimal | None = None
    cache_read_audio_input: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image_input: Decimal | None = None
    image_output: Decimal | None = None
    per_image: Decimal | None = None
    per_second: Decimal | None = None
    per_character: Decimal | None = None
    per_query: Decimal | None = None
    per_search: Decimal | None = None
    per_request: Decimal | None = None


@value
class Units:
    """What is counted of a request or an answer besides tokens.

    `images` are pictures made, `milliseconds` the length of a sound or film, read or made, `characters` those of a text
    read aloud, `queries` what a reranker searched for, `searches` what the upstream looked up in the web.
    """

    images: int = 0
    milliseconds: int = 0
    characters: int = 0
    queries: int = 0
    searches: int = 0


NO_UNITS = Units()


@value
class Usage:
    """Tokens and units of one answer.

    As in OpenAI's `usage`, `input_tokens` includes the cached ones, those of sound and those of pictures, and
    `output_tokens` the reasoning ones. `cache_creation_1h_input_tokens` are a part of `cache_creation_input_tokens`,
    and `cache_read_audio_input_tokens` one of both the cached and the sound.
    """

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    cache_read_audio_input_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    units: Units = NO_UNITS

    @property
    def tokens(self) -> int:
        """All tokens, as budgets in tokens count them: cached ones once, as the input that they are."""
        return self.input_tokens + self.output_tokens

    @property
    def plain(self) -> bool:
        """Whether all of it is text that was read and written, nothing of it cached, seen, heard or thought."""
        return not (
            self.cache_read_input_tokens
            or self.cache_creation_input_tokens
            or self.reasoning_output_tokens
            or self.cache_creation_1h_input_tokens
            or self.cache_read_audio_input_tokens
            or self.audio_input_tokens
            or self.audio_output_tokens
            or self.image_input_tokens
            or self.image_output_tokens
        )


@dataclass(frozen=True, slots=True)
class Prices(Rates):
    """The rates of a model, and the others that it has for long inputs and for tiers of service.

    `above` are the rates of a whole request whose input has more tokens than that, with the shortest first. `tiers` are
    the prices of a named tier of service (`batch`, `flex`, `priority`), which apply where the answer names it.
    `guessed_input` and `guessed_output` where somebody has said what units cost, and nobody what these tokens do: their
    rates are then a guess, for answers that show no unit which costs something.
    """

    above: tuple[tuple[int, Rates], ...] = ()
    tiers: tuple[tuple[str, Prices], ...] = ()
    guessed_input: bool = False
    guessed_output: bool = False


@value
class Estimate:
    """What a request is expected to use, the cost of that, and the most that it can cost at all (nano-USD).

    `reasoning_output_tokens` are those of `output_tokens` that the model's answers usually spend unseen. `units` are
    what the request asks for besides tokens: they are known, not guessed. `flat_nanousd` is what it costs at least
    when its answer shows nothing, where nobody can estimate it; 0 elsewhere. `tokens_max` are the most that it can use,
    known where it is estimated alone: a hold does not carry them.
    """

    input_tokens: int
    output_tokens: int
    cost_nanousd: int
    cost_nanousd_max: int
    reasoning_output_tokens: int = 0
    units: Units = NO_UNITS
    flat_nanousd: int = 0
    tokens_max: int = field(default=0, compare=False)

    @property
    def most(self) -> Spent:
        """The most that it can use."""
        return Spent(self.cost_nanousd_max, max(self.tokens_max, self.input_tokens + self.output_tokens), requests=1)

    @property
    def spent(self) -> Spent:
        """What is booked of a request whose answer is taken to be as expected."""
        return Spent(self.cost_nanousd, self.input_tokens + self.output_tokens, requests=1)
