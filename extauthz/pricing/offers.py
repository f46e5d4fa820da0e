"""What a catalog is made of, as the configuration says it: deployments with their prices, aliases, fallbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from extauthz.domain.model_names import captured, is_pattern
from extauthz.domain.prices import ZERO, Prices
from extauthz.pricing.amounts import INPUT_PRICE, OUTPUT_PRICE, Amount

# LiteLLM's name for "every model that has no fallbacks of its own".
ANY_MODEL = "*"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the configuration says of one deployment.

    `upstream_model` is what LiteLLM calls it (`openai/gpt-4o`; a `*` takes what the pattern of the name left open).
    `amounts` are its prices, and `uplift` is what all prices are multiplied by. `leads_elsewhere` when it names
    fallbacks of its own.
    """

    name: str
    upstream_model: str
    provider: str | None = None
    amounts: tuple[Amount, ...] = ()
    uplift: Decimal = Decimal(1)
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    leads_elsewhere: bool = False

    @property
    def free(self) -> bool:
        """Whether input and output cost 0 explicitly, nothing else costs anything, and nothing else can answer."""
        return self.explicit and not self.leads_elsewhere and all(amount.usd == 0 for amount in self.amounts)

    @property
    def explicit(self) -> bool:
        """Whether it says itself what input and output cost."""
        return {INPUT_PRICE, OUTPUT_PRICE} <= {amount.name for amount in self.amounts if amount.plain}

    @property
    def served_by(self) -> str | None:
        """The provider, as LiteLLM calls it; None when it is not named."""
        head, slash, _ = self.upstream_model.partition("/")
        return self.provider or (head if slash and not is_pattern(head) else None)


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for a model; a hidden one is served but not listed.

    A router chooses: one of the `others` may answer instead of its target. They are fallbacks of it besides.
    """

    name: str
    target: str
    hidden: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Where requests go when a model fails for one kind of reason; ANY_MODEL stands for models that are not named."""

    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[str, ...]:
        """List where a model may lead. LiteLLM also looks without the provider of a name, so both entries count."""
        without_provider = name.partition("/")[2]
        led = list(self.models.get(name, self.models.get(ANY_MODEL, ())))
        for entry, names in self.models.items():
            if entry not in {ANY_MODEL, name} and (entry == without_provider or captured(entry, name) is not None):
                led += names
        return tuple(led)


@dataclass(frozen=True, slots=True)
class CatalogSource:
    """All that a catalog is made of. `unknown_price` is what is paid where nobody has said a price."""

    offers: tuple[Offer, ...]
    aliases: tuple[Alias, ...] = ()
    fallbacks: tuple[Fallbacks, ...] = ()
    unknown_price: Prices = field(default_factory=lambda: Prices(ZERO, ZERO))
