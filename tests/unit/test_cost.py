"""What an answer cost."""

from decimal import Decimal

import pytest

from extauthz.domain.prices import Estimate, Prices, Usage
from extauthz.pricing.cost import cost, dearest, delivered_usage

# Nano-USD per token: input 1000, output 10000, cached 100, written to the cache 1250, reasoning 20000.
PRICES = Prices(
    input=Decimal("0.000001"),
    output=Decimal("0.00001"),
    cache_read_input=Decimal("0.0000001"),
    cache_creation_input=Decimal("0.00000125"),
    reasoning_output=Decimal("0.00002"),
)
PLAIN = Prices(Decimal("0.000001"), Decimal("0.00001"))


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
    """A kind without a price is compared at its plain price, not left out."""
    cheap_cache = Prices(Decimal(1), Decimal(2), cache_read_input=Decimal("0.1"))
    no_cache = Prices(Decimal("0.5"), Decimal(3))

    assert Prices(Decimal(1), Decimal(3), Decimal("0.5"), Decimal(1), Decimal(3)) == dearest([cheap_cache, no_cache])


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
