"""Model lists that the gate writes itself."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from extauthz.domain.listings import Listing, Page, Shape
from extauthz.domain.model_lists import OfferedDeployment, OfferedModel, model_list
from extauthz.domain.prices import ZERO, Rates
from extauthz.pricing.amounts import Amount
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offered import offered
from extauthz.pricing.offers import Alias, CatalogSource, Offer

CHEAP = OfferedDeployment("openai/gpt-4o", "openai", Rates(Decimal("0.0000025"), Decimal("0.00001")))
DEAR = OfferedDeployment(
    "azure/gpt-4o", "azure", Rates(Decimal("0.000003"), Decimal("0.00001"), cache_read_input=Decimal("0.000001"))
)
CLEVER = OfferedModel("gpt-4o", (CHEAP, DEAR), context_tokens=128_000, output_tokens_max=16_384)
LOCAL = OfferedModel("local-llama", (OfferedDeployment("llama", None, Rates(ZERO, ZERO)),))
MODELS = (CLEVER, LOCAL)


def written(listing: Listing, models: tuple[OfferedModel, ...] = MODELS) -> dict[str, Any]:
    """Write a list, and read it as clients do."""
    document: dict[str, Any] = json.loads(model_list(listing, models))
    return document


def test_openais_shape() -> None:
    """OpenAI's four fields, of which two are made up."""
    entries = [
        {"id": name, "object": "model", "created": 0, "owned_by": "extauthz"} for name in ("gpt-4o", "local-llama")
    ]

    assert {"object": "list", "data": entries} == written(Listing())


def test_anthropics_shape() -> None:
    """A model whose date is unknown was made when time began, which is what Anthropic's own API writes."""
    entries = [
        {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
        for name in ("gpt-4o", "local-llama")
    ]
    frame = {"has_more": False, "first_id": "gpt-4o", "last_id": "local-llama"}

    assert {"data": entries, **frame} == written(Listing(shape=Shape.ANTHROPIC))
    first = {"data": entries[:1], "has_more": True, "first_id": "gpt-4o", "last_id": "gpt-4o"}
    assert first == written(Listing(shape=Shape.ANTHROPIC, page=Page(1)))


def test_codexs_shape() -> None:
    """Names and what Codex must have to read the list at all."""
    entries = written(Listing(shape=Shape.CODEX))["models"]

    assert ["gpt-4o", "local-llama"] == [entry["slug"] for entry in entries]
    assert [128_000, None] == [entry["context_window"] for entry in entries]
    assert all(entry["base_instructions"] and entry["visibility"] == "list" for entry in entries)


def test_ollamas_shape() -> None:
    """The name stands in it twice."""
    entries = written(Listing(shape=Shape.OLLAMA))["models"]

    assert [("gpt-4o", "gpt-4o"), ("local-llama", "local-llama")] == [(each["name"], each["model"]) for each in entries]
    assert {64} == {len(entry["digest"]) for entry in entries}


def test_a_row_for_each_deployment_with_its_prices() -> None:
    """As LiteLLM's /model/info has it, with ids of our own."""
    rows = written(Listing(shape=Shape.DEPLOYMENTS))["data"]
    cheap = {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}

    assert ["gpt-4o", "gpt-4o", "local-llama"] == [row["model_name"] for row in rows]
    assert {"model": "openai/gpt-4o", **cheap} == rows[0]["litellm_params"]
    assert {
        "id": rows[0]["model_info"]["id"],
        "db_model": False,
        "litellm_provider": "openai",
        "max_input_tokens": 128_000,
        "max_output_tokens": 16_384,
        **cheap,
    } == rows[0]["model_info"]
    assert 1e-06 == rows[1]["model_info"]["cache_read_input_token_cost"]
    assert 0 == rows[2]["model_info"]["output_cost_per_token"]
    assert 3 == len({row["model_info"]["id"] for row in rows})


def test_pages_of_rows_and_their_totals() -> None:
    """As LiteLLM's /v2/model/info has them."""
    answer = written(Listing(shape=Shape.DEPLOYMENT_PAGES, page=Page(2, 2)))

    assert ["local-llama"] == [row["model_name"] for row in answer.pop("data")]
    assert {"total_count": 3, "current_page": 2, "total_pages": 2, "size": 2} == answer


def test_a_group_has_its_dearest_prices() -> None:
    """As LiteLLM's /model_group/info has it: the maximum over the deployments."""
    (group,) = written(Listing(shape=Shape.GROUPS), (replace(CLEVER, deployments=(DEAR, CHEAP)),))["data"]

    assert {
        "model_group": "gpt-4o",
        "providers": ["azure", "openai"],
        "max_input_tokens": 128_000,
        "max_output_tokens": 16_384,
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1e-06,
    } == group


@pytest.mark.parametrize(
    ("narrowed", "names"),
    [
        ({"shape": Shape.GROUPS, "name": "gpt-4o"}, ["gpt-4o"]),
        ({"shape": Shape.GROUPS, "name": "gpt"}, []),
        ({"shape": Shape.DEPLOYMENT_PAGES, "search": "LLAMA"}, ["local-llama"]),
        ({"shape": Shape.DEPLOYMENTS, "deployment": "d43c"}, []),
    ],
)
def test_a_list_is_narrowed_down_as_asked(narrowed: dict[str, Any], names: list[str]) -> None:
    """By the parameters that the catalog can answer."""
    entries = written(Listing(**narrowed))["data"]

    assert names == [entry.get("model_group", entry.get("model_name")) for entry in entries]


def test_one_deployment_is_found_by_its_id() -> None:
    """By the id that its row had."""
    rows = written(Listing(shape=Shape.DEPLOYMENTS))["data"]

    found = written(Listing(shape=Shape.DEPLOYMENTS, deployment=rows[1]["model_info"]["id"]))

    assert {"data": [rows[1]]} == found


def test_the_catalog_tells_of_deployments_aliases_and_patterns() -> None:
    """An alias is shown under its own name; a model by a pattern with the upstream's name filled in."""
    offers = (
        Offer("gpt-4o", "openai/gpt-4o", amounts=(Amount("input_cost_per_token", Decimal(1)),), context_tokens=9),
        Offer("open/*", "openai/*"),
    )
    source = CatalogSource(offers, (Alias("clever", "gpt-4o"),))
    models = offered(Catalog(source, lambda _, __: None), ("clever", "open/x/y", "open/*", "nothing"))

    assert ["clever", "open/x/y", "open/*"] == [model.name for model in models]
    assert [["openai/gpt-4o"], ["openai/x/y"], ["openai/*"]] == [
        [deployment.upstream_model for deployment in model.deployments] for model in models
    ]
    assert (9, Decimal(1)) == (models[0].context_tokens, models[0].deployments[0].rates.input)
