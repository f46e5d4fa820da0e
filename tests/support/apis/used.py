"""What an answer used, and what that costs: counted here by hand, with none of the code that is under test.

Every token is counted once, where the APIs count some of them twice: OpenAI's input includes what was cached, Gemini's
candidates leave out the thoughts. A bill is therefore a plain sum, and each API's own way to say it stands beside its
answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from types import MappingProxyType

NANOUSD = Decimal(10) ** 9


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens and units of one answer, no token twice. Milliseconds are those of a sound or a film."""

    text_input: int = 0
    cached_input: int = 0
    written_input: int = 0
    written_1h_input: int = 0
    audio_input: int = 0
    cached_audio_input: int = 0
    image_input: int = 0
    text_output: int = 0
    reasoning_output: int = 0
    audio_output: int = 0
    image_output: int = 0
    images: int = 0
    heard_milliseconds: int = 0
    made_milliseconds: int = 0
    characters: int = 0
    queries: int = 0
    searches: int = 0
    requests: int = 0

    @property
    def cached(self) -> int:
        """All input that was read from a cache."""
        return self.cached_input + self.cached_audio_input

    @property
    def written(self) -> int:
        """All input that was written to a cache."""
        return self.written_input + self.written_1h_input

    @property
    def audio(self) -> int:
        """All input that was sound, from a cache or not."""
        return self.audio_input + self.cached_audio_input

    @property
    def input(self) -> int:
        """All input."""
        return self.text_input + self.cached + self.written + self.audio_input + self.image_input

    @property
    def output(self) -> int:
        """All output."""
        return self.text_output + self.reasoning_output + self.audio_output + self.image_output


# The field of LiteLLM's price map that each count is paid by.
PRICE_OF: Mapping[str, str] = MappingProxyType(
    {
        "text_input": "input_cost_per_token",
        "cached_input": "cache_read_input_token_cost",
        "written_input": "cache_creation_input_token_cost",
        "written_1h_input": "cache_creation_input_token_cost_above_1hr",
        "audio_input": "input_cost_per_audio_token",
        "cached_audio_input": "cache_read_input_audio_token_cost",
        "image_input": "input_cost_per_image_token",
        "text_output": "output_cost_per_token",
        "reasoning_output": "output_cost_per_reasoning_token",
        "audio_output": "output_cost_per_audio_token",
        "image_output": "output_cost_per_image_token",
        "images": "output_cost_per_image",
        "heard_milliseconds": "input_cost_per_second",
        "made_milliseconds": "output_cost_per_second",
        "characters": "input_cost_per_character",
        "queries": "input_cost_per_query",
        "searches": "search_context_cost_per_query",
        "requests": "input_cost_per_request",
    }
)
PER_THOUSAND = frozenset({"heard_milliseconds", "made_milliseconds"})

Fields = Mapping[str, str]


def bill(used: Used, prices: Fields) -> int:
    """Tell what an answer costs by the price fields of a model, in nano-USD, rounded up once.

    Raises KeyError for a count that the model has no price for, since a test that wants that must say so itself.
    """
    counts = {name: count for name, count in asdict(used).items() if count}
    return nanousd(
        sum(
            (
                Decimal(prices[PRICE_OF[name]]) * count / (1000 if name in PER_THOUSAND else 1)
                for name, count in counts.items()
            ),
            Decimal(0),
        )
    )


def nanousd(usd: Decimal) -> int:
    """Turn USD into nano-USD, rounded up."""
    with localcontext() as context:
        context.prec = 60
        return int((usd * NANOUSD).to_integral_value(ROUND_CEILING))
