"""List prices of well-known models, for deployments whose configuration names none.

They come from the table inside the package genai-prices: offline, the version that is installed. Lookups go past the
package's own caches, which grow with every name asked for, and here names come from clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Context, Decimal
from typing import TYPE_CHECKING

from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from extauthz.pricing.amounts import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable

# The table's name of each price, LiteLLM's for the same, and for how many it is.
LISTED_PRICES = (
    ("input_mtok", "input_cost_per_token", 1_000_000),
    ("output_mtok", "output_cost_per_token", 1_000_000),
    ("cache_read_mtok", "cache_read_input_token_cost", 1_000_000),
    ("cache_write_mtok", "cache_creation_input_token_cost", 1_000_000),
    ("cache_write_1h_mtok", "cache_creation_input_token_cost_above_1hr", 1_000_000),
    ("cache_audio_read_mtok", "cache_read_input_audio_token_cost", 1_000_000),
    ("input_audio_mtok", "input_cost_per_audio_token", 1_000_000),
    ("output_audio_mtok", "output_cost_per_audio_token", 1_000_000),
    ("input_image_mtok", "input_cost_per_image_token", 1_000_000),
    ("output_image_mtok", "output_cost_per_image_token", 1_000_000),
    ("output_reasoning_mtok", "output_cost_per_reasoning_token", 1_000_000),
    ("audio_hours", "input_cost_per_second", 3_600),
    ("input_audio_hours", "input_cost_per_second", 3_600),
    ("input_mchars", "input_cost_per_character", 1_000_000),
    ("requests_kcount", "input_cost_per_request", 1_000),
    ("web_searches_kcount", "search_context_cost_per_query", 1_000),
    ("input_video_mtok", "input_cost_per_video_token", 1_000_000),
    ("output_video_mtok", "output_cost_per_video_token", 1_000_000),
    ("cache_image_read_mtok", "cache_read_input_image_token_cost", 1_000_000),
    ("output_citation_mtok", "citation_cost_per_token", 1_000_000),
    ("input_document_kpages", "ocr_cost_per_page", 1_000),
    ("input_annotated_document_kpages", "annotation_cost_per_page", 1_000),
    ("input_text_messages_kcount", "input_cost_per_text_message", 1_000),
    ("storage_searches_kcount", "file_search_cost_per_1k_calls", 1),
)

# A price per hour is no whole decimal per second: it is rounded up, far behind what money is counted in.
_PER_ONE = Context(prec=28, rounding=ROUND_CEILING)


@dataclass(frozen=True, slots=True)
class Listed:
    """What the table says of a model: its prices, in USD, and how much it reads."""

    amounts: tuple[Amount, ...]
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
    amounts = (amount for prices in _prices_in_force(model) for amount in _amounts(prices))
    return Listed(tuple(dict.fromkeys(amounts)), model.context_window)


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


def _amounts(prices: ModelPrice) -> Iterator[Amount]:
    """Give the prices of one time, each for one, with those of longer inputs."""
    for listed_as, name, count in LISTED_PRICES:
        match getattr(prices, listed_as, None):
            case Decimal() as price:
                yield Amount(name, _PER_ONE.divide(price, Decimal(count)))
            case TieredPrices(base=base, tiers=tiers):
                yield Amount(name, _PER_ONE.divide(base, Decimal(count)))
                for tier in tiers:
                    yield Amount(name, _PER_ONE.divide(tier.price, Decimal(count)), tier.start)
            case _:
                pass
