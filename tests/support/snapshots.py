"""Configurations that are made of models with prices, and of settings."""

from __future__ import annotations

from decimal import Decimal

from extauthz.config.model import Settings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.directory import Directory
from extauthz.domain.payers import Accounts
from extauthz.domain.prices import Prices
from extauthz.pricing.amounts import named
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offers import Alias, CatalogSource, Fallbacks, Offer

UNKNOWN_NANOUSD = 1_000


def an_offer(name: str, upstream_model: str, **nanousd: int) -> Offer:
    """Offer a model at prices in nano-USD, by LiteLLM's names."""
    amounts = tuple(named(price, Decimal(amount).scaleb(-9)) for price, amount in nanousd.items())
    return Offer(name, upstream_model, amounts=amounts)


def a_priced_snapshot(
    *offers: Offer,
    aliases: tuple[Alias, ...] = (),
    fallbacks: dict[str, tuple[str, ...]] | None = None,
    digest: str = "",
    **settings: object,
) -> Snapshot:
    """Put models and settings in force, with no price list, and UNKNOWN_NANOUSD for a token that has no price."""
    unknown = Decimal(UNKNOWN_NANOUSD).scaleb(-9)
    source = CatalogSource(offers, aliases, (Fallbacks(fallbacks or {}),), Prices(unknown, unknown))
    return Snapshot(
        Settings.model_validate(settings), Catalog(source, lambda *_: None), Directory(Accounts()), digest=digest
    )
