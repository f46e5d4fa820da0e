"""Which counters have to have what LiteLLM has booked, so that a window goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from extauthz.config.limits import BudgetLimit
from extauthz.config.model import Settings
from extauthz.directories.litellm.booked import Booked
from extauthz.directories.litellm.inventory import Inventory
from extauthz.directories.litellm.source import fields_of
from extauthz.directories.litellm.values import UnreadableError
from extauthz.domain.budgets import Budget, Counter, Measure, Scope, ScopeKind
from extauthz.domain.money import cost_nanousd
from extauthz.domain.payers import Budgets
from extauthz.domain.windows import WindowRule, parse_duration


def seeds(inventory: Inventory, common: Budgets, settings: Settings, now_ms: int) -> Mapping[Counter, int]:
    """Give what each counter of now has to have at least, in nano-USD; `common` are the budgets of all together."""
    found: dict[Counter, int] = {}
    for scope, booked in inventory.booked.items():
        spent = (
            _common(common, booked) if scope.kind is ScopeKind.GLOBAL else _of_payer(inventory, scope, booked, settings)
        )
        for rule, amount in spent:
            counter = Counter(scope, rule.at(now_ms))
            # Two limits may have one window.
            found[counter] = max(found.get(counter, 0), cost_nanousd(amount))
    return found


def _common(budgets: Budgets, booked: Booked) -> Iterator[tuple[WindowRule, Decimal]]:
    own = next((budget for budget in budgets if _is_plain(budget)), None)
    if own is not None:
        yield own.rule, booked.own


def _is_plain(budget: Budget) -> bool:
    return budget.measure is Measure.USD and budget.only is None


def _of_payer(
    inventory: Inventory, scope: Scope, booked: Booked, settings: Settings
) -> Iterator[tuple[WindowRule, Decimal]]:
    fields = fields_of(scope.kind, inventory.payers[scope.kind][scope])
    if fields is None or isinstance(fields, UnreadableError):
        return
    if fields.max_budget is not None and booked.own:
        yield _rule(fields.limits()[0], settings), booked.own
    windows = {parse_duration(name): spent for name, spent in booked.windows.items()}
    for limit in fields.budget_limits:
        if limit.budget_duration in windows:
            yield _rule(limit, settings), windows[limit.budget_duration]


def _rule(limit: BudgetLimit, settings: Settings) -> WindowRule:
    return WindowRule(limit.budget_duration, settings.timezone, None, settings.budget_reset_time, settings.reset_rules)
