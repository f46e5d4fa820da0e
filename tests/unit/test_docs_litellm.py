"""docs/litellm.md: it says of each of LiteLLM's settings what the program does with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from extauthz.config.litellm import INCLUDE, KNOWN_KEYS, MODEL_LIST
from extauthz.config.litellm_money import MONEY
from extauthz.config.variables import ENVIRONMENT_VARIABLES

TEXT = (Path(__file__).parents[2] / "docs" / "litellm.md").read_text(encoding="utf-8")


def table(heading: str) -> Mapping[str, str]:
    """Give the second cell of a table by each of the names in the first."""
    rows = re.split(r"\n(?!\|)", TEXT[TEXT.index(f"\n| {heading} |") :].removeprefix("\n"))[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows[2:]]
    return {name: cell for names, cell in cells for name in re.findall(r"`([\w.]+)`", names)}


def test_what_is_read() -> None:
    """The first table has all that is read, and nothing else."""
    read = {f"{section}.{name}" for section, names in KNOWN_KEYS.items() for name in names}

    assert sorted({*read, MODEL_LIST, INCLUDE, ENVIRONMENT_VARIABLES}) == sorted(table("read"))


def test_what_is_told_by_itself() -> None:
    """The second table has all that is told by itself, in the words of the log."""
    assert dict(MONEY) == table("told by itself")
