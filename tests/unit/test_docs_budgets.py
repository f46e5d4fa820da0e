"""docs/budgets.md: what it shows loads, and its table says when windows end."""

from __future__ import annotations

import re
from datetime import datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from extauthz.config.load import load
from extauthz.domain.windows import ResetRules, WindowRule, parse_duration

TEXT = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")
ZONE = "Europe/Berlin"
CELLS = r"[^|]* \| (\d[\d: -]+) \| [^|]* \| (\d[\d: -]+) \| (yes|no) \|"
ROWS = [
    (duration, *rest)
    for durations, *rest in re.findall(rf"^\| (`[^|]*) \| {CELLS}$", TEXT, re.MULTILINE)
    for duration in re.findall(r"`(\w+)`", durations)
]


def ms(text: str) -> int:
    """Give a time on the zone's clock in Unix milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()) * 1000


NOW_MS = ms("2026-07-14 12:10")


@pytest.mark.parametrize(("duration", "litellm", "exact", "shifted"), ROWS)
def test_the_next_reset(duration: str, litellm: str, exact: str, shifted: str) -> None:
    """The table's instants are those at which windows end, and its last column those that the reset time moves."""
    length = parse_duration(duration)
    later = WindowRule(length, ZONE, reset_time=time(6, 30)).at(NOW_MS).end_ms

    assert ms(litellm) == WindowRule(length, ZONE).at(NOW_MS).end_ms
    assert ms(exact) == WindowRule(length, ZONE, rules=ResetRules.EXACT).at(NOW_MS).end_ms
    assert ms(litellm) + (6.5 * 3_600_000 if shifted == "yes" else 0) == later


def test_the_table_was_read() -> None:
    """Every row of it is there, and each of LiteLLM's words."""
    assert {"15m", "48h", "30d", "3mo", "hourly", "daily", "weekly", "monthly"} <= {row[0] for row in ROWS}


def test_the_configuration_loads(tmp_path: Path) -> None:
    """What is shown is a configuration, with nothing in it that means nothing."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    file = tmp_path / "config.yaml"

    for block in blocks:
        file.write_text(f"model_list: []\n{block}", encoding="utf-8")
        assert not [notice for notice in load(file, {}).notices if "mean nothing" in notice]
    assert 2 == len(blocks)
