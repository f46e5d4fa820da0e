"""An inference request as a whole: what its path, query, headers and body ask for together."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs

from extauthz.domain.ask import Ask, Unreadable
from extauthz.domain.body import read_ask
from extauthz.domain.endpoints import Charge, Endpoint
from extauthz.domain.model_names import allowed
from extauthz.domain.named import agree_on_model
from extauthz.domain.request import RequestFacts
from extauthz.domain.routes import Route

# A call that no row has may do without a model when it is one of these; a read could be a list of models.
_MAKING = frozenset({"POST", "PUT", "PATCH"})


def ask_of(facts: RequestFacts, route: Route) -> Ask | Unreadable:
    """Read what a request asks for, and make sure that every place that names a model names the same."""
    _, asks_more, written = facts.path.partition("?")
    query = parse_qs(written) if asks_more else {}
    query_models = (*query.get("model", ()), *(query.get("deployment", ()) if _is_realtime(route) else ()))
    header_models = facts.headers.get("x-litellm-model", ())
    content_types = facts.headers.get("content-type")
    flat = route.charge is Charge.FLAT and route.certain and facts.method in _MAKING
    ask = read_ask(
        facts.body,
        truncated=facts.truncated,
        endpoint=route.endpoint or Endpoint.OPAQUE,
        content_type=None if content_types is None else ",".join(content_types),
        model_required=not (flat or route.model or query_models or header_models),
    )
    if isinstance(ask, Unreadable):
        return ask
    if route.stream or route.guessed:
        ask = replace(ask, stream=ask.stream or route.stream, guessed=route.guessed)
    return agree_on_model(
        ask,
        path_model=route.model,
        query_models=query_models,
        header_models=header_models,
        required=not flat,
    )


def counted_model(facts: RequestFacts, route: Route, lists: tuple[tuple[str, ...], ...]) -> str | None:
    """Give the model whose tokens are counted, None where it is not one that the principal's lists allow."""
    if route.endpoint is not Endpoint.COUNT_TOKENS:
        return None
    ask = ask_of(facts, route)
    names = () if isinstance(ask, Unreadable) else ask.models
    return names[0] if len(names) == 1 and allowed(names[0], lists) else None


def never_exempt(ask: Ask, route: Route) -> bool:
    """Tell a call that may run other models than the one it names, however free that is: a batch, a search.

    So may one that is not known (`videos/{id}/remix` runs the film's), one with a stored prompt, and one whose path has
    several readings: another reader may find a model in it.
    """
    flat = route.charge is Charge.FLAT and route.endpoint is not Endpoint.OPAQUE
    return flat or ask.guessed or ask.templated or not route.certain


def _is_realtime(route: Route) -> bool:
    # Azure names a deployment here.
    return route.endpoint is Endpoint.REALTIME
