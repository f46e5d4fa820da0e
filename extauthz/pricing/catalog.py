"""The models that are served, and what may be reached by naming one.

A name is a model of the list, an alias of one, or matches a pattern such as `openai/*`. From there fallbacks lead
further. A request is judged and priced by everything that it can reach, because the upstream decides what answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache, partial
from weakref import proxy

from extauthz.domain.model_names import captured, filled, is_pattern, most_specific
from extauthz.domain.prices import ZERO, Prices
from extauthz.pricing.cost import dearest, price_or
from extauthz.pricing.price_list import Listed

INPUT_PRICE = "input_cost_per_token"
OUTPUT_PRICE = "output_cost_per_token"
CACHE_READ_PRICE = "cache_read_input_token_cost"
CACHE_CREATION_PRICE = "cache_creation_input_token_cost"
REASONING_PRICE = "output_cost_per_reasoning_token"

# LiteLLM gives a higher rate of long prompts its own name, such as input_cost_per_token_above_200k_tokens.
TIER_INFIX = "_above_"

# LiteLLM's name for "every model that has no fallbacks of its own".
ANY_MODEL = "*"

REACH_MODELS_MAX = 256

# Names come from clients, so what is remembered of them is bounded.
FOUND_NAMES_MAX = 1024
REACHES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Deployment:
    """One upstream behind a model name.

    `free` only when its configuration says 0 for input and output explicitly and prices nothing else.
    """

    prices: Prices
    free: bool


@dataclass(frozen=True, slots=True)
class Model:
    """A model name with its deployments. `context_tokens` and `output_tokens_max` are None when unknown."""

    name: str
    deployments: tuple[Deployment, ...]
    context_tokens: int | None = None
    output_tokens_max: int | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything that a request can end up at: the models it names, their fallbacks, and the fallbacks it brings.

    `unknown` are the names of the request that the catalog does not have; a fallback of the configuration that leads
    nowhere is not among them, but nothing that may end there is free. `prices` is the dearest of each kind over all
    that is reached, and what is not known costs the unknown price. `context_tokens` and `output_tokens_max` are the
    largest, None as soon as one is unknown.
    """

    models: tuple[Model, ...]
    unknown: tuple[str, ...]
    free: bool
    prices: Prices
    context_tokens: int | None
    output_tokens_max: int | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What the configuration says of one deployment.

    `upstream_model` is what LiteLLM calls it (`openai/gpt-4o`; a `*` takes what the pattern of the name left open).
    `amounts` are all numbers that stand under the name of a price, in USD, with the innermost name of each.
    `leads_elsewhere` when it names fallbacks of its own.
    """

    name: str
    upstream_model: str
    provider: str | None = None
    amounts: tuple[tuple[str, Decimal], ...] = ()
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    leads_elsewhere: bool = False

    @property
    def free(self) -> bool:
        """Whether input and output cost 0 explicitly, nothing else costs anything, and nothing else can answer."""
        priced = {name for name, _ in self.amounts}
        explicit = {INPUT_PRICE, OUTPUT_PRICE} <= priced
        return explicit and not self.leads_elsewhere and all(amount == 0 for _, amount in self.amounts)

    @property
    def served_by(self) -> str | None:
        """The provider, as LiteLLM calls it; None when it is not named."""
        head, slash, _ = self.upstream_model.partition("/")
        return self.provider or (head if slash and not is_pattern(head) else None)

    def configured(self, kind: str) -> Decimal | None:
        """Give the highest configured price of a kind over its tiers, None when there is none."""
        amounts = (amount for name, amount in self.amounts if name == kind or name.startswith(kind + TIER_INFIX))
        return max(amounts, default=None)


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for a model; a hidden one is served but not listed."""

    name: str
    target: str
    hidden: bool = False


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
    """All that a catalog is made of. `unknown_price` is what tokens cost where nobody has said a price."""

    offers: tuple[Offer, ...]
    aliases: tuple[Alias, ...] = ()
    fallbacks: tuple[Fallbacks, ...] = ()
    unknown_price: Prices = field(default_factory=lambda: Prices(ZERO, ZERO))


class Catalog:
    """Answers what a name means. It never changes; `price_list` must not either."""

    def __init__(self, source: CatalogSource, price_list: Callable[[str, str | None], Listed | None]) -> None:
        self.source = source
        self._price_list = price_list
        self._unknown_price = source.unknown_price
        self._aliases = {alias.name: alias for alias in source.aliases}
        self._fallbacks = source.fallbacks
        self._offers: dict[str, list[Offer]] = {}
        for offer in source.offers:
            self._offers.setdefault(offer.name, []).append(offer)
        self._patterns = tuple(filter(is_pattern, self._offers))
        self._models = {name: self._model(name, name) for name in self._offers if not is_pattern(name)}
        # A catalog that holds a cache that holds the catalog would outlive its configuration by a while.
        catalog = proxy(self)
        self._find_by_pattern = lru_cache(FOUND_NAMES_MAX)(partial(Catalog._model, catalog))
        self._reach = lru_cache(REACHES_MAX)(partial(Catalog._reached, catalog))
        self._dearest = self._dearest_of_all()

    def __len__(self) -> int:
        """Count the models, patterns included."""
        return len(self._offers)

    def find(self, name: str) -> Model | None:
        """Find a model by its name, by an alias, or by the most specific pattern; None when nothing matches.

        A model that a pattern stands for bears the name that was asked for.
        """
        name, offered_as = self._resolved(name)
        return self._offered(name, offered_as) if offered_as is not None else None

    def entry(self, name: str) -> str | None:
        """Tell the entry of the model list that a name means, a pattern included; None when nothing matches.

        Unlike the name it was never written by a client.
        """
        return self._resolved(name)[1]

    def provider(self, name: str) -> str | None:
        """Tell which provider serves a model, as LiteLLM calls it; None when several do, or nobody has said so."""
        entry = self.entry(name)
        providers = {offer.served_by for offer in self._offers[entry]} if entry is not None else {None}
        return providers.pop() if len(providers) == 1 else None

    def reach(self, names: Sequence[str], fallbacks: Sequence[str] = ()) -> Reach:
        """Follow names, and the fallbacks that a request brings itself, to everything that may answer it.

        Nothing named is nothing known: not free, at the price of an unknown model.
        """
        return self._reach((*names, *fallbacks))

    def is_free(self, name: str) -> bool:
        """Tell whether all that a name can lead to is known and free.

        It looks at no price list: a model list to be pruned may have thousands of names.
        """
        reached, unknown = self._follow((name,))
        return not unknown and all(offer.free for offered_as in reached.values() for offer in self._offers[offered_as])

    def dearest(self) -> Prices:
        """Give the dearest price of each kind over all models, for a request that may name any of them unseen."""
        return self._dearest

    def listed(self) -> tuple[str, ...]:
        """List the names for the public: models and aliases, without patterns and hidden aliases."""
        visible = (alias.name for alias in self._aliases.values() if not alias.hidden)
        return tuple(dict.fromkeys((*self._models, *visible)))

    def astray(self) -> tuple[str, ...]:
        """List the names that aliases and fallbacks lead to and that are not there."""
        led = (name for fallbacks in self._fallbacks for names in fallbacks.models.values() for name in names)
        targets = (alias.target for alias in self._aliases.values())
        return tuple(name for name in dict.fromkeys((*targets, *led)) if self.find(name) is None)

    def unpriced(self) -> tuple[str, ...]:
        """List the models with a deployment whose tokens have no price, neither of its own nor in the price list."""
        return tuple(
            name
            for name in self._models
            if any(_lacks_price(offer, self._listed(offer, name)) for offer in self._offers[name])
        )

    def _dearest_of_all(self) -> Prices:
        prices = [deployment.prices for model in self._models.values() for deployment in model.deployments]
        prices += [self._prices(offer, None) for pattern in self._patterns for offer in self._offers[pattern]]
        return dearest(prices or [self._unknown_price])

    def _resolved(self, name: str) -> tuple[str, str | None]:
        """Give the name of the model that a name means, and the entry of the list that offers it, None without one."""
        alias = self._aliases.get(name)
        if name not in self._models and alias is not None:
            name = alias.target
        return name, name if name in self._models else most_specific(self._patterns, name)

    def _offered(self, name: str, offered_as: str) -> Model:
        return self._models.get(name) or self._find_by_pattern(offered_as, name)

    def _model(self, offered_as: str, name: str) -> Model:
        offers = self._offers[offered_as]
        listed = [self._listed(offer, name) for offer in offers]
        contexts = [
            offer.context_tokens or (entry.context_tokens if entry is not None else None)
            for offer, entry in zip(offers, listed, strict=True)
        ]
        return Model(
            name=name,
            deployments=tuple(
                Deployment(self._prices(offer, entry), offer.free) for offer, entry in zip(offers, listed, strict=True)
            ),
            context_tokens=_largest(contexts),
            output_tokens_max=_largest([offer.output_tokens_max for offer in offers]),
        )

    def _listed(self, offer: Offer, name: str) -> Listed | None:
        texts = captured(offer.name, name) or ()
        return self._price_list(filled(offer.upstream_model, texts), offer.provider)

    def _prices(self, offer: Offer, listed: Listed | None) -> Prices:
        """Price a deployment: by its configuration, else by the list, else as unknown.

        The list's price of a special kind (cached, reasoning) belongs to the list's plain price: beside a configured
        plain price it is left out.
        """
        entry = listed or Listed(None, None)
        own_input, own_output = offer.configured(INPUT_PRICE), offer.configured(OUTPUT_PRICE)
        cache_read = None if own_input is not None else entry.cache_read_input
        cache_creation = None if own_input is not None else entry.cache_creation_input
        reasoning = None if own_output is not None else entry.reasoning_output
        plain_input, plain_output = _first(own_input, entry.input), _first(own_output, entry.output)
        if plain_input == plain_output == 0 and not offer.free:
            # Paid by the image, the second or the request, which no usage tells: never booked as nothing.
            return self._unknown_price
        return Prices(
            input=price_or(plain_input, self._unknown_price.input),
            output=price_or(plain_output, self._unknown_price.output),
            cache_read_input=_first(offer.configured(CACHE_READ_PRICE), cache_read),
            cache_creation_input=_first(offer.configured(CACHE_CREATION_PRICE), cache_creation),
            reasoning_output=_first(offer.configured(REASONING_PRICE), reasoning),
        )

    def _reached(self, names: tuple[str, ...]) -> Reach:
        reached, unknown = self._follow(names)
        models = tuple(self._offered(name, offered_as) for name, offered_as in reached.items())
        return self._judged(models, names, unknown)

    def _follow(self, names: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
        """Give all models that names lead to, each with the entry of the list that offers it, and the unknown names."""
        reached: dict[str, str] = {}
        unknown: list[str] = []
        waiting = list(dict.fromkeys(names))
        seen = set(waiting)
        while waiting:
            name = waiting.pop()
            model, offered_as = self._resolved(name)
            if offered_as is None or len(reached) >= REACH_MODELS_MAX:
                unknown.append(name)
                continue
            reached[model] = offered_as
            further = [each for each in dict.fromkeys(self._leads_to(name, model)) if each not in seen]
            seen.update(further)
            waiting.extend(further)
        return reached, unknown

    def _leads_to(self, name: str, model: str) -> list[str]:
        """List where a name may lead next.

        An alias that bears the name of a model leads to both: which of them answers is up to the upstream.
        """
        led = [further for fallbacks in self._fallbacks for each in {name, model} for further in fallbacks.of(each)]
        if name in self._aliases:
            led.append(self._aliases[name].target)
        return led

    def _judged(self, models: tuple[Model, ...], names: tuple[str, ...], unknown: Sequence[str]) -> Reach:
        deployments = [deployment for model in models for deployment in model.deployments]
        prices = [deployment.prices for deployment in deployments]
        if unknown or not prices:
            prices.append(self._unknown_price)
        surroundings = [None] if unknown or not models else []
        return Reach(
            models=models,
            unknown=tuple(name for name in dict.fromkeys(names) if name in unknown),
            free=bool(models) and not unknown and all(deployment.free for deployment in deployments),
            prices=dearest(prices),
            context_tokens=_largest([*surroundings, *(model.context_tokens for model in models)]),
            output_tokens_max=_largest([*surroundings, *(model.output_tokens_max for model in models)]),
        )


def _first(price: Decimal | None, other: Decimal | None) -> Decimal | None:
    return other if price is None else price


def _lacks_price(offer: Offer, listed: Listed | None) -> bool:
    entry = listed or Listed(None, None)
    plain_input = _first(offer.configured(INPUT_PRICE), entry.input)
    plain_output = _first(offer.configured(OUTPUT_PRICE), entry.output)
    nothing = plain_input == plain_output == 0 and not offer.free
    return plain_input is None or (plain_output is None and listed is None) or nothing


def _largest(limits: Sequence[int | None]) -> int | None:
    """Take the largest limit; None as soon as one is unknown."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None
