"""LiteLLM's `cost_margin_config`: what is added to the prices of providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from extauthz.domain.model_names import is_pattern

MARGINS = "cost_margin_config"

# The one that is meant where a provider has none of its own.
ANY_PROVIDER = "global"

_NOTHING_ADDED = Decimal(1)


@dataclass(frozen=True, slots=True)
class Margins:
    """What prices are multiplied by, for each provider. One below 1 would take something off, and is not applied."""

    factors: Mapping[str, Decimal]

    def of(self, model: str, provider: str | None) -> Decimal:
        """Give the factor for a deployment, the highest of all where nobody says whose it is."""
        head, slash, _ = model.partition("/")
        name = provider or (head if slash and not is_pattern(head) else None)
        anyone = self.factors.get(ANY_PROVIDER, _NOTHING_ADDED)
        applying = [*self.factors.values()] if name is None else [self.factors.get(name, anyone)]
        return max([_NOTHING_ADDED, *applying])
