"""What a running server takes of a new configuration, and what waits for its restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from extauthz.config.load import load
from extauthz.config.model import Service, Settings
from extauthz.config.restart import kept

TLS = "tls: {cert: c, key: k}"
REDIS = "store: redis://127.0.0.1:6379/0"

WAITING = [
    ("listen: {grpc: 127.0.0.1:7}", "listen"),
    ("listen: {admin: 127.0.0.1:7}", "listen"),
    ("listen: {http: 127.0.0.1:7}", "listen"),
    (TLS, "tls"),
    ("server: grpcio", "server"),
    (REDIS, "store"),
    ("store_timeout_seconds: 1", "store_timeout_seconds"),
    (f"{REDIS}\n  shard_by: organization", "shard_by"),
    ("shards: 8", "shards"),
    ("allow_eviction: true", "allow_eviction"),
    ("tombstone_seconds: 600", "tombstone_seconds"),
    ("journal_entries_max: 5000", "journal_entries_max"),
    ("tracing: true", "tracing"),
    ("directory: store", "directory"),
    ("directory_url: postgresql://u@h/d", "directory_url"),
    ("directory_entries_max: 5000", "directory_entries_max"),
    ("token: t", "token"),
    ("admin_token: t", "admin_token"),
    ("estimate: fixed", "estimate.mode"),
    ("estimate: {output_tokens: 7}", "estimate.output_tokens"),
]

FOLLOWED = {
    "insecure_grpc: true",
    "lease_seconds: 7",
    "drain_seconds: 7",
    "store_failure: allow",
    "directory_failure: stale",
    "directory_stale_seconds: 7",
    "directory_refresh_seconds: 7",
    "admission: strict",
    "on_abort: zero",
    "on_abort_unary: zero",
    "on_missing_usage: zero",
    "on_expiry: charge",
    "budget_exceeded_status: 402",
    "hide_amounts: true",
    "shadow_mode: true",
    "shadow_paths: [/v1/embeddings]",
    "other: deny",
    "api_prefixes: [/llm/v1]",
    "max_request_bytes: 2048",
    "timezone: Europe/Berlin",
    "budget_reset_time: '06:30'",
    "reset_rules: exact",
    "budget_rollover: true",
    "upstream_auth: {default: remove}",
    "keys_file: keys.yaml",
    "jwt: [{issuer: i, audience: a, jwks_url: 'https://i/jwks'}]",
    "mtls: {xfcc_from: [x]}",
    "trusted_headers: {user: x-user}",
    "litellm_file: litellm.yaml",
    "log: {level: debug}",
    "alerts: {percentages: [50]}",
    "unknown_price: {input_cost_per_token: 0.1}",
    "trust_upstream_cost: true",
    "background_lease_seconds: 7",
    "estimate: {image_tokens: 7}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an empty keys file and a file of LiteLLM's."""
    (tmp_path / "keys.yaml").write_text("[]", encoding="utf-8")
    (tmp_path / "litellm.yaml").write_text("model_list: []", encoding="utf-8")
    return tmp_path


def wanted(folder: Path, own: str) -> Settings:
    """Read the settings of a file that says something else than the default."""
    path = folder / "config.yaml"
    path.write_text(f"extauthz:\n  {own}\n", encoding="utf-8")
    return load(path, {}).settings


@pytest.mark.parametrize(("own", "name"), WAITING)
def test_it_waits_in_either_direction(folder: Path, own: str, name: str) -> None:
    """What the server opened and began stays, whether the file begins or ceases to say it; the name is told."""
    started, changed = Settings(), wanted(folder, own)

    for running, new in ((started, changed), (changed, started)):
        settings, waiting = kept(running, new)
        assert name in waiting
        assert (running, ()) == kept(running, settings)


@pytest.mark.parametrize("own", sorted(FOLLOWED))
def test_it_is_followed(folder: Path, own: str) -> None:
    """Everything else is in force from the next request on."""
    changed = wanted(folder, own)

    assert changed != Settings()
    assert (changed, ()) == kept(Settings(), changed)


def test_every_setting_was_thought_of() -> None:
    """A new setting must be followed or must wait: nobody finds out by a restart that never came."""
    thought_of = {name.partition(".")[0] for _, name in WAITING} | {own.partition(":")[0] for own in FOLLOWED}

    assert set(Service.model_fields) == thought_of


@pytest.mark.parametrize("name", ["token", "admin_token"])
def test_another_secret_is_followed(name: str) -> None:
    """A port that asks for a secret asks for the new one at once."""
    running, new = (Settings().model_copy(update={name: SecretStr(secret)}) for secret in ("old", "new"))

    assert (new, ()) == kept(running, new)
