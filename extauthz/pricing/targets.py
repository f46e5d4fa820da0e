"""Which budgets of single models and providers a request is for, by the names that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from weakref import proxy

from extauthz.domain.budgets import Filter, FilterKind
from extauthz.domain.claims import ANYTHING, Target
from extauthz.domain.model_names import captured, filled, is_pattern, most_specific
from extauthz.pricing.offers import Alias, Offer

# Names come from clients, so what is remembered of them is bounded.
TARGETS_MAX = 1024

# How the names of models begin that LiteLLM takes for these providers' without being told.
_WELL_KNOWN = dict.fromkeys(
    ("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e-", "whisper-", "tts-"), "openai"
) | {"claude-": "anthropic"}


class Targets:
    """Knows the names of a catalog. `resolve` gives the model that a name means, and the entry that offers it."""

    def __init__(
        self,
        offers: Mapping[str, Sequence[Offer]],
        aliases: Mapping[str, Alias],
        resolve: Callable[[str], tuple[str, str | None]],
    ) -> None:
        self._offers = offers
        self._aliases = aliases
        self._resolve = resolve
        # It would outlive its configuration by a while if its own cache held it.
        self._found = lru_cache(TARGETS_MAX)(partial(Targets._target, proxy(self)))

    def of(self, names: Sequence[str]) -> Target:
        """Tell by what names budgets of single models know names, and which providers these lead to.

        Fallbacks of the configuration count as what they stand in for. Nothing named may be anything.
        """
        return self._found(tuple(names)) if names else ANYTHING

    def known_as(self, names: Iterable[str]) -> frozenset[str]:
        """Give names with and without their providers, what they are aliases of, and the entries that offer them.

        All of them are case folded.
        """
        led = self._with_targets(names)
        entries = (entry for _, entry in map(self._resolve, led) if entry is not None)
        return frozenset(map(str.casefold, (*led, *(name.rpartition("/")[2] for name in led), *entries)))

    def can_count(self, only: Filter) -> bool:
        """Tell whether a budget of a single model or provider can be for any request."""
        if only.kind is FilterKind.PROVIDER:
            offers = (offer for each in self._offers.values() for offer in each)
            providers = {_provider(offer, offer.name) for offer in offers}
            return None in providers or only.name.casefold() in {str(provider).casefold() for provider in providers}
        patterns = tuple(filter(is_pattern, self._offers))
        # Behind the provider of a pattern may stand any name.
        behind = "/" not in only.name and any("/" in pattern for pattern in patterns)
        known = only.name.casefold() in self.known_as((*self._offers, *self._aliases))
        return known or behind or most_specific(patterns, only.name) is not None

    def _target(self, names: tuple[str, ...]) -> Target:
        resolved = map(self._resolve, self._with_targets(names))
        providers = {
            _provider(offer, model)
            for model, offered_as in resolved
            if offered_as is not None
            for offer in self._offers[offered_as]
        }
        told = frozenset(provider.casefold() for provider in providers if provider is not None)
        return Target(self.known_as(names), told if told and None not in providers else None)

    def _with_targets(self, names: Iterable[str]) -> dict[str, None]:
        """Add what names are aliases of: one that bears the name of a model leads to both, a router to all it knows."""
        asked = dict.fromkeys(names)
        aliases = [self._aliases[name] for name in asked if name in self._aliases]
        targets = (target for alias in aliases for target in (alias.target, *alias.others))
        return dict.fromkeys((*asked, *targets))


def _provider(offer: Offer, name: str) -> str | None:
    """Tell which provider serves a deployment for a name, as LiteLLM calls it; None when nobody says so.

    As in LiteLLM, the two best known need not be named.
    """
    if offer.provider is not None:
        return offer.provider
    upstream = filled(offer.upstream_model, captured(offer.name, name) or ())
    head, slash, _ = upstream.partition("/")
    if slash:
        return head if not is_pattern(head) else None
    return next((provider for beginning, provider in _WELL_KNOWN.items() if upstream.startswith(beginning)), None)
