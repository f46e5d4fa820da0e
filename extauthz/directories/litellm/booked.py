"""What LiteLLM has booked on payers in the windows that are current now, from the same rows as their budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from extauthz.directories.litellm.queries import BUDGET_PREFIX, DEFAULT_PREFIX
from extauthz.directories.litellm.values import Row, UnreadableError, Written, amount, entries, moment, text
from extauthz.domain.budgets import ScopeKind
from extauthz.domain.windows import THIRTY_DAYS, UNIT_SECONDS, Duration, Unit, parse_duration

ZERO = Decimal(0)
# No month has more days, and 30 days are a month.
MONTH = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Booked:
    """What a payer has spent, in USD: of `max_budget`, and of the windows of `budget_limits` by their durations."""

    own: Decimal = ZERO
    windows: Mapping[str, Decimal] = field(default_factory=dict)


def booked(kind: ScopeKind, row: Row, written: Written, windows: Sequence[Row], now: datetime) -> Booked:
    """Read what was spent. Where the time of a reset has come it is nothing: LiteLLM's job is minutes late.

    Raises UnreadableError.
    """
    own = ZERO
    if "max_budget" in written and not _is_over(row[_reset_column(kind, row)], now):
        own = amount(row.get("spend"), "spend") or ZERO
    if "budget_limits" not in written:
        return Booked(own)
    over = {
        str(entry.get("budget_duration"))
        for entry in entries(row["budget_limits"], "budget_limits")
        if _is_over(entry.get("reset_at"), now)
    }
    current = {
        duration: spent
        for duration, end, spent in map(_in_window, windows)
        if duration not in over and now < end and spent
    }
    return Booked(own, current)


def _reset_column(kind: ScopeKind, row: Row) -> str:
    """Name the column that says when the limit in force resets: the payer's, its budget's or the one for all."""
    match kind:
        case ScopeKind.TEAM | ScopeKind.USER:
            return "budget_reset_at"
        case ScopeKind.KEY if row["max_budget"] is not None:
            return "budget_reset_at"
        case ScopeKind.MEMBER if row[f"{BUDGET_PREFIX}max_budget"] is None:
            return f"{DEFAULT_PREFIX}budget_reset_at"
        case ScopeKind.END_USER if row[f"{BUDGET_PREFIX}budget_id"] is None:
            return f"{DEFAULT_PREFIX}budget_reset_at"
        case _:
            return f"{BUDGET_PREFIX}budget_reset_at"


def _is_over(reset: object, now: datetime) -> bool:
    end = moment(reset, "time of a reset")
    return end is not None and end <= now


def _in_window(row: Row) -> tuple[str, datetime, Decimal]:
    """Give the duration of a window, the latest moment at which it ends, and what was spent in it."""
    name, start = text(row["window_duration"], "window_duration"), moment(row["window_start"], "window_start")
    if name is None or start is None:
        raise UnreadableError("a window has no duration, or no start")
    try:
        duration = parse_duration(name)
    except ValueError as error:
        raise UnreadableError(f"window_duration: {error}") from None
    return name, start + _longest(duration), amount(row["spend"], "spend") or ZERO


def _longest(duration: Duration) -> timedelta:
    if duration.unit is Unit.MONTH or duration == THIRTY_DAYS:
        return MONTH * (duration.count if duration.unit is Unit.MONTH else 1)
    return timedelta(seconds=duration.count * UNIT_SECONDS[duration.unit])
