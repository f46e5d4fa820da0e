"""Amounts of messages, in whichever measure they are, for people and for what computes with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from extauthz.console.text import amount, clean, exact
from extauthz.domain.budgets import Measure

USD = str(Measure.USD)


class Measured(Protocol):
    """A message with amounts: those in USD have names that say so."""

    measure: str


@dataclass(frozen=True, slots=True)
class Unit:
    """What the amounts of one message are in; a server that knows nothing else counts in USD."""

    measure: str

    @classmethod
    def of(cls, message: Measured) -> Unit:
        """Tell what a message is in."""
        return cls(message.measure or USD)

    @property
    def in_usd(self) -> bool:
        """Whether it is money."""
        return self.measure == USD

    @property
    def name(self) -> str:
        """What is written behind an amount: `USD`, `tokens`, `requests`."""
        return "USD" if self.in_usd else clean(self.measure)

    def amount(self, message: Measured, name: str) -> float:
        """Read one amount of the message."""
        return float(getattr(message, f"{name}_usd" if self.in_usd else name))

    def cell(self, message: Measured, name: str) -> str:
        """Write one amount for a table."""
        value = self.amount(message, name)
        return amount(value) if self.in_usd else f"{value:,.0f}"

    def exact(self, message: Measured, name: str) -> str:
        """Write one amount to the last digit."""
        value = self.amount(message, name)
        return exact(value) if self.in_usd else f"{value:.0f}"
