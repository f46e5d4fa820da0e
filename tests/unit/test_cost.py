"""What an answer cost."""

from dataclasses import replace
from decimal import Decimal

import pytest

from extauthz.domain.prices import Estimate, Prices, Rates, Units, Usage
from extauthz.pricing.cost import LENGTHS_MAX, at_tier, cost, dearest, dearest_kind, delivered_usage

# Nano-USD per token: input 1000, output 10000, cached 100, written to the cache 1250, reasoning 20000.
PRICES = Prices(
    input=Decimal("0.000001"),
    output=Decimal("0.00001"),
    cache_read_input=Decimal("0.0000001"),
    cache_creation_input=Decimal("0.00000125"),
    reasoning_output=Decimal("0.00002"),
)
PLAIN = Prices(Decimal("0.000001"), Decimal("0.00001"))


def nano(**rates: int) -> Prices:
    """Write rates in nano-USD."""
    return Prices(**{kind: Decimal(rate).scaleb(-9) for kind, rate in ({"input": 0, "output": 0} | rates).items()})  # type: ignore[arg-type]


# Each kind costs another power of two, so that a sum tells what it is made of.
KINDS = nano(
    input=1,
    output=2,
    cache_read_input=4,
    cache_creation_input=8,
    reasoning_output=16,
    cache_creation_1h_input=32,
    cache_read_audio_input=64,
    audio_input=128,
    audio_output=256,
    image_input=512,
    image_output=1024,
)
UNITS = nano(per_image=1, per_second=1_000, per_character=100, per_query=7, per_search=11, per_request=13)


@pytest.mark.parametrize(
    ("prices", "usage", "cost_nanousd"),
    [
        pytest.param(PLAIN, Usage(0, 0), 0, id="nothing costs nothing"),
        pytest.param(PLAIN, Usage(7, 3), 37_000, id="input and output"),
        pytest.param(PRICES, Usage(10, 0, cache_read_input_tokens=4), 6_400, id="cached tokens are part of input"),
        pytest.param(PRICES, Usage(10, 0, 4, 2), 6_900, id="so are those written to the cache"),
        pytest.param(PRICES, Usage(0, 5, reasoning_output_tokens=2), 70_000, id="reasoning is part of output"),
        pytest.param(PLAIN, Usage(10, 5, 4, 2, 3), 60_000, id="a kind without a price costs what the plain one does"),
        pytest.param(PRICES, Usage(1, 0, cache_read_input_tokens=4), 1_400, id="cached beside the input"),
        pytest.param(PRICES, Usage(0, 10, reasoning_output_tokens=300), 6_100_000, id="reasoning beside the output"),
        pytest.param(PRICES, Usage(-5, -5, -5, -5, -5), 0, id="negative counts are nothing"),
    ],
)
def test_cost_of_a_usage(prices: Prices, usage: Usage, cost_nanousd: int) -> None:
    """Every token is paid once, as the most special kind that it is reported as."""
    assert cost_nanousd == cost(prices, usage)


@pytest.mark.parametrize(
    ("usage", "cost_nanousd"),
    [
        pytest.param(Usage(10, 0), 10, id="input"),
        pytest.param(Usage(0, 10), 20, id="output"),
        pytest.param(Usage(10, 0, cache_read_input_tokens=3), 7 + 12, id="cached"),
        pytest.param(Usage(10, 0, cache_creation_input_tokens=3), 7 + 24, id="written for five minutes"),
        pytest.param(
            Usage(10, 0, cache_creation_input_tokens=3, cache_creation_1h_input_tokens=2),
            7 + 8 + 64,
            id="written, part of it for an hour",
        ),
        pytest.param(Usage(10, 0, audio_input_tokens=3), 7 + 3 * 128, id="sound in"),
        pytest.param(Usage(10, 0, image_input_tokens=3), 7 + 3 * 512, id="pictures in"),
        pytest.param(
            Usage(10, 0, cache_read_input_tokens=4, audio_input_tokens=3, cache_read_audio_input_tokens=2),
            5 + 2 * 4 + 2 * 64 + 128,
            id="cached sound is a part of the cached and of the sound, and counts once",
        ),
        pytest.param(
            Usage(10, 0, cache_read_input_tokens=8, audio_input_tokens=9),
            7 * 64 + 4 + 2 * 128,
            id="what is more than the whole is cached sound, though nobody says so",
        ),
        pytest.param(
            Usage(10, 0, cache_read_input_tokens=10, image_input_tokens=9), 10 * 4, id="or pictures in the cache"
        ),
        pytest.param(Usage(0, 10, reasoning_output_tokens=3), 14 + 48, id="reasoning"),
        pytest.param(Usage(0, 10, audio_output_tokens=3), 14 + 3 * 256, id="sound out"),
        pytest.param(Usage(0, 10, image_output_tokens=3), 14 + 3 * 1024, id="pictures out"),
        pytest.param(
            Usage(0, 10, reasoning_output_tokens=2, audio_output_tokens=3, image_output_tokens=4),
            2 + 32 + 3 * 256 + 4 * 1024,
            id="all parts of the output",
        ),
        pytest.param(Usage(2, 0, audio_input_tokens=3), 2 + 3 * 128, id="sound beside the input"),
        pytest.param(
            Usage(5, 0, cache_creation_input_tokens=2, cache_creation_1h_input_tokens=3),
            0 + 2 * 8 + 3 * 32,
            id="an hour beside five minutes",
        ),
    ],
)
def test_cost_of_each_kind_of_token(usage: Usage, cost_nanousd: int) -> None:
    """Each kind is paid at its own rate, and out of the whole that it is a part of."""
    assert cost_nanousd == cost(KINDS, usage)


@pytest.mark.parametrize(
    ("units", "cost_nanousd"),
    [
        pytest.param(Units(), 13, id="a request"),
        pytest.param(Units(images=3), 13 + 3, id="pictures"),
        pytest.param(Units(milliseconds=1_500), 13 + 1_500, id="seconds and parts of them"),
        pytest.param(Units(characters=3), 13 + 300, id="characters"),
        pytest.param(Units(queries=2), 13 + 14, id="queries"),
        pytest.param(Units(searches=2), 13 + 22, id="searches"),
        pytest.param(Units(1, 1_000, 1, 1, 1), 13 + 1 + 1_000 + 100 + 7 + 11, id="all of them"),
        pytest.param(Units(-1, -1, -1, -1, -1), 13, id="less than none"),
    ],
)
def test_cost_of_units(units: Units, cost_nanousd: int) -> None:
    """Units are paid besides tokens, and a request for itself."""
    assert cost_nanousd == cost(UNITS, Usage(0, 0, units=units))
    assert cost_nanousd + 50 == cost(replace(UNITS, input=Decimal("1e-8")), Usage(5, 0, units=units))


def test_part_of_a_unit_is_rounded_with_all_the_rest() -> None:
    """A thousandth of a second of 1 nano-USD is no nano-USD of its own."""
    assert 2 == cost(nano(input=1, per_second=1), Usage(1, 0, units=Units(milliseconds=1)))


@pytest.mark.parametrize(
    ("usage", "cost_nanousd"),
    [
        pytest.param(Usage(100, 1), 100 + 10, id="as long as that"),
        pytest.param(Usage(101, 1), 202 + 20, id="longer: all of it costs more"),
        pytest.param(Usage(201, 1), 603 + 20, id="longer still"),
        pytest.param(Usage(101, 1, cache_read_input_tokens=101), 202 + 20, id="cached tokens make it longer, too"),
        pytest.param(Usage(60, 0, cache_read_input_tokens=61), 242, id="also beside the input"),
        pytest.param(Usage(0, 500), 5_000, id="the output does not"),
    ],
)
def test_cost_of_long_inputs(usage: Usage, cost_nanousd: int) -> None:
    """Above a length the whole request costs the rates of that length."""
    twice, thrice = nano(input=2, output=20), nano(input=3, output=20)
    rates = [(100, Rates(twice.input, twice.output)), (200, Rates(thrice.input, thrice.output))]

    assert cost_nanousd == cost(replace(nano(input=1, output=10), above=tuple(rates)), usage)


@pytest.mark.parametrize(
    ("tier", "cost_nanousd"),
    [("flex", 5), (" Flex ", 5), ("priority", 20), ("default", 10), ("auto", 10), ("", 10), (None, 10)],
)
def test_cost_at_a_tier(tier: str | None, cost_nanousd: int) -> None:
    """An answer is paid at the tier that it names, however that is written, and at the base for any other."""
    prices = replace(nano(input=10), tiers=(("flex", nano(input=5)), ("priority", nano(input=20))))

    assert cost_nanousd == cost(at_tier(prices, tier), Usage(1, 0))


def test_guessed_rates_count_where_nothing_else_does() -> None:
    """A model paid by the picture costs its pictures; tokens, of which nobody has said a price, only without any."""
    prices = replace(nano(input=1, output=10, per_image=1_000), guessed_output=True)

    assert 2_000 + 5 == cost(prices, Usage(5, 7, units=Units(images=2)))
    assert 5 + 70 == cost(prices, Usage(5, 7))
    assert 5 + 70 == cost(prices, Usage(5, 7, units=Units(searches=1)))


def test_only_the_total_is_rounded() -> None:
    """A price below a nano-USD adds up: three tokens of 0.4 nano-USD are 1.2, and so 2; not 3 times 1."""
    prices = Prices(Decimal("4e-10"), Decimal("4e-10"))

    assert cost(prices, Usage(2, 1)) == 2


def test_no_digit_is_lost() -> None:
    """Prices with more digits than Decimal keeps by default add up exactly: two that make one nano-USD are one."""
    third = Decimal(f"0.{'3' * 30}e-9")
    prices = Prices(third, Decimal(f"0.{'6' * 29}7e-9"))

    assert cost(prices, Usage(1, 1)) == 1


def test_dearest_looks_through_missing_kinds() -> None:
    """A kind without a price is compared at its plain price, not left out; one that nobody has stays out."""
    cheap_cache = Prices(Decimal(1), Decimal(2), cache_read_input=Decimal("0.1"))
    no_cache = Prices(Decimal("0.5"), Decimal(3))

    assert Prices(Decimal(1), Decimal(3), Decimal("0.5")) == dearest([cheap_cache, no_cache])


def test_dearest_of_what_stands_for_a_kind() -> None:
    """Cached sound costs what is cached, or what is sound: the dearest of two models is that of each."""
    cached, sound = nano(input=1, cache_read_input=1), nano(input=1, audio_input=9)
    usage = Usage(1, 0, cache_read_input_tokens=1, audio_input_tokens=1, cache_read_audio_input_tokens=1)

    assert (1, 9, 9) == (cost(cached, usage), cost(sound, usage), cost(dearest([cached, sound]), usage))


def test_dearest_at_each_length_and_tier() -> None:
    """Of two models each length and each tier has the dearer, also where only one of them has it."""
    long = replace(nano(input=2), above=((100, Rates(Decimal("9e-9"), Decimal(0))),))
    tiered = replace(nano(input=5), tiers=(("flex", nano(input=3)),))
    both = dearest([long, tiered])

    assert [5, 5 * 100, 9 * 101] == [cost(both, Usage(tokens, 0)) for tokens in (1, 100, 101)]
    assert [3, 9 * 101] == [cost(at_tier(both, "flex"), Usage(tokens, 0)) for tokens in (1, 101)]


def test_dearest_has_a_bounded_number_of_lengths() -> None:
    """A hold carries them all: the longest share the dearest of their rates."""
    many = [
        replace(nano(input=1), above=((length, Rates(Decimal(length).scaleb(-9), Decimal(0))),))
        for length in range(1, LENGTHS_MAX + 9)
    ]
    prices = dearest(many)

    assert LENGTHS_MAX == len(prices.above)
    assert all(cost(each, Usage(tokens, 0)) <= cost(prices, Usage(tokens, 0)) for each in many for tokens in (1, 99))


def test_dearest_kind_covers_lengths_and_the_tier() -> None:
    """The most that a token can cost is that of any kind, at any length, at the tier that is asked for."""
    prices = replace(
        nano(input=1, cache_creation_input=3, output=10, per_image=5),
        above=((100, Rates(Decimal("2e-9"), Decimal("2e-8"), audio_input=Decimal("4e-9"))),),
        tiers=(("priority", nano(input=8, output=9, per_image=50)),),
    )

    assert 4 + 20 + 5 == cost(dearest_kind(prices), Usage(1, 1, units=Units(images=1)))
    assert 8 + 9 + 50 == cost(dearest_kind(prices, "priority"), Usage(1, 1, units=Units(images=1)))


@pytest.mark.parametrize(
    ("events", "text_bytes", "output_tokens"),
    [
        pytest.param(0, 0, 0, id="nothing came"),
        pytest.param(9, 12, 9, id="an event is a token at least"),
        pytest.param(2, 31, 11, id="much text in few events counts by its bytes, rounded up"),
    ],
)
def test_delivered_usage(events: int, text_bytes: int, output_tokens: int) -> None:
    """A stream that broke off used its estimated input and what came through."""
    estimate = Estimate(input_tokens=50, output_tokens=400, cost_nanousd=1, cost_nanousd_max=2)

    assert Usage(50, output_tokens) == delivered_usage(estimate, events=events, text_bytes=text_bytes)


def test_delivered_usage_has_the_units_that_were_asked_for() -> None:
    """What is known from the request was used, however little of the answer came through."""
    estimate = Estimate(50, 0, 1, 2, units=Units(characters=7))

    assert Units(characters=7) == delivered_usage(estimate, events=0, text_bytes=0).units
