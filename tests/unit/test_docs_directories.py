"""docs/directories.md: its figures and words are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

from extauthz.config.model import DirectoryKind, Service
from extauthz.config.source import FILE_BYTES_MAX
from extauthz.directories.entries import ABSENT_MAX
from extauthz.directories.lookup import ABSENT_S, AGE_REFRESHES, FETCH_S, FETCHES_MAX, TRY_S
from extauthz.directories.source import FETCH_MAX
from extauthz.domain.policy import DirectoryFailure
from extauthz.telemetry.events import LookupResult

TEXT = (Path(__file__).parents[2] / "docs" / "directories.md").read_text(encoding="utf-8")
SETTINGS = ("directory_refresh_seconds", "directory_entries_max", "directory_stale_seconds", "directory_failure")


def test_words() -> None:
    """Every kind of directory, every setting with its default, and every result are there."""
    assert re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)[1 : 1 + len(DirectoryKind)] == list(DirectoryKind)
    for name in SETTINGS:
        default = Service.model_fields[name].default
        shown = f"`{default}`" if isinstance(default, DirectoryFailure) else f"{int(default):,}"
        assert f"| `{name}` | {shown} |" in TEXT
    (line,) = re.findall(r".*directory_lookups_total\{result\}.*", TEXT)
    assert set(LookupResult) <= {*re.findall(r"`(\w+)`", line)}


def test_figures() -> None:
    """Figures are those of the program."""
    words = {2: "twice", 4: "Four"}
    assert f"after {words[AGE_REFRESHES]} as long at most" in TEXT
    assert f"believed for {ABSENT_S:g} seconds. Of keys that nobody knows {ABSENT_MAX:,} are remembered" in TEXT
    assert f"{words[FETCHES_MAX]} questions about {FETCH_MAX} payers at most" in TEXT
    assert f"each for {FETCH_S:g} seconds at most" in TEXT
    assert f"tried again {words[round(1 / TRY_S)]} a second" in TEXT
    assert f"one file has {FILE_BYTES_MAX // 2**20} MiB" in TEXT
