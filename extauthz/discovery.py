"""What discovery shows: the models that a principal may use, and under `free_only` without money the free ones of them.

A list is pruned by Envoy's response filter where the route says that it stands, and written from the catalog elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from extauthz.config.snapshot import Snapshot
from extauthz.domain import denials
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
    facts: RequestFacts, route: Route, principal: Principal, config: Snapshot, *, reason: Reason, free_only: bool
) -> Verdict:
    """Answer a request for models, by the principal's own lists of models and, with `free_only`, by what is free.

    What is left out because it costs money has a reason of its own; otherwise it is `reason`.
    """
    lists = restricting(principal.models)
    if not free_only and not lists:
        return Pass(reason)
    view = ModelsView.FREE_ONLY if free_only else ModelsView.ALLOWED
    reason = Reason.DISCOVERY_PRUNED if free_only else reason
    listing = listing_of(route.endpoint or Endpoint.MODEL_LIST, facts.path, facts.headers, lists)
    visible = visible_in(view, listing, config.catalog)
    if route.model is not None:
        return Pass(reason) if visible(route.model) else denials.model_hidden(route.model)
    if facts.context.get(PRUNE_EXTENSION) == "on" and sum(map(len, sum(lists, ()))) <= LISTS_CHARS_MAX:
        return Pass(reason, view, listing)
    return AnswerModels(reason, tuple(filter(visible, _names(config.catalog, listing))), listing)


def visible_in(view: ModelsView, listing: Listing, catalog: Catalog) -> Callable[[str], bool]:
    """Give what tells whether a list shows a model."""
    permitted = permitting(listing.lists)
    match view:
        case ModelsView.FREE_ONLY:
            return lambda name: permitted(name) and catalog.is_free(name)
        case ModelsView.ALLOWED:
            return permitted


def _names(catalog: Catalog, listing: Listing) -> tuple[str, ...]:
    if not listing.patterns:
        return catalog.listed()
    patterns = filter(is_pattern, (offer.name for offer in catalog.source.offers))
    return tuple(dict.fromkeys((*catalog.listed(), *patterns)))
