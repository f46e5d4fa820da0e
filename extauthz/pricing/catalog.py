"""The models that are served, and what may be reached by naming one.

A name is a model of the list, an alias of one, or matches a pattern such as `openai/*`. From there fallbacks lead
further. A request is judged and priced by everything that it can reach, because the upstream decides what answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from weakref import proxy

from extauthz.domain.model_names import captured, filled, is_pattern, most_specific
from extauthz.domain.prices import Prices
from extauthz.pricing.amounts import PLAIN_INPUT, completed, kinds_of, prices_of, unsettled
from extauthz.pricing.cost import CALL_KINDS, OUTPUT_KINDS, dearest, dearest_kind
from extauthz.pricing.offers import CatalogSource, Offer
from extauthz.pricing.price_list import Listed
from extauthz.pricing.targets import Targets

# Kinds that make a price: with none of these, nobody has said what a call costs.
_PRICING_KINDS = frozenset({*PLAIN_INPUT, *OUTPUT_KINDS, *CALL_KINDS})

REACH_MODELS_MAX = 256

# Names come from clients, so what is remembered of them is bounded.
FOUND_NAMES_MAX = 1024
REACHES_MAX = 1024


class PriceSource(StrEnum):
    """Who says what a deployment costs, the surest first."""

    CONFIG = "config"
    LIST = "genai-prices"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One upstream behind a model name.

    `free` only when its configuration says 0 for input and output explicitly and prices nothing else. `names` are what
    its answers may call the model.
    """

    prices: Prices
    free: bool
    source: PriceSource = PriceSource.CONFIG
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model name with its deployments. `context_tokens` and `output_tokens_max` are None when unknown."""

    name: str
    deployments: tuple[Deployment, ...]
    context_tokens: int | None = None
    output_tokens_max: int | None = None

    @property
    def priced(self) -> bool:
        """Whether somebody has said what each deployment costs."""
        return all(deployment.source is not PriceSource.UNKNOWN for deployment in self.deployments)


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything that a request can end up at: the models it names, their fallbacks, and the fallbacks it brings.

    `unknown` are the names of the request that the catalog does not have; a fallback of the configuration that leads
    nowhere is not among them, but nothing that may end there is free. `prices` is the dearest of each kind over all
    that is reached, and what is not known costs the unknown price; `source` is the least sure of those who said so.
    `prices_max` has the dearest kind for all kinds of token: many requests go the same way, and ask for it.
    `context_tokens` and `output_tokens_max` are the largest, None as soon as one is unknown.
    """

    models: tuple[Model, ...]
    unknown: tuple[str, ...]
    free: bool
    prices: Prices
    context_tokens: int | None
    output_tokens_max: int | None
    source: PriceSource = PriceSource.CONFIG
    prices_max: Prices = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prices_max", dearest_kind(self.prices))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models that nobody has a price for."""
        return tuple(model.name for model in self.models if not model.priced)


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer costs by the model that it names.

    `free` as for a deployment. `expected` when the model that was asked for may lead there.
    """

    prices: Prices
    free: bool
    expected: bool


class Catalog:
    """Answers what a name means. It never changes; `price_list` must not either.

    `targets` tells which budgets of single models and providers a name is for.
    """

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
        self._answering: dict[str, list[Deployment]] = {}
        for model in self._models.values():
            for deployment in model.deployments:
                for name in deployment.names:
                    self._answering.setdefault(name, []).append(deployment)
        # A catalog that holds a cache that holds the catalog would outlive its configuration by a while.
        catalog = proxy(self)
        self._find_by_pattern = lru_cache(FOUND_NAMES_MAX)(partial(Catalog._model, catalog))
        self._reach = lru_cache(REACHES_MAX)(partial(Catalog._reached, catalog))
        self.targets = Targets(self._offers, self._aliases, partial(Catalog._resolved, catalog))
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

    def answered(self, named: str, asked: str) -> Answered | None:
        """Tell what an answer costs that names a model, when another or the same was asked for; None for one unknown.

        A name is looked for among what was asked for and all that this may lead to, then among the names of the list,
        then among those that upstreams use. Patterns stand for what they are asked for, not for what answers.
        """
        model, _ = self._resolved(named)
        meant = {model, self._aliases[named].target if named in self._aliases else model}
        deployments = [
            deployment
            for reached in self._reach((asked,)).models
            for deployment in reached.deployments
            if reached.name in meant or named in deployment.names
        ]
        expected = bool(deployments)
        if not expected and model in self._models:
            deployments = [*self._models[model].deployments]
        deployments = deployments or self._answering.get(named, [])
        if not deployments:
            return None
        prices = [deployment.prices for deployment in deployments]
        return Answered(
            dearest(prices),
            free=all(deployment.free for deployment in deployments),
            expected=expected,
        )

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
        """List the models with a deployment that has no price, neither of its own nor in the price list."""
        return tuple(name for name, model in self._models.items() if not model.priced)

    def unsettled(self) -> tuple[tuple[str, str], ...]:
        """List configured prices by which nothing is booked, each with its model: no answer shows what they count."""
        return tuple(
            (name, price)
            for name, offers in self._offers.items()
            for offer in offers
            for price in unsettled(offer.amounts)
        )

    def _dearest_of_all(self) -> Prices:
        prices = [deployment.prices for model in self._models.values() for deployment in model.deployments]
        prices += [self._priced(offer, None)[0] for pattern in self._patterns for offer in self._offers[pattern]]
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
                Deployment(*self._priced(offer, entry), _names(offer, name))
                for offer, entry in zip(offers, listed, strict=True)
            ),
            context_tokens=_largest(contexts),
            output_tokens_max=_largest([offer.output_tokens_max for offer in offers]),
        )

    def _listed(self, offer: Offer, name: str) -> Listed | None:
        texts = captured(offer.name, name) or ()
        return self._price_list(filled(offer.upstream_model, texts), offer.provider)

    def _priced(self, offer: Offer, listed: Listed | None) -> tuple[Prices, bool, PriceSource]:
        """Price a deployment: by its configuration, else by the list, else as unknown; and say by which."""
        amounts = completed(offer.amounts, () if listed is None else listed.amounts)
        said = kinds_of(amounts)
        prices = prices_of(amounts, self._unknown_price, offer.uplift)
        if prices.input == prices.output == 0 and not offer.free:
            # Paid by something that no answer shows, or free by hearsay: never booked as nothing.
            settled = any(amount.usd > 0 and amount.kind is not None for amount in amounts)
            if not (offer.explicit and settled):
                return self._unknown_price, offer.free, PriceSource.UNKNOWN
        if said.isdisjoint(_PRICING_KINDS):
            return self._unknown_price, offer.free, PriceSource.UNKNOWN
        return prices, offer.free, _source(offer, said, listed)

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
        sources = [deployment.source for deployment in deployments]
        if unknown or not prices:
            prices.append(self._unknown_price)
            sources.append(PriceSource.UNKNOWN)
        surroundings = [None] if unknown or not models else []
        return Reach(
            models=models,
            unknown=tuple(name for name in dict.fromkeys(names) if name in unknown),
            free=bool(models) and not unknown and all(deployment.free for deployment in deployments),
            prices=dearest(prices),
            source=max(sources, key=list(PriceSource).index),
            context_tokens=_largest([*surroundings, *(model.context_tokens for model in models)]),
            output_tokens_max=_largest([*surroundings, *(model.output_tokens_max for model in models)]),
        )


def _source(offer: Offer, said: set[str | None], listed: Listed | None) -> PriceSource:
    """Tell who says what a deployment costs. A list that knows a model also knows that it has no output."""
    by_the_call = not said.isdisjoint(CALL_KINDS)
    reads, writes = not said.isdisjoint(PLAIN_INPUT), not said.isdisjoint(OUTPUT_KINDS)
    if not by_the_call and not (reads and (writes or listed is not None)):
        return PriceSource.UNKNOWN
    return PriceSource.LIST if kinds_of(offer.amounts).isdisjoint(_PRICING_KINDS) else PriceSource.CONFIG


def _names(offer: Offer, name: str) -> tuple[str, ...]:
    """List what the answers of a deployment may call the model: as LiteLLM does, or without the provider."""
    upstream = filled(offer.upstream_model, captured(offer.name, name) or ())
    return tuple(dict.fromkeys((upstream, upstream.partition("/")[2] or upstream)))


def _largest(limits: Sequence[int | None]) -> int | None:
    """Take the largest limit; None as soon as one is unknown."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None
