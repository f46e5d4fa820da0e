"""Budget windows: which stretch of time a counter belongs to.

A window resets because its start, and with it the counter's key, changes; no job has to run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time [start_ms, end_ms) in Unix milliseconds; `lifetime` never ends (end_ms is None)."""

    name: str
    start_ms: int
    end_ms: int | None
