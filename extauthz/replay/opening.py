"""What had been spent when a record begins, as `extauthz budgets list --json` told it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from extauthz.domain.budgets import Counter, Scope
from extauthz.domain.directory import Directory
from extauthz.domain.money import NANOUSD_PER_USD
from extauthz.domain.windows import Window, WindowRule
from extauthz.replay.records import RecordsUnusableError

NO_BUDGETS = "is not what `extauthz budgets list --json` prints"


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent on the counters that a configuration has, in their measures.

    `left_out` counts budgets that it does not have so.
    """

    amounts: Mapping[Counter, int]
    left_out: int


def read_spent(text: str, directory: Directory) -> Spent:
    """Read a list of budgets. Raises RecordsUnusableError for anything else."""
    spent: dict[Counter, int] = {}
    left_out = 0
    try:
        for row in json.loads(text):
            counter = _counter(row, directory)
            amount = int(row["spent"]) if "measure" in row else _nanousd(row["spent_usd"])
            if counter is not None:
                spent[counter] = amount
            elif amount:
                left_out += 1
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise RecordsUnusableError(f"the list {NO_BUDGETS}") from error
    return Spent(spent, left_out)


def _counter(row: Mapping[str, Any], directory: Directory) -> Counter | None:
    """Find the counter of a budget: that of the same label whose window ends at the same time."""
    scope, resets_at = Scope.parse(row["scope"]), row.get("resets_at")
    resets_ms = None if resets_at is None else round(datetime.fromisoformat(resets_at).timestamp() * 1000)
    counters = (budget.counter(scope, _ending_at(budget.rule, resets_ms)) for budget in directory.budgets_on(scope))
    meant = (row["window"], resets_ms)
    return next((counter for counter in counters if (counter.label, counter.window.end_ms) == meant), None)


def _nanousd(amount_usd: float) -> int:
    return int((Decimal(str(amount_usd)) * NANOUSD_PER_USD).to_integral_value())


def _ending_at(rule: WindowRule, end_ms: int | None) -> Window:
    return rule.at(0 if end_ms is None else end_ms - 1)
