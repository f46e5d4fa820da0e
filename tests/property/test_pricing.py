"""Pricing holds for every price and every usage, not only for the examples."""

from decimal import Decimal
from fractions import Fraction
from math import ceil

from hypothesis import assume, given
from hypothesis import strategies as st

from extauthz.domain.body import Ask
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.domain.prices import Prices, Usage
from extauthz.domain.routes import Endpoint
from extauthz.pricing.catalog import Catalog, CatalogSource, Fallbacks, Offer, Reach
from extauthz.pricing.cost import cost
from extauthz.pricing.estimate import estimate

TOKENS = st.integers(0, 10_000_000)
AMOUNTS = st.decimals(min_value=0, max_value=1, allow_nan=False, allow_infinity=False, places=20)
PRICES = st.builds(
    Prices,
    input=AMOUNTS,
    output=AMOUNTS,
    cache_read_input=st.none() | AMOUNTS,
    cache_creation_input=st.none() | AMOUNTS,
    reasoning_output=st.none() | AMOUNTS,
)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
NAMES = ("a", "b", "c", "d", "unknown")


def exact(prices: Prices, usage: Usage) -> Fraction:
    """Compute the cost in nano-USD from the definition, in fractions."""

    def per_token(special: Decimal | None, plain: Decimal) -> Fraction:
        return Fraction(plain if special is None else special)

    def plain(whole: int, parts: int) -> int:
        """Leave out the parts of a whole; parts that are more than it stand beside it."""
        return whole if parts > whole else whole - parts

    cached = usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    return 10**9 * (
        plain(usage.input_tokens, cached) * Fraction(prices.input)
        + usage.cache_read_input_tokens * per_token(prices.cache_read_input, prices.input)
        + usage.cache_creation_input_tokens * per_token(prices.cache_creation_input, prices.input)
        + plain(usage.output_tokens, usage.reasoning_output_tokens) * Fraction(prices.output)
        + usage.reasoning_output_tokens * per_token(prices.reasoning_output, prices.output)
    )


@given(PRICES, USAGES)
def test_cost_is_exact_and_rounded_up_once(prices: Prices, usage: Usage) -> None:
    """The cost is the exact sum, rounded up to whole nano-USD, at most what one counter holds."""
    assert min(ceil(exact(prices, usage)), AMOUNT_NANOUSD_MAX) == cost(prices, usage)


@given(PRICES, USAGES, TOKENS, TOKENS)
def test_cost_never_falls_with_more_tokens(prices: Prices, usage: Usage, more_input: int, more_output: int) -> None:
    """More input or output costs as much or more, as long as cached and reasoning tokens are parts of them."""
    assume(usage.cache_read_input_tokens + usage.cache_creation_input_tokens <= usage.input_tokens)
    assume(usage.reasoning_output_tokens <= usage.output_tokens)
    more = Usage(
        usage.input_tokens + more_input,
        usage.output_tokens + more_output,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.reasoning_output_tokens,
    )

    assert 0 <= cost(prices, usage) <= cost(prices, more)


@st.composite
def bounded_requests(draw: st.DrawFn) -> tuple[Ask, Reach, Usage]:
    """Draw a request, what it reaches, and a usage that stays within the request's bytes and maxima."""
    context, model_max, own_max = (draw(st.none() | st.integers(1, 200_000)) for _ in range(3))
    text_bytes, images, choices = draw(st.integers(0, 100_000)), draw(st.integers(0, 3)), draw(st.integers(1, 8))
    bounds = [bound for bound in (context, model_max, own_max, 131_072) if bound is not None]
    input_tokens = draw(st.integers(0, min(text_bytes + 1600 * images, context or 10**9)))
    output_tokens = choices * draw(st.integers(0, min(bounds)))
    cache_read = draw(st.integers(0, input_tokens))
    usage = Usage(
        input_tokens,
        output_tokens,
        cache_read,
        draw(st.integers(0, input_tokens - cache_read)),
        draw(st.integers(0, output_tokens)),
    )
    ask = Ask(("m",), text_bytes=text_bytes, images=images, choices=choices, output_tokens_max=own_max)
    return (
        ask,
        Reach((), (), free=False, prices=draw(PRICES), context_tokens=context, output_tokens_max=model_max),
        usage,
    )


@given(bounded_requests(), st.integers(1, 200_000))
def test_the_most_is_never_exceeded(request: tuple[Ask, Reach, Usage], usual: int) -> None:
    """No usage within a request's tokens costs more than its maximum, and neither does its estimate."""
    ask, reach, usage = request
    result = estimate(ask, reach, endpoint=Endpoint.CHAT_COMPLETIONS, usual_output_tokens=usual, image_tokens=1600)

    assert cost(reach.prices, usage) <= result.cost_nanousd_max
    assert 0 <= result.cost_nanousd <= result.cost_nanousd_max


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Draw a catalog of four models, some free, with fallbacks between them."""

    def offer(name: str) -> Offer:
        price = Decimal(draw(st.sampled_from((0, 0, 1, 5))))
        return Offer(name, "x/y", amounts=(("input_cost_per_token", price), ("output_cost_per_token", price)))

    led = st.dictionaries(st.sampled_from((*NAMES, "*")), st.lists(st.sampled_from(NAMES), max_size=3).map(tuple))
    offers = tuple(offer(name) for name in NAMES[:-1])
    lists = tuple(Fallbacks(models) for models in draw(st.lists(led, max_size=3)))
    unknown_price = Prices(Decimal(3), Decimal(3))
    return Catalog(CatalogSource(offers, fallbacks=lists, unknown_price=unknown_price), lambda *_: None)


@given(catalogs(), st.lists(st.sampled_from(NAMES), min_size=1), st.lists(st.sampled_from(NAMES)))
def test_fallbacks_never_make_a_request_cheaper(catalog: Catalog, names: list[str], fallbacks: list[str]) -> None:
    """What a request adds of fallbacks can only take freedom away and make it dearer."""
    plain, more = catalog.reach(names), catalog.reach(names, fallbacks)

    assert plain.free or not more.free
    assert plain.prices.input <= more.prices.input
    assert {model.name for model in plain.models} <= {model.name for model in more.models}
    assert not more.free or all(catalog.is_free(name) for name in (*names, *fallbacks))
