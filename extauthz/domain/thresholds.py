"""The thresholds on a budget's way to its end, and what is told of one that was crossed.

What is spent crosses them, not what is held: a hold comes back when its request ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from extauthz.domain.budgets import Measure, Standing
from extauthz.domain.money import usd

PERCENT = 100


class ThresholdKind(StrEnum):
    """What a threshold is measured in."""

    SOFT = "soft"  # an amount, `soft_budget`
    PERCENTAGE = "percentage"  # of the limit in force


@dataclass(frozen=True, slots=True)
class Threshold:
    """A percentage of the limit, or a soft limit in nano-USD."""

    kind: ThresholdKind
    value: int

    def __str__(self) -> str:
        return f"{self.value}%" if self.kind is ThresholdKind.PERCENTAGE else f"soft {self.value}"


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold that a budget has crossed. `shown` is its scope for people; `hide_amounts` leaves amounts unsaid."""

    threshold: Threshold
    standing: Standing
    shown: str
    hide_amounts: bool = False

    def fields(self) -> dict[str, str | int | float | None]:
        """Say all of it by name, for programs: times in ISO 8601 and UTC, None where there is none.

        Amounts in USD have names that say so; others are in the measure.
        """
        threshold, standing = self.threshold, self.standing
        amounts = {"limit": standing.limit, "spent": standing.spent}
        percentage = None
        match threshold.kind:
            case ThresholdKind.PERCENTAGE:
                percentage = threshold.value
            case ThresholdKind.SOFT:
                amounts["soft_budget"] = threshold.value
        shown: dict[str, int | float] = {}
        if not self.hide_amounts:
            shown = (
                {f"{name}_usd": float(usd(nanousd)) for name, nanousd in amounts.items()}
                if standing.counter.measure is Measure.USD
                else {**amounts}
            )
        return {
            "kind": threshold.kind.value,
            "scope": standing.counter.scope.text,
            "name": self.shown,
            "window": standing.counter.label,
            "measure": standing.counter.measure.value,
            "threshold_percent": percentage,
            "used_percent": spent_percent(standing),
            "resets_at": resets_at(standing),
            **shown,
        }


def crossed(standing: Standing, soft_limit: int | None, percentages: Sequence[int]) -> tuple[Threshold, ...]:
    """Tell which thresholds a budget has crossed: the soft limit, then percentages from the highest on.

    Nothing is crossed where nothing is spent, and a limit of 0 has no percentages.
    """
    spent, limit = standing.spent, standing.limit
    if spent <= 0:
        return ()
    soft = soft_limit is not None and spent >= soft_limit
    return (
        *((Threshold(ThresholdKind.SOFT, soft_limit or 0),) if soft else ()),
        *(
            Threshold(ThresholdKind.PERCENTAGE, percentage)
            for percentage in sorted(percentages, reverse=True)
            if 0 < percentage * limit <= PERCENT * spent
        ),
    )


def resets_at(standing: Standing) -> str | None:
    """Tell when the window of a budget ends, in ISO 8601 and UTC; None when it never does."""
    end_ms = standing.counter.window.end_ms
    return None if end_ms is None else datetime.fromtimestamp(end_ms / 1000, UTC).isoformat(timespec="seconds")


def spent_percent(standing: Standing) -> int | None:
    """Tell how much of the limit is spent, in whole percent, rounded down; None of a limit of 0."""
    if standing.limit <= 0:
        return None
    return PERCENT * standing.spent // standing.limit
