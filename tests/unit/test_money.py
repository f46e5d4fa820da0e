"""Money: integers of nano-USD, exact decimals, one rounding."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.money import AMOUNT_NANOUSD_MAX, cost_nanousd, limit_nanousd, usd, usd_text


@pytest.mark.parametrize(
    ("cost_usd", "expected"),
    [
        ("0", 0),
        ("0.0000000001", 1),
        ("0.000000001", 1),
        ("0.0000000010000001", 2),
        ("0.00035", 350_000),
        ("12", 12_000_000_000),
        ("9007199.254740991", AMOUNT_NANOUSD_MAX),
        ("9007199.254740992", AMOUNT_NANOUSD_MAX),
        ("1e30", AMOUNT_NANOUSD_MAX),
    ],
)
def test_a_cost_is_rounded_up(cost_usd: str, expected: int) -> None:
    """What a request costs is never rounded to less, and fits a counter."""
    assert expected == cost_nanousd(Decimal(cost_usd))


def test_a_sum_is_rounded_once() -> None:
    """Only the total is rounded: token by token these 1050.75 nano-USD would come to 1053."""
    total = 7 * Decimal("1.5e-7") + 3 * Decimal("2.5e-10")

    assert 1051 == cost_nanousd(total)


@pytest.mark.parametrize(
    ("limit_usd", "expected"),
    [("0", 0), ("0.0000000019", 1), ("10.25", 10_250_000_000), ("9007199.254740991", AMOUNT_NANOUSD_MAX)],
)
def test_a_limit_is_rounded_down(limit_usd: str, expected: int) -> None:
    """Nobody gets more than was written."""
    assert expected == limit_nanousd(Decimal(limit_usd))


@pytest.mark.parametrize(
    ("limit_usd", "reason"),
    [
        ("-0.01", "write a number of USD that is 0 or more"),
        ("NaN", "write a number of USD that is 0 or more"),
        ("Infinity", "write a number of USD that is 0 or more"),
        ("9007199.254740992", "above 9007199.254740991, the most that one budget can hold"),
    ],
)
def test_a_limit_that_cannot_be(limit_usd: str, reason: str) -> None:
    """A limit that is no amount, or more than a counter can hold, is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        limit_nanousd(Decimal(limit_usd))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.0"),
        (1, "0.000000001"),
        (10_250_000_000, "10.25"),
        (100_000_000_000, "100.0"),
        (AMOUNT_NANOUSD_MAX, "9007199.254740991"),
        (-500_000_000, "-0.5"),
    ],
)
def test_amounts_for_people(amount: int, text: str) -> None:
    """An amount is written in plain digits, with at least one decimal and no zeros at its end."""
    assert text == usd_text(amount)


@given(st.integers(0, AMOUNT_NANOUSD_MAX))
def test_no_digit_is_lost(amount: int) -> None:
    """Whole nano-USD survive the way to USD, to text, and back."""
    assert amount == cost_nanousd(usd(amount)) == limit_nanousd(Decimal(usd_text(amount)))
