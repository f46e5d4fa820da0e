"""Model lists that the gate writes itself, in each shape, with what its configuration knows.

What nobody here knows is written as its API writes it when it does not know: the beginning of time, no size, nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from hashlib import sha256

from extauthz.domain.listings import Entry, Listing, Shape, ends, paged, totals
from extauthz.domain.prices import Rates

_OWNER = "extauthz"
_CREATED = 0
_CREATED_AT = "1970-01-01T00:00:00Z"
# The Codex CLI reads no list with an entry that lacks it, and has words of its own for models that it knows.
_INSTRUCTIONS = "You are a coding agent that runs in a terminal."

# LiteLLM's name of each rate.
_PRICE_NAMES: Mapping[str, str] = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read_input": "cache_read_input_token_cost",
    "cache_creation_input": "cache_creation_input_token_cost",
    "reasoning_output": "output_cost_per_reasoning_token",
    "cache_creation_1h_input": "cache_creation_input_token_cost_above_1hr",
    "cache_read_audio_input": "cache_read_input_audio_token_cost",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "image_output": "output_cost_per_image_token",
    "per_image": "output_cost_per_image",
    "per_second": "output_cost_per_second",
    "per_character": "input_cost_per_character",
    "per_query": "input_cost_per_query",
    "per_request": "input_cost_per_request",
}


@dataclass(frozen=True, slots=True)
class OfferedDeployment:
    """One upstream behind a model, with what it is charged at."""

    upstream_model: str
    provider: str | None
    rates: Rates


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that is shown. `context_tokens` and `output_tokens_max` are None when unknown."""

    name: str
    deployments: tuple[OfferedDeployment, ...]
    context_tokens: int | None = None
    output_tokens_max: int | None = None


def model_list(listing: Listing, models: Sequence[OfferedModel]) -> bytes:
    """Write a list of models in the shape that was asked for, as far as the request narrows it down."""
    search = (listing.search or "").casefold()
    named = [
        model
        for model in models
        if (listing.name is None or model.name == listing.name) and search in model.name.casefold()
    ]
    return to_json(_WRITERS[listing.shape](listing, named))


def to_json(document: object) -> bytes:
    """Write a document as it goes over the wire."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _openai(_: Listing, models: Sequence[OfferedModel]) -> Entry:
    data = [{"id": model.name, "object": "model", "created": _CREATED, "owned_by": _OWNER} for model in models]
    return {"object": "list", "data": data}


def _anthropic(listing: Listing, models: Sequence[OfferedModel]) -> Entry:
    entries = [
        {"type": "model", "id": model.name, "display_name": model.name, "created_at": _CREATED_AT} for model in models
    ]
    return {"data": paged(entries, listing.page), **ends(entries, listing.page)}


def _codex(_: Listing, models: Sequence[OfferedModel]) -> Entry:
    return {"models": [_codex_entry(model) for model in models]}


def _codex_entry(model: OfferedModel) -> Entry:
    return {
        "slug": model.name,
        "display_name": model.name,
        "description": None,
        "supported_reasoning_levels": [],
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 0,
        "service_tiers": [],
        "availability_nux": None,
        "upgrade": None,
        "base_instructions": _INSTRUCTIONS,
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "supports_parallel_tool_calls": False,
        "context_window": model.context_tokens,
        "experimental_supported_tools": [],
    }


def _ollama(_: Listing, models: Sequence[OfferedModel]) -> Entry:
    entries = [
        {
            "name": model.name,
            "model": model.name,
            "modified_at": _CREATED_AT,
            "size": 0,
            "digest": sha256(model.name.encode()).hexdigest(),
            "details": {
                "parent_model": "",
                "format": "",
                "family": "",
                "families": None,
                "parameter_size": "",
                "quantization_level": "",
            },
        }
        for model in models
    ]
    return {"models": entries}


def _deployments(listing: Listing, models: Sequence[OfferedModel]) -> Entry:
    return {"data": _rows(listing, models)}


def _deployment_pages(listing: Listing, models: Sequence[OfferedModel]) -> Entry:
    rows = _rows(listing, models)
    return {"data": paged(rows, listing.page), **totals(rows, listing.page)}


def _rows(listing: Listing, models: Sequence[OfferedModel]) -> list[Entry]:
    """Write a row for each deployment. Its id is ours: LiteLLM makes its own from what it alone knows."""
    rows: list[Entry] = []
    for model in models:
        for place, deployment in enumerate(model.deployments):
            row_id = sha256(f"{model.name}\n{place}\n{deployment.upstream_model}".encode()).hexdigest()
            if listing.deployment not in (None, row_id):
                continue
            prices = _prices(deployment.rates)
            info = {
                "id": row_id,
                "db_model": False,
                "litellm_provider": deployment.provider,
                "max_input_tokens": model.context_tokens,
                "max_output_tokens": model.output_tokens_max,
                **prices,
            }
            params = {"model": deployment.upstream_model, **prices}
            rows.append({"model_name": model.name, "litellm_params": params, "model_info": info})
    return rows


def _groups(_: Listing, models: Sequence[OfferedModel]) -> Entry:
    return {"data": [_group(model) for model in models]}


def _group(model: OfferedModel) -> Entry:
    """Write a model with the dearest of each price over its deployments, as LiteLLM does."""
    prices: dict[str, float] = {}
    for deployment in model.deployments:
        for name, price in _prices(deployment.rates).items():
            prices[name] = max(price, prices.get(name, price))
    providers = dict.fromkeys(deployment.provider for deployment in model.deployments if deployment.provider)
    return {
        "model_group": model.name,
        "providers": list(providers),
        "max_input_tokens": model.context_tokens,
        "max_output_tokens": model.output_tokens_max,
        **prices,
    }


def _prices(rates: Rates) -> dict[str, float]:
    found = {field.name: getattr(rates, field.name) for field in fields(Rates)}
    return {
        _PRICE_NAMES[name]: float(price)
        for name, price in found.items()
        if isinstance(price, Decimal) and name in _PRICE_NAMES
    }


_WRITERS: Mapping[Shape, Callable[[Listing, Sequence[OfferedModel]], Entry]] = {
    Shape.OPENAI: _openai,
    Shape.ANTHROPIC: _anthropic,
    Shape.CODEX: _codex,
    Shape.OLLAMA: _ollama,
    Shape.DEPLOYMENTS: _deployments,
    Shape.DEPLOYMENT_PAGES: _deployment_pages,
    Shape.GROUPS: _groups,
}
