"""The configuration in force, written as a file that reads as the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from extauthz.config.effective import MASK, effective
from extauthz.config.load import load
from extauthz.config.model import Service
from extauthz.config.snapshot import Snapshot

MODELS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 1e-5}
    model_info: {max_input_tokens: 128000, max_output_tokens: 16384}
  - model_name: local-llama
    litellm_params: {model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}
  - {model_name: "openai/*", litellm_params: {model: "openai/*", custom_llm_provider: openai}}
"""

EVERYTHING = (
    MODELS
    + """
  - model_name: priced
    litellm_params:
      model: openai/x
      input_cost_per_token_above_200k_tokens: 2e-6
      cache_creation_input_token_cost_above_1hr_above_200k_tokens_priority: 3e-6
      output_cost_per_image: 0.04
      search_context_cost_per_query: {search_context_size_low: 0.01, search_context_size_high: 0.05}
      tiered_pricing:
        - {range: [0, 32768], input_cost_per_token: 1e-6}
        - {range: [32768, 128000.0], input_cost_per_token: 1.5e-6, output_cost_per_token: 0}
      off_peak_pricing: {input_cost_per_token: 5e-7, windows: [{hours_utc: "00:00-01:00", weekdays: [1, 2]}]}
      regional_processing_uplift_multiplier_eu: 1.1
      ocr_cost_per_page: 0.1
general_settings:
  budget_exceeded_models_policy: free_only
  user_header_name: X-End-User
  apply_user_budget_to_team_keys: true
router_settings:
  model_group_alias: {fast: local-llama, "best one": {model: gpt-4o, hidden: true}}
  fallbacks: [{gpt-4o: [local-llama]}]
litellm_settings: {context_window_fallbacks: [{local-llama: [gpt-4o]}]}
extauthz:
  timezone: Europe/Berlin
  budget_reset_time: "06:30"
  reset_rules: exact
  shadow_paths: [/v1/embeddings]
  estimate: {mode: fixed, output_tokens: 99}
  alerts: {percentages: [50, 90]}
  global: {max_budget: 9007199}
  organizations: {acme: {max_budget: 0.000000001}, "yes": {max_budget: 1}}
  teams:
    "a: team #1 \\u2028 é 😀":
      organization: acme
      max_budget: 10
      soft_budget: 8.5
      budget_duration: 1mo
      anchor: 2026-01-31
      temp_budget_increase: 2.5
      temp_budget_expiry: 2026-12-01T08:00:00.029
      budget_limits: [{max_budget: 1, budget_duration: 1d}, {max_budget: 7, admission: strict}]
      members: {ana: {max_budget: 2}}
      models: [gpt-4o, "openai/*"]
      shadow_mode: true
    "42": {}
  users: {ana: {max_budget: 5, organization: acme}, "null": {max_budget: 1}}
  keys:
    - {key: sk-1, key_alias: "1e3", team: "42", user: ana, models: [gpt-4o]}
    - {key: sk-2, organization: acme, max_budget: 3, admission: strict}
  end_users: {default: {max_budget: 0.5}, dora: {max_budget: 1}}
"""
)


def loaded(folder: Path, text: str) -> Snapshot:
    """Load a configuration."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, {})


@pytest.mark.parametrize("text", [MODELS, EVERYTHING], ids=["little", "everything"])
async def test_it_reads_as_the_same(tmp_path: Path, text: str) -> None:
    """What is written, read again, decides about every request as before; nothing of it means nothing but `prices`."""
    before = loaded(tmp_path, text)
    after = loaded(tmp_path, await effective(before))

    assert before.settings == after.settings
    assert before.directory.accounts == after.directory.accounts
    assert before.catalog.source.offers == after.catalog.source.offers
    assert before.catalog.source.aliases == after.catalog.source.aliases
    assert all(before.catalog.reach([name]) == after.catalog.reach([name]) for name in before.catalog.listed())
    assert {*after.notices} - {*before.notices} == {"settings that mean nothing here: prices"}


async def test_defaults_are_written(tmp_path: Path) -> None:
    """Every setting is there, with the value that it has when nobody wrote one."""
    document = yaml.safe_load(await effective(loaded(tmp_path, "model_list: []\n")))

    own = document["extauthz"]
    assert {*Service.model_fields} <= own.keys()
    estimate = {"mode": "usual", "output_tokens": 512, "image_tokens": 1600, "flat_usd": 0.1}
    assert ("memory", 120, "127.0.0.1:9192", estimate) == (
        own["store"],
        own["lease_seconds"],
        own["listen"]["admin"],
        own["estimate"],
    )


async def test_prices_are_those_in_force(tmp_path: Path) -> None:
    """A model's price is there whoever said it: the file, the price list, or nobody."""
    text = f"{MODELS}  - {{model_name: claude, litellm_params: {{model: anthropic/claude-3-5-haiku-latest}}}}\n"
    document = yaml.safe_load(await effective(loaded(tmp_path, text)))
    prices = document["prices"]

    assert (0.0000025, False) == (float(prices["gpt-4o"]["input_cost_per_token"]), prices["gpt-4o"]["free"])
    assert prices["local-llama"]["free"]
    assert ["config", "genai-prices"] == [prices[name]["source"] for name in ("gpt-4o", "claude")]
    assert 0 < float(prices["claude"]["input_cost_per_token"]) < 0.00003


SECRETIVE = (
    MODELS
    + """
general_settings: {master_key: SECRET-1}
extauthz:
  store: "STORE"
  token: SECRET-2
  admin_token: SECRET-3
  upstream_auth: {default: {set: SECRET-4}, models: {gpt-4o: {set: SECRET-5}, local-llama: remove}}
  alerts: {webhook: {url: "https://hooks.example/SECRET-6"}}
  keys: [{key: SECRET-7}]
"""
)


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("redis://:SECRET-8@redis:6379/1", "redis://***@redis:6379/1"),
        ("redis://SECRET-user:SECRET-8@redis/0?tag=mine", "redis://***@redis:6379?tag=mine"),
        ("rediss://redis?ca=/ca.pem", "rediss://redis:6379?ca=/ca.pem"),
        (
            "redis+sentinel://:SECRET-8@a,b/main?sentinel_password=SECRET-9",
            "redis+sentinel://***@a:26379,b:26379/main?sentinel_username=***&sentinel_password=***",
        ),
        ("memory", "memory"),
    ],
)
async def test_secrets_are_masked(tmp_path: Path, store: str, shown: str) -> None:
    """No secret is written, and each is a mask where it stood; the key is its hash, and the store can be told."""
    written = await effective(loaded(tmp_path, SECRETIVE.replace("STORE", store)))
    document = yaml.safe_load(written)
    own = document["extauthz"]

    assert "SECRET" not in written
    assert shown == own["store"]
    assert [MASK] * 4 == [
        own["token"],
        own["admin_token"],
        own["alerts"]["webhook"]["url"],
        document["general_settings"]["master_key"],
    ]
    assert {"default": {"set": MASK}, "models": {"gpt-4o": {"set": MASK}, "local-llama": "remove"}} == own[
        "upstream_auth"
    ]
    assert 64 == len(own["keys"][0]["key_sha256"])


async def test_a_listing_of_many(tmp_path: Path) -> None:
    """What has more lines than are written at once is written whole."""
    before = loaded(
        tmp_path, "extauthz:\n  users:\n" + "".join(f"    u{n}: {{max_budget: {n}}}\n" for n in range(1500))
    )
    after = loaded(tmp_path, await effective(before))

    assert before.directory.accounts == after.directory.accounts
