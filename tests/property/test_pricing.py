"""Pricing holds for every price and every usage, not only for the examples."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, replace
from decimal import Decimal
from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.ask import Ask
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.domain.prices import Prices, Rates, Units, Usage
from extauthz.pricing import amounts
from extauthz.pricing.catalog import Catalog, Reach
from extauthz.pricing.cost import at_tier, cost, dearest, dearest_kind
from extauthz.pricing.estimate import estimate
from extauthz.pricing.offers import CatalogSource, Fallbacks, Offer

TOKENS = st.integers(0, 10_000_000)
AMOUNTS = st.decimals(min_value=0, max_value=1, allow_nan=False, allow_infinity=False, places=20)
LENGTHS = (1_000, 200_000, 5_000_000)
TIERS = ("batch", "flex", "priority")
NAMES = ("a", "b", "c", "d", "unknown")

# Every kind of token with the one that it costs as where it has no rate, and the fields of a usage that count it.
TOKEN_KINDS: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
    "input": (None, ("input_tokens",)),
    "cache_read_input": ("input", ("input_tokens", "cache_read_input_tokens")),
    "cache_creation_input": ("input", ("input_tokens", "cache_creation_input_tokens")),
    "cache_creation_1h_input": (
        "cache_creation_input",
        ("input_tokens", "cache_creation_input_tokens", "cache_creation_1h_input_tokens"),
    ),
    "audio_input": ("input", ("input_tokens", "audio_input_tokens")),
    "image_input": ("input", ("input_tokens", "image_input_tokens")),
    "output": (None, ("output_tokens",)),
    "reasoning_output": ("output", ("output_tokens", "reasoning_output_tokens")),
    "audio_output": ("output", ("output_tokens", "audio_output_tokens")),
    "image_output": ("output", ("output_tokens", "image_output_tokens")),
}
UNIT_KINDS = {
    "per_image": "images",
    "per_second": "milliseconds",
    "per_character": "characters",
    "per_query": "queries",
    "per_search": "searches",
}
OPTIONAL = [kind for kind in Rates.__slots__ if kind not in {"input", "output"}]
RATES = st.fixed_dictionaries({"input": AMOUNTS, "output": AMOUNTS}, optional=dict.fromkeys(OPTIONAL, AMOUNTS))
COUNTS = st.integers(0, 1_000)
UNITS = st.builds(Units, COUNTS, st.integers(0, 10**7), COUNTS, COUNTS, COUNTS)
# Any counts: parts may be more than what they are parts of, as some upstreams report them.
USAGES = st.builds(Usage, *[TOKENS] * 11, units=UNITS)


@st.composite
def priced(draw: st.DrawFn, *, tiers: bool = True) -> Prices:
    """Draw prices with lengths and tiers."""
    above = tuple((length, Rates(**draw(RATES))) for length in LENGTHS if draw(st.booleans()))
    named = [(name, draw(priced(tiers=False))) for name in TIERS if tiers and draw(st.booleans())]
    return Prices(**draw(RATES), above=above, tiers=tuple(named), guessed_input=False, guessed_output=False)


PRICES = priced()


@st.composite
def rising(draw: st.DrawFn) -> Prices:
    """Draw prices that do not fall with the length of the input, and give every kind a rate of its own."""
    prices = draw(priced(tiers=False))
    rates = {kind: draw(AMOUNTS) for kind in Rates.__slots__}
    above = []
    for length, _ in prices.above:
        rates = {kind: price + draw(AMOUNTS) for kind, price in rates.items()}
        above.append((length, Rates(**rates)))
    first = {kind: draw(AMOUNTS) for kind in Rates.__slots__}
    if above:
        first = {kind: min(price, getattr(above[0][1], kind)) for kind, price in first.items()}
    return Prices(**first, above=tuple(above), tiers=(), guessed_input=False, guessed_output=False)


@st.composite
def divided(draw: st.DrawFn) -> tuple[Usage, dict[str, int]]:
    """Draw how many tokens there are of each kind, and the usage that reports them."""
    counts = {kind: draw(st.integers(0, 300_000)) for kind in TOKEN_KINDS}
    fields = dict.fromkeys(("input_tokens", "output_tokens"), 0)
    for kind, (_, counted) in TOKEN_KINDS.items():
        for field in counted:
            fields[field] = fields.get(field, 0) + counts[kind]
    return Usage(**fields, units=draw(UNITS)), counts


def exact(prices: Prices, usage: Usage, counts: dict[str, int]) -> Fraction:
    """Compute the cost in nano-USD from the definition, in fractions."""
    rates: Rates = prices
    for length, longer in prices.above:
        if usage.input_tokens > length:
            rates = longer

    def rate(kind: str | None) -> Fraction:
        if kind is None:
            return Fraction(0)
        price = getattr(rates, kind)
        return rate(TOKEN_KINDS.get(kind, (None, ()))[0]) if price is None else Fraction(price)

    tokens = sum(count * rate(kind) for kind, count in counts.items())
    units = sum(
        Fraction(getattr(usage.units, field), 1_000 if field == "milliseconds" else 1) * rate(kind)
        for kind, field in UNIT_KINDS.items()
    )
    return 10**9 * (tokens + units + rate("per_request"))


@given(PRICES, divided())
def test_cost_is_exact_and_rounded_up_once(prices: Prices, used: tuple[Usage, dict[str, int]]) -> None:
    """The cost is the exact sum over all kinds, rounded up to whole nano-USD, at most what one counter holds."""
    usage, counts = used

    assert min(ceil(exact(prices, usage, counts)), AMOUNT_NANOUSD_MAX) == cost(prices, usage)


@given(rising(), divided(), st.integers(0, 10_000_000), st.integers(0, 10_000_000), UNITS)
def test_cost_never_falls_with_more(
    prices: Prices, used: tuple[Usage, dict[str, int]], more_input: int, more_output: int, units: Units
) -> None:
    """More input, output or units cost as much or more, at the rates of longer inputs as well."""
    usage, _ = used
    more = replace(
        usage,
        input_tokens=usage.input_tokens + more_input,
        output_tokens=usage.output_tokens + more_output,
        units=Units(*(own + added for own, added in zip(astuple(usage.units), astuple(units), strict=True))),
    )

    assert 0 <= cost(prices, usage) <= cost(prices, more)


@given(rising(), divided(), st.sampled_from([*TOKEN_KINDS]), st.integers(0, 100_000))
def test_cost_never_falls_with_more_of_a_kind(
    prices: Prices, used: tuple[Usage, dict[str, int]], kind: str, more: int
) -> None:
    """More tokens of a kind, counted wherever that kind is counted, cost as much or more."""
    usage, _ = used
    counted = {field: getattr(usage, field) + more for field in TOKEN_KINDS[kind][1]}

    assert cost(prices, usage) <= cost(prices, replace(usage, **counted))


@given(PRICES, USAGES)
def test_no_report_costs_less_than_its_parts(prices: Prices, usage: Usage) -> None:
    """However an upstream counts, every part that it reports is paid at some rate of its side, or as a whole."""
    lengths = [prices, *(rates for _, rates in prices.above)]
    inputs = [kind for kind in Rates.__slots__ if kind.endswith("input")]
    outputs = [kind for kind in Rates.__slots__ if kind.endswith("output")]

    def cheapest(kinds: list[str]) -> Fraction:
        found = [getattr(rates, kind) for rates in lengths for kind in kinds]
        return min(Fraction(price) for price in found if price is not None)

    least = 10**9 * (usage.input_tokens * cheapest(inputs) + usage.output_tokens * cheapest(outputs))
    assert cost(prices, usage) >= min(least, Fraction(AMOUNT_NANOUSD_MAX))


@given(st.lists(PRICES, min_size=1, max_size=4), USAGES, st.sampled_from((None, "default", *TIERS)))
def test_the_dearest_is_dearer_than_each(all_prices: list[Prices], usage: Usage, tier: str | None) -> None:
    """A request that may end at several models is held at no less than any of them costs, at every tier."""
    together = dearest(all_prices)

    assert all(cost(at_tier(prices, tier), usage) <= cost(at_tier(together, tier), usage) for prices in all_prices)


@given(PRICES, USAGES, st.sampled_from((None, *TIERS)))
def test_the_dearest_kind_covers_every_kind(prices: Prices, usage: Usage, tier: str | None) -> None:
    """As many tokens as were paid, all as the dearest kind, cost no less."""
    parts = [count for name, count in asdict(usage).items() if name.endswith("input_tokens")]
    written = [count for name, count in asdict(usage).items() if name.endswith("output_tokens")]
    most = Usage(sum(parts), sum(written), units=usage.units)

    assert cost(at_tier(prices, tier), usage) <= cost(dearest_kind(prices, tier), most)


NAMES_OF_PRICES = [*(names[0] for names in amounts.NAMES.values()), amounts.INPUT_IMAGE_PRICE]
SHEETS = st.dictionaries(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(NAMES_OF_PRICES),
        st.sampled_from(("", "_above_128k_tokens", "_above_200k_tokens")),
        st.sampled_from(("", *(f"_{end}" for end in amounts.TIERS))),
    ),
    AMOUNTS,
    max_size=12,
)


@given(SHEETS, SHEETS)
def test_another_price_never_makes_a_price_lower_where_it_is_not_for(
    sheet: dict[str, Decimal], more: dict[str, Decimal]
) -> None:
    """What is said for longer inputs or other tiers changes nothing of the base for short ones."""
    special = {name: usd for name, usd in more.items() if not amounts.named(name, usd).plain}
    unknown = Prices(Decimal(2), Decimal(2))
    plain, both = (
        amounts.prices_of([amounts.named(name, usd) for name, usd in written.items()], unknown)
        for written in (sheet, special | sheet)
    )

    assert all(getattr(plain, kind) == getattr(both, kind) for kind in Rates.__slots__)


@given(SHEETS)
def test_prices_are_written_as_they_are_read(sheet: dict[str, Decimal]) -> None:
    """Prices that are put together can be written by LiteLLM's names, and cost the same when they are read again."""
    unknown = Prices(Decimal(2), Decimal(2))
    whole = {"input_cost_per_token": Decimal(1), "output_cost_per_token": Decimal(1)} | sheet
    prices = amounts.prices_of([amounts.named(name, usd) for name, usd in whole.items()], unknown)

    assert prices == amounts.prices_of(amounts.written(prices), unknown)


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
        names = ("input_cost_per_token", "output_cost_per_token")
        return Offer(name, "x/y", amounts=tuple(amounts.named(each, price) for each in names))

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
