"""What discovery shows: the models that a principal may use, and under `free_only` those that its budgets let it use.

A list is pruned by Envoy's response filter where the route says that it stands, and written from the catalog elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from extauthz.config.snapshot import Snapshot
from extauthz.domain import denials
from extauthz.domain.budgets import Budget, Counter, FilterKind, Measure, Standing
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.identity import Principal
from extauthz.domain.listings import Listing, listing_of
from extauthz.domain.model_names import is_pattern, permitting, restricting
from extauthz.domain.request import RequestFacts
from extauthz.domain.routes import Route
from extauthz.domain.verdict import AnswerModels, ModelsView, Pass, Reason, Verdict
from extauthz.envoy.names import PRUNE_EXTENSION
from extauthz.pricing.catalog import Catalog

# What the Check may give the filter with a request; a principal with longer lists gets its models from the catalog.
LISTS_CHARS_MAX = 16 * 1024


def shown(
    facts: RequestFacts,
    route: Route,
    principal: Principal,
    config: Snapshot,
    *,
    reason: Reason,
    free_only: bool,
    hidden: tuple[str, ...] = (),
) -> Verdict:
    """Answer a request for models, by the principal's own lists of models and, with `free_only`, by what is free.

    `hidden` are the names of models whose own budgets are exhausted. What is left out because of a budget has a reason
    of its own; otherwise it is `reason`.
    """
    lists = restricting(principal.models)
    if not free_only and not lists and not hidden:
        return Pass(reason)
    view = ModelsView.FREE_ONLY if free_only else ModelsView.ALLOWED
    reason = Reason.DISCOVERY_PRUNED if free_only or hidden else reason
    asked = listing_of(route.endpoint or Endpoint.MODEL_LIST, facts.path, facts.headers, lists)
    listing = replace(asked, hidden=hidden)
    visible = visible_in(view, listing, config.catalog)
    if route.model is not None:
        return Pass(reason) if visible(route.model) else denials.model_hidden(route.model)
    if facts.context.get(PRUNE_EXTENSION) == "on" and sum(map(len, sum(lists, hidden))) <= LISTS_CHARS_MAX:
        return Pass(reason, view, listing)
    return AnswerModels(reason, tuple(filter(visible, _names(config.catalog, listing))), listing)


def visible_in(view: ModelsView, listing: Listing, catalog: Catalog) -> Callable[[str], bool]:
    """Give what tells whether a list shows a model."""
    permitted, hidden = permitting(listing.lists), frozenset(map(str.casefold, listing.hidden))

    def shows(name: str) -> bool:
        return permitted(name) and (not hidden or hidden.isdisjoint(catalog.targets.known_as((name,))))

    match view:
        case ModelsView.FREE_ONLY:
            return lambda name: shows(name) and catalog.is_free(name)
        case ModelsView.ALLOWED:
            return shows


def watched(principal: Principal, now_ms: int, *, free_only: bool) -> list[tuple[Counter, int]]:
    """List the counters that decide what a list of models shows, with their limits.

    They are those of money for whatever is asked, and with `free_only` those of single models as well.
    """
    return [
        (budget.counter(scope.scope, budget.rule.at(now_ms)), budget.at(now_ms).limit)
        for scope in principal.scopes
        for budget in scope.budgets
        if scope.binds and (_is_of_all(budget) or (free_only and _is_of_a_model(budget)))
    ]


def _is_of_all(budget: Budget) -> bool:
    return budget.measure is Measure.USD and budget.only is None


def _is_of_a_model(budget: Budget) -> bool:
    return budget.only is not None and budget.only.kind is FilterKind.MODEL


def hidden_by(exhausted: Iterable[Standing], catalog: Catalog) -> tuple[str, ...]:
    """Name the models whose own budgets are exhausted; one in USD hides nothing that is free."""
    names = {
        only.name
        for standing in exhausted
        if (only := standing.counter.only) is not None and only.kind is FilterKind.MODEL
        if standing.counter.measure is not Measure.USD or not catalog.is_free(only.name)
    }
    return tuple(sorted(names))


def _names(catalog: Catalog, listing: Listing) -> tuple[str, ...]:
    if not listing.patterns:
        return catalog.listed()
    patterns = filter(is_pattern, (offer.name for offer in catalog.source.offers))
    return tuple(dict.fromkeys((*catalog.listed(), *patterns)))
