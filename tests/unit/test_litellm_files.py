"""LiteLLM's payers as a configuration file: names that somebody else chose, in a file that we read."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from extauthz.config.load import load
from extauthz.directories.litellm.booked import Booked
from extauthz.directories.litellm.files import to_yaml
from extauthz.directories.litellm.inventory import Inventory
from extauthz.directories.litellm.values import Written
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX, Scope, ScopeKind

SHA256 = "a" * 64
NAMES = (
    *("1e3", "1_000", "0x1F", "12:30:45", "007", "null", "true", "on", "~", "<<", "2026-01-31", ".inf", ".nan"),
    *("- a", "? a", "a: b", "a #b", "{x}", "[x]", "*a", "&a", "!!str a", "%a", "---", "...", "|", "'", '"', "a,b"),
    *(" lead", "trail ", "a\nb", "\x85", "\u2028", "\ufeff", "\x07", "\U0001f600"),
    *("x" * SCOPE_ID_BYTES_MAX, "\x01" * SCOPE_ID_BYTES_MAX),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    """Whatever a team is called, its key finds it in the file, and neither name says anything else there."""
    inventory = Inventory()
    inventory.add(Scope(ScopeKind.TEAM, (name,)), {"max_budget": Decimal(1)}, Booked())
    key: Written = {"key_sha256": SHA256, "team": name, "key_alias": name, "models": (name,)}
    inventory.add(Scope(ScopeKind.KEY, (SHA256,)), key, Booked())
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(inventory), encoding="utf-8")

    accounts = load(file, {}).directory.accounts

    assert [name] == [*accounts.teams]
    assert [(SHA256, name, name, (name,))] == [(key.sha256, key.team, key.alias, key.models) for key in accounts.keys]
