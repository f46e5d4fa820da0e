"""Amounts of what budgets limit, as people read them."""

from __future__ import annotations

from extauthz.domain.budgets import Measure
from extauthz.domain.money import usd_text

UNITS = {Measure.USD: "USD", Measure.TOKENS: "tokens", Measure.REQUESTS: "requests"}


def amount_text(amount: int, measure: Measure) -> str:
    """Write an amount of a measure's unit, without saying which: `10.25`, `12000`."""
    return usd_text(amount) if measure is Measure.USD else str(amount)


def measured(amount: int, measure: Measure) -> str:
    """Write an amount with its unit: `10.25 USD`, `12000 tokens`."""
    return f"{amount_text(amount, measure)} {UNITS[measure]}"
