"""What an answer cost: tokens and units times prices, exact until the total is rounded once, up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Context, Decimal, localcontext

from extauthz.domain.money import cost_nanousd
from extauthz.domain.prices import NO_UNITS, ZERO, Estimate, Prices, Rates, Units, Usage

# Prices have at most 60 decimals (config/source.py) and are below 1000 USD, so nothing is rounded in between; should
# it ever be, then up.
EXACT = Context(prec=120, rounding=ROUND_CEILING)

# English text has about four bytes a token, code and most other languages fewer.
BYTES_PER_TOKEN = 3

# Lengths of input with rates of their own; of more, the longest share their dearest rates.
LENGTHS_MAX = 32

# What a kind of token costs that has no rate of its own: the first of these that is there.
STANDS_FOR = {
    "cache_read_input": ("input",),
    "cache_creation_input": ("input",),
    "cache_creation_1h_input": ("cache_creation_input", "input"),
    "cache_read_audio_input": ("cache_read_input", "audio_input", "input"),
    "audio_input": ("input",),
    "image_input": ("input",),
    "reasoning_output": ("output",),
    "audio_output": ("output",),
    "image_output": ("output",),
}
INPUT_KINDS = (
    "input",
    "cache_read_input",
    "cache_creation_input",
    "cache_creation_1h_input",
    "cache_read_audio_input",
    "audio_input",
    "image_input",
)
OUTPUT_KINDS = ("output", "reasoning_output", "audio_output", "image_output")
# What a call as a whole may be paid by; searches come on top of its tokens.
CALL_KINDS = ("per_image", "per_second", "per_character", "per_query", "per_request")
UNIT_KINDS = (*CALL_KINDS, "per_search")
KINDS = (*INPUT_KINDS, *OUTPUT_KINDS, *UNIT_KINDS)


def cost(prices: Prices, usage: Usage) -> int:
    """Compute what a usage costs, in nano-USD, at the base tier (see `at_tier`).

    Every token is paid once, as the most special kind that it is reported as. An upstream that reports more of a part
    than of the whole counts it beside the whole, as xAI does with reasoning: both are then what was used. Negative
    counts are taken as 0. Above a length of input, all of the request costs other rates.
    """
    tokens = _tokens(usage)
    input_tokens = sum(tokens.get(kind, 0) for kind in INPUT_KINDS) if prices.above else 0
    with localcontext(EXACT):
        rates = at_length(prices, input_tokens)
        units = {kind: count * rate(rates, kind) for kind, count in _units(usage.units).items() if count}
        if (prices.guessed_input or prices.guessed_output) and any(units.get(kind) for kind in CALL_KINDS):
            guessed = (INPUT_KINDS if prices.guessed_input else ()) + (OUTPUT_KINDS if prices.guessed_output else ())
            tokens |= dict.fromkeys(guessed, 0)
        total = sum(units.values(), ZERO)
        for kind, count in tokens.items():
            if count:
                total += count * rate(rates, kind)
        return cost_nanousd(total)


def _units(units: Units) -> dict[str, int | Decimal]:
    if units is NO_UNITS or units == NO_UNITS:
        return {"per_request": 1}
    return {
        "per_image": max(units.images, 0),
        "per_second": Decimal(max(units.milliseconds, 0)).scaleb(-3),
        "per_character": max(units.characters, 0),
        "per_query": max(units.queries, 0),
        "per_search": max(units.searches, 0),
        "per_request": 1,
    }


def _tokens(usage: Usage) -> dict[str, int]:
    """Divide the tokens of an answer among the kinds that they are paid as; a kind that is left out has none."""
    if usage.plain:
        return {"input": max(usage.input_tokens, 0), "output": max(usage.output_tokens, 0)}
    cached, cached_audio = max(usage.cache_read_input_tokens, 0), max(usage.cache_read_audio_input_tokens, 0)
    hour = max(usage.cache_creation_1h_input_tokens, 0)
    minutes = _rest(usage.cache_creation_input_tokens, hour)
    audio, image = _rest(usage.audio_input_tokens, cached_audio), max(usage.image_input_tokens, 0)
    cached = _rest(cached, cached_audio)
    stored, fresh = cached + cached_audio + minutes + hour, audio + image
    whole = max(usage.input_tokens, 0)
    if stored <= whole and fresh <= whole:
        # What is more than the whole is both, sound or pictures, and in the cache: it is paid there.
        both = max(0, stored + fresh - whole)
        audio_too = min(both, audio)
        audio, image = audio - audio_too, image - (both - audio_too)
        moved = min(audio_too, cached)
        cached, cached_audio = cached - moved, cached_audio + moved
    reasoning, spoken = max(usage.reasoning_output_tokens, 0), max(usage.audio_output_tokens, 0)
    drawn = max(usage.image_output_tokens, 0)
    return {
        "input": _rest(whole, cached + cached_audio + minutes + hour + audio + image),
        "cache_read_input": cached,
        "cache_read_audio_input": cached_audio,
        "cache_creation_input": minutes,
        "cache_creation_1h_input": hour,
        "audio_input": audio,
        "image_input": image,
        "output": _rest(usage.output_tokens, reasoning + spoken + drawn),
        "reasoning_output": reasoning,
        "audio_output": spoken,
        "image_output": drawn,
    }


def _rest(whole: int, parts: int) -> int:
    return whole - parts if parts <= whole else max(whole, 0)


def price_or(price: Decimal | None, plain: Decimal) -> Decimal:
    """Give the price of a special kind of token, or of the plain kind where it has none of its own."""
    return plain if price is None else price


def own_rate(rates: Rates, kind: str) -> Decimal | None:
    """Give the rate that a kind has of its own, None without one."""
    price: Decimal | None = getattr(rates, kind)
    return price


def rate(rates: Rates, kind: str) -> Decimal:
    """Give what one of a kind costs, in USD: its own rate, or that of the plainer kind that it is counted as."""
    own: Decimal | None = getattr(rates, kind)
    if own is not None:
        return own
    for name in STANDS_FOR.get(kind, ()):
        price = own_rate(rates, name)
        if price is not None:
            return price
    return ZERO


def at_length(prices: Prices, input_tokens: int) -> Rates:
    """Give the rates of a request whose input has that many tokens."""
    rates: Rates = prices
    for tokens, longer in prices.above:
        if input_tokens > tokens:
            rates = longer
    return rates


def at_tier(prices: Prices, tier: str | None) -> Prices:
    """Give the prices of a tier of service as an answer names it; those of the base for one that has none."""
    return dict(prices.tiers).get((tier or "").strip().lower(), prices) if prices.tiers else prices


def dearest_kind(prices: Prices, tier: str | None = None) -> Prices:
    """Price every token of input as the dearest kind of input at any length, every one of output likewise.

    `tier` is the one that the request asks for; units cost the most that they can.
    """
    of_tier = at_tier(prices, tier)
    lengths = [of_tier, *(rates for _, rates in of_tier.above)]
    most = {kind: max(rate(rates, kind) for rates in lengths) for kind in UNIT_KINDS}
    most["input"] = max(rate(rates, kind) for rates in lengths for kind in INPUT_KINDS)
    most["output"] = max(rate(rates, kind) for rates in lengths for kind in OUTPUT_KINDS)
    return Prices(**most, above=(), tiers=(), guessed_input=False, guessed_output=False)


def dearest(all_prices: Sequence[Prices]) -> Prices:
    """Take the highest price of each kind, at each length and tier. Raises ValueError when there is nothing to choose.

    A kind that has a rate of its own nowhere has none in the result.
    """
    all_prices = [*dict.fromkeys(all_prices)]
    if len(all_prices) == 1 and len(all_prices[0].above) <= LENGTHS_MAX:
        return all_prices[0]
    tiers = dict.fromkeys(tier for prices in all_prices for tier, _ in prices.tiers)
    return _dearest_base(
        all_prices,
        tuple((tier, _dearest_base([at_tier(prices, tier) for prices in all_prices])) for tier in tiers),
    )


def _dearest_base(all_prices: Sequence[Prices], tiers: tuple[tuple[str, Prices], ...] = ()) -> Prices:
    lengths = sorted({tokens for prices in all_prices for tokens, _ in prices.above})
    # A rate begins to count with the token after the length.
    longer = [(tokens, [at_length(prices, tokens + 1) for prices in all_prices]) for tokens in lengths]
    if len(longer) > LENGTHS_MAX:
        last = [rates for _, of_length in longer[LENGTHS_MAX - 1 :] for rates in of_length]
        longer[LENGTHS_MAX - 1 :] = [(lengths[LENGTHS_MAX - 1], last)]
    return Prices(
        **_dearest_rates(all_prices),
        above=tuple((tokens, Rates(**_dearest_rates(of_length))) for tokens, of_length in longer),
        tiers=tiers,
        guessed_input=all(prices.guessed_input for prices in all_prices),
        guessed_output=all(prices.guessed_output for prices in all_prices),
    )


def _dearest_rates(all_rates: Sequence[Rates]) -> dict[str, Decimal]:
    rates = {"input": max(each.input for each in all_rates), "output": max(each.output for each in all_rates)}
    for kind in KINDS:
        own = any(own_rate(each, kind) is not None for each in all_rates)
        if kind in rates or not (own or len(STANDS_FOR.get(kind, ())) > 1):
            continue
        most = max(rate(each, kind) for each in all_rates)
        # What stands for a kind here may be another model's, and cheaper.
        if own or most > rate(Rates(**rates), kind):
            rates[kind] = most
    return rates


def delivered_usage(estimate: Estimate, *, events: int, text_bytes: int, reasoning_bytes: int = 0) -> Usage:
    """Tell what a stream that broke off had used: the input and the units as estimated, and what came of the output.

    An event carries at least one token, and much text in few events is counted by its bytes. Reasoning comes first and
    often unseen: what the model usually spends on it is added, less the reasoning that was among the text.
    """
    unseen = max(0, estimate.reasoning_output_tokens - tokens_of(reasoning_bytes))
    return Usage(
        input_tokens=estimate.input_tokens,
        output_tokens=max(events, tokens_of(text_bytes), 0) + unseen,
        reasoning_output_tokens=unseen,
        units=estimate.units,
    )


def tokens_of(text_bytes: int) -> int:
    """Guess how many tokens a text of that many bytes has, rounded up."""
    return -(-text_bytes // BYTES_PER_TOKEN)
