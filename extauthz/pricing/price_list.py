"""List prices of well-known models, for deployments whose configuration names none.

They come from the table inside the package genai-prices: offline, the version that is installed. Lookups go past the
package's own caches, which grow with every name asked for, and here names come from clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKENS_PER_LISTED_PRICE = 1_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """What the table says of a model, in USD per token; None where it says nothing."""

    input: Decimal | None
    output: Decimal | None
    cache_read_input: Decimal | None = None
    cache_creation_input: Decimal | None = None
    reasoning_output: Decimal | None = None
    context_tokens: int | None = None


def find_listed(upstream_model: str, provider: str | None = None) -> Listed | None:
    """Look up a model as LiteLLM writes it (`openai/gpt-4o`, `gpt-4o`); None when the table does not have it.

    `provider` overrides the one in the name. A name without any is looked for at the provider that is known for it.
    """
    head, slash, rest = upstream_model.partition("/")
    if provider is None and slash:
        provider, upstream_model = head, rest
    elif provider is not None and head == provider:
        upstream_model = rest
    model = _find_model(upstream_model.lower(), provider)
    return _listed(model) if model is not None else None


def _find_model(name: str, provider_id: str | None) -> ModelInfo | None:
    providers = get_snapshot().providers
    if provider_id is not None:
        provider = find_provider_by_id(providers, provider_id)
    else:
        known_for = (each for each in providers if each.model_match is not None and each.model_match.is_match(name))
        provider = next(known_for, None)
    return provider.find_model(name, all_providers=providers) if provider is not None else None


def _listed(model: ModelInfo) -> Listed:
    prices = tuple(_prices_in_force(model))
    return Listed(
        input=_dearest(price.input_mtok for price in prices),
        output=_dearest(price.output_mtok for price in prices),
        cache_read_input=_dearest(price.cache_read_mtok for price in prices),
        cache_creation_input=_dearest(price.cache_write_mtok for price in prices),
        reasoning_output=_dearest(price.output_reasoning_mtok for price in prices),
        context_tokens=model.context_window,
    )


def _prices_in_force(model: ModelInfo) -> Iterable[ModelPrice]:
    """List the newest prices and those of some hours of the day; a start date that is still to come counts as begun."""
    if isinstance(model.prices, ModelPrice):
        return [model.prices]
    hourly = [price.prices for price in model.prices if isinstance(price.constraint, TimeOfDateConstraint)]
    dated = [price for price in model.prices if not isinstance(price.constraint, TimeOfDateConstraint)]
    newest = max(
        dated,
        key=lambda price: (
            price.constraint.start_date if isinstance(price.constraint, StartDateConstraint) else date.min
        ),
        default=None,
    )
    return [*hourly, newest.prices] if newest is not None else hourly


def _dearest(prices: Iterable[Decimal | TieredPrices | None]) -> Decimal | None:
    """Take the highest price over all tiers and turn it from USD per million tokens into USD per token."""
    amounts: list[Decimal] = []
    for price in prices:
        if isinstance(price, TieredPrices):
            amounts += [price.base, *(tier.price for tier in price.tiers)]
        elif price is not None:
            amounts.append(price)
    return max(amounts) / TOKENS_PER_LISTED_PRICE if amounts else None
