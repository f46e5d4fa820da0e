"""Amounts in messages: those in USD have names that say so, those of other measures the plain ones."""

from __future__ import annotations

from typing import Protocol

from extauthz.domain.budgets import Measure
from extauthz.domain.money import usd


def dollars(nanousd: int) -> float:
    """Write an amount; a double holds what a counter can have exactly."""
    return float(usd(nanousd))


class Measured(Protocol):
    """A message with amounts."""

    measure: str


def put_amounts(message: Measured, measure: Measure, **amounts: int) -> None:
    """Write amounts of one measure into a message, and which one it is."""
    message.measure = str(measure)
    for name, amount in amounts.items():
        if measure is Measure.USD:
            setattr(message, f"{name}_usd", dollars(amount))
        else:
            setattr(message, name, amount)
