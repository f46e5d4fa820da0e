"""What an answer cost: tokens times prices, exact until the total is rounded once, up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Context, Decimal, localcontext

from extauthz.domain.money import cost_nanousd
from extauthz.domain.prices import Estimate, Prices, Usage

# Prices have at most 60 decimals (config/source.py) and are below 1000 USD, so nothing is rounded in between; should
# it ever be, then up.
EXACT = Context(prec=120, rounding=ROUND_CEILING)

# English text has about four bytes a token, code and most other languages fewer.
BYTES_PER_TOKEN = 3


def cost(prices: Prices, usage: Usage) -> int:
    """Compute what a usage costs, in nano-USD.

    Cached tokens are a part of the input and reasoning tokens a part of the output. An upstream that reports more of
    a part than of the whole counts it beside the whole, as xAI does with reasoning: both are then what was used.
    Negative counts are taken as 0.
    """
    cache_read = max(usage.cache_read_input_tokens, 0)
    cache_creation = max(usage.cache_creation_input_tokens, 0)
    plain_input = _rest(usage.input_tokens, cache_read + cache_creation)
    reasoning = max(usage.reasoning_output_tokens, 0)
    plain_output = _rest(usage.output_tokens, reasoning)
    with localcontext(EXACT):
        return cost_nanousd(
            plain_input * prices.input
            + cache_read * price_or(prices.cache_read_input, prices.input)
            + cache_creation * price_or(prices.cache_creation_input, prices.input)
            + plain_output * prices.output
            + reasoning * price_or(prices.reasoning_output, prices.output)
        )


def _rest(whole: int, parts: int) -> int:
    return whole - parts if parts <= whole else max(whole, 0)


def price_or(price: Decimal | None, plain: Decimal) -> Decimal:
    """Give the price of a special kind of token, or of the plain kind where it has none of its own."""
    return plain if price is None else price


def dearest(all_prices: Sequence[Prices]) -> Prices:
    """Take the highest price of each kind. Raises ValueError when there is nothing to choose from."""
    return Prices(
        input=max(prices.input for prices in all_prices),
        output=max(prices.output for prices in all_prices),
        cache_read_input=max(price_or(prices.cache_read_input, prices.input) for prices in all_prices),
        cache_creation_input=max(price_or(prices.cache_creation_input, prices.input) for prices in all_prices),
        reasoning_output=max(price_or(prices.reasoning_output, prices.output) for prices in all_prices),
    )


def delivered_usage(estimate: Estimate, *, events: int, text_bytes: int, reasoning_bytes: int = 0) -> Usage:
    """Tell what a stream that broke off had used: the input as estimated, and what came through of the output.

    An event carries at least one token, and much text in few events is counted by its bytes. Reasoning comes first and
    often unseen: what the model usually spends on it is added, less the reasoning that was among the text.
    """
    unseen = max(0, estimate.reasoning_output_tokens - tokens_of(reasoning_bytes))
    return Usage(
        input_tokens=estimate.input_tokens,
        output_tokens=max(events, tokens_of(text_bytes), 0) + unseen,
        reasoning_output_tokens=unseen,
    )


def tokens_of(text_bytes: int) -> int:
    """Guess how many tokens a text of that many bytes has, rounded up."""
    return -(-text_bytes // BYTES_PER_TOKEN)
