"""The models of these tests, each with the price fields that LiteLLM has for its kind, and no two prices alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from tests.support.apis.used import Fields

FLAT_USD = "0.10"
# What a request is expected to answer in tokens: a fixed number, so that what is held can be checked.
OUTPUT_TOKENS = 64

PRICES: Mapping[str, Fields] = MappingProxyType(
    {
        "omni": {
            "input_cost_per_token": "0.000003",
            "output_cost_per_token": "0.000015",
            "cache_read_input_token_cost": "0.0000003",
            "cache_creation_input_token_cost": "0.00000375",
            "cache_creation_input_token_cost_above_1hr": "0.000006",
            "output_cost_per_reasoning_token": "0.0000175",
            "input_cost_per_audio_token": "0.00004",
            "output_cost_per_audio_token": "0.00008",
            "cache_read_input_audio_token_cost": "0.0000025",
            "input_cost_per_image_token": "0.0000071",
        },
        "vector": {"input_cost_per_token": "0.00000013", "output_cost_per_token": "0"},
        "painter": {"output_cost_per_image": "0.041"},
        "sketcher": {
            "input_cost_per_token": "0.000005",
            "input_cost_per_image_token": "0.00001",
            "output_cost_per_token": "0.00003",
            "output_cost_per_image_token": "0.000042",
        },
        "speaker": {"input_cost_per_character": "0.000015"},
        "announcer": {"input_cost_per_token": "0.0000006", "output_cost_per_token": "0.000012"},
        "scribe": {"input_cost_per_second": "0.0001"},
        "listener": {
            "input_cost_per_token": "0.0000025",
            "input_cost_per_audio_token": "0.0000061",
            "output_cost_per_token": "0.00001",
        },
        "ranker": {"input_cost_per_token": "0", "output_cost_per_token": "0", "input_cost_per_query": "0.002"},
        "token-ranker": {"input_cost_per_token": "0.00000005", "output_cost_per_token": "0"},
        "director": {"output_cost_per_second": "0.11"},
        "stepped": {
            "input_cost_per_token": "0.000002",
            "output_cost_per_token": "0.000008",
            "input_cost_per_token_above_200k_tokens": "0.0000041",
            "output_cost_per_token_above_200k_tokens": "0.0000123",
            "input_cost_per_token_priority": "0.0000035",
            "output_cost_per_token_priority": "0.000014",
            "input_cost_per_token_flex": "0.0000011",
            "output_cost_per_token_flex": "0.0000043",
        },
        "toll": {
            "input_cost_per_token": "0.000001",
            "output_cost_per_token": "0.000002",
            "input_cost_per_request": "0.0005",
            "search_context_cost_per_query": "0.01",
        },
        "local-llama": {"input_cost_per_token": "0", "output_cost_per_token": "0"},
    }
)


# Prices that stand in lists, by the length of the input: what a price field of LiteLLM's looks like for some providers.
SHORT = {"input_cost_per_token": "0.0000005", "output_cost_per_token": "0.000003"}
LONG = {"input_cost_per_token": "0.0000009", "output_cost_per_token": "0.000005"}
TIERED = (([0, 32_000], SHORT), ([32_000, 128_000], LONG))


def at(end: str, prices: Fields) -> Fields:
    """Give the prices whose names end so, by their names without it."""
    return {name.removesuffix(end): usd for name, usd in prices.items() if name.endswith(end)}


def model_list() -> str:
    """Write `model_list:` of a configuration, as one line of YAML."""
    params: dict[str, dict[str, object]] = {
        name: {field: _written(field, usd) for field, usd in prices.items()} for name, prices in PRICES.items()
    }
    params["tiered"] = {"tiered_pricing": [{"range": range_, **_numbers(prices)} for range_, prices in TIERED]}
    entries = [
        {"model_name": name, "litellm_params": {"model": f"custom/{name}", **fields}} for name, fields in params.items()
    ]
    return f"model_list: {json.dumps(entries)}"


def _written(field: str, usd: str) -> object:
    if field != "search_context_cost_per_query":
        return float(usd)
    return dict.fromkeys((f"search_context_size_{size}" for size in ("low", "medium", "high")), float(usd))


def _numbers(prices: Fields) -> dict[str, float]:
    return {name: float(usd) for name, usd in prices.items()}
