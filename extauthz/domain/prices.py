"""What tokens cost, and how many were used: the values that pricing and settlement share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per token, exact.

    A field that is None costs what its plain kind costs: cached input as input, reasoning as output.
    """

    input: Decimal
    output: Decimal
    cache_read_input: Decimal | None = None
    cache_creation_input: Decimal | None = None
    reasoning_output: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one answer.

    As in OpenAI's `usage`, `input_tokens` includes the cached ones and `output_tokens` the reasoning ones.
    """

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to use: tokens, the cost of them, and the most that it can cost at all (nano-USD).

    `reasoning_output_tokens` are those of `output_tokens` that the model's answers usually spend unseen.
    """

    input_tokens: int
    output_tokens: int
    cost_nanousd: int
    cost_nanousd_max: int
    reasoning_output_tokens: int = 0
