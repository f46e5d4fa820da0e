"""Amounts are integers of nano-USD; prices are exact decimals.

Only the total of a request is rounded, once and up: list prices such as 1.5e-7 USD a token are no whole
nano-USD, and a sum of rounded parts would drift from the invoice.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

NANOUSD_PER_USD = 1_000_000_000

# Redis scripts count in doubles, which hold every integer up to 2^53. It caps one counter at about 9.0 million USD.
AMOUNT_NANOUSD_MAX = 2**53 - 1


def cost_nanousd(usd: Decimal) -> int:
    """Round what a request costs up to whole nano-USD, never above what one counter can hold."""
    return min(int((usd * NANOUSD_PER_USD).to_integral_value(ROUND_CEILING)), AMOUNT_NANOUSD_MAX)


def limit_nanousd(usd: Decimal) -> int:
    """Round a limit down to whole nano-USD: nobody gets more than was written.

    Raises ValueError when the limit is negative, not a number or above AMOUNT_NANOUSD_MAX.
    """
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{usd} is not an amount of money: write a number of USD that is 0 or more")
    amount = int((usd * NANOUSD_PER_USD).to_integral_value(ROUND_FLOOR))
    if amount > AMOUNT_NANOUSD_MAX:
        raise ValueError(f"{usd} USD is above {usd_text(AMOUNT_NANOUSD_MAX)}, the most that one budget can hold")
    return amount


def usd(nanousd: int) -> Decimal:
    """Give an amount in USD, exactly."""
    return Decimal(nanousd) / NANOUSD_PER_USD


def usd_text(nanousd: int) -> str:
    """Write an amount for people: plain digits, at least one decimal, no trailing zeros (`0.0`, `10.25`)."""
    text = f"{usd(nanousd):.9f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
