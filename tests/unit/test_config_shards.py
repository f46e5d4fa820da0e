"""Books in shards in the configuration file: what goes with them, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.errors import ConfigError

REDIS = "store: redis://127.0.0.1:6379/0"
NOTICE = "with shard_by, budgets of users and end users are per organization"


def loaded(folder: Path, *lines: str, own: tuple[str, ...] = ()) -> Snapshot:
    """Load a configuration of lines at the top and lines of the section `extauthz`, which begins at line 3."""
    path = folder / "config.yaml"
    models = "model_list: [{model_name: gpt, litellm_params: {model: openai/gpt-4o}}]"
    path.write_text("\n".join((models, "extauthz:", *(f"  {line}" for line in own), *lines)), encoding="utf-8")
    return load(path, {})


def mistakes(folder: Path, *lines: str, own: tuple[str, ...] = ()) -> list[str]:
    """Load a bad configuration, and give its mistakes as `line: message`."""
    with pytest.raises(ConfigError) as refused:
        loaded(folder, *lines, own=own)
    return [f"{mistake.line}: {mistake.message}" for mistake in refused.value.mistakes]


@pytest.mark.parametrize(
    ("own", "count"),
    [
        ((REDIS,), 1),
        ((REDIS, "shards: 8"), 1),
        ((REDIS, "shard_by: none"), 1),
        ((REDIS, "shard_by: organization"), 16),
        ((REDIS, "shard_by: organization", "shards: 8"), 8),
        ((), 1),
        (("store: memory", "shard_by: none"), 1),
    ],
)
def test_how_many(tmp_path: Path, own: tuple[str, ...], count: int) -> None:
    """The books are in one set of keys, unless shard_by says otherwise: then in sixteen, or in as many as asked."""
    assert count == loaded(tmp_path, own=own).settings.shard_count


@pytest.mark.parametrize(("kind", "notices"), [("none", 0), ("organization", 1)])
def test_a_notice_about_users(tmp_path: Path, kind: str, notices: int) -> None:
    """Who shards is told that budgets of users are then in each organization, and nobody else is."""
    assert notices == loaded(tmp_path, own=(REDIS, f"shard_by: {kind}")).notices.count(NOTICE)


@pytest.mark.parametrize("store", ["", "store: memory"], ids=["none", "memory"])
def test_memory_has_no_shards(tmp_path: Path, store: str) -> None:
    """Shards are sets of keys in a Redis."""
    assert [
        "4: extauthz.shard_by: the memory store has no shards: write none, or the URL of a Redis as store"
    ] == mistakes(tmp_path, own=(store, "shard_by: organization"))


@pytest.mark.parametrize(
    "budget", ["max_budget: 5", "max_budget: 0", "budget_limits: [{budget_duration: 1d, max_budget: 5}]"]
)
def test_no_global_budget(tmp_path: Path, budget: str) -> None:
    """All organizations together are in no shard: a budget for them is a mistake, in its line."""
    (mistake,) = mistakes(tmp_path, own=(REDIS, "shard_by: organization", f"global: {{{budget}}}"))

    assert mistake.startswith("5: extauthz.global: ")
    assert "there is no budget of all together with shard_by: organization" in mistake


def test_no_global_budget_of_litellm(tmp_path: Path) -> None:
    """Nor is there one where LiteLLM has it."""
    own = (REDIS, "shard_by: organization")

    assert ["6: litellm_settings.max_budget: there is no budget of all with shard_by: organization"] == mistakes(
        tmp_path, "litellm_settings:", "  max_budget: 5", own=own
    )


@pytest.mark.parametrize("kind", ["none", "organization"])
def test_no_budget_is_no_mistake(tmp_path: Path, kind: str) -> None:
    """An empty global section says nothing, and LiteLLM's 0 is none."""
    own = (REDIS, f"shard_by: {kind}", "global: {}")
    config = loaded(tmp_path, "litellm_settings:", "  max_budget: 0", own=own)

    assert kind == config.settings.shard_by


def test_a_global_budget_without_shards(tmp_path: Path) -> None:
    """Books in one set of keys have a budget of all together."""
    loaded(tmp_path, "litellm_settings:", "  max_budget: 5", own=(REDIS, "shard_by: none"))
    loaded(tmp_path, own=(REDIS, "shard_by: none", "global: {max_budget: 5}"))


@pytest.mark.parametrize(("count", "told"), [("1", "2"), ("257", "256"), ("many", "")])
def test_the_number_has_bounds(tmp_path: Path, count: str, told: str) -> None:
    """Two shards are the fewest that are any, and 256 the most."""
    (mistake,) = mistakes(tmp_path, own=(REDIS, "shard_by: organization", f"shards: {count}"))

    assert mistake.startswith("5: extauthz.shards: ")
    assert told in mistake
