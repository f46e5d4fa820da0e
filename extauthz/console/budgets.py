"""`extauthz budgets`: how budgets stand, and changing them without a restart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.connection import Server, ServerRefusedError
from extauthz.console.documents import Document, document
from extauthz.console.inputs import Amendment
from extauthz.console.measures import Unit
from extauthz.console.text import cell, clean, new_console, new_table, roughly_until, scope_short, wide
from extauthz.domain.windows import parse_duration

PAGE_BUDGETS = 1000
# No server has more; a server that goes on for ever is broken.
PAGES_MAX = 1000

PERCENT = 100
NEARLY = 0.8

# What `budgets list --json` has of each in USD, and of each other: scripts rely on exactly these.
LISTED = ("scope", "window", "limit_usd", "spent_usd", "held_usd", "available_usd", "resets_at")
LISTED_OTHERS = ("scope", "window", "measure", "limit", "spent", "held", "available", "resets_at")

COLUMNS = ("scope", "window", "limit", "spent", "held", "available", "used", "resets")
NUMBERS = ("limit", "spent", "held", "available", "used", "resets")
# A key's scope is 68 letters.
WHOLE_KEYS_WIDTH = 140
BY_HAND = "*"


@dataclass(frozen=True, slots=True)
class Change:
    """A budget before and after it was changed; `changed` is False where this very change was made before."""

    before: pb.Budget
    after: pb.Budget
    changed: bool

    def document(self) -> Document:
        """Give it as JSON's values."""
        return {"before": document(self.before), "after": document(self.after), "changed": self.changed}


async def listed(server: Server, prefix: str, used_share_min: float) -> Sequence[pb.Budget]:
    """Give all budgets, asked for page by page."""
    found: list[pb.Budget] = []
    token = ""
    for _ in range(PAGES_MAX):
        request = pb.ListBudgetsRequest(
            prefix=prefix, page_size=PAGE_BUDGETS, page_token=token, used_share_min=used_share_min
        )
        page = await server.ask("ListBudgets", request, pb.ListBudgetsResponse)
        found += page.budgets
        token = page.next_page_token
        if not token:
            return found
    raise ServerRefusedError(f"there are more than {PAGES_MAX * PAGE_BUDGETS:,} budgets: name a PREFIX")


async def of_scope(server: Server, scope: str) -> Sequence[pb.Budget]:
    """Give the budgets of one scope."""
    return (await server.ask("GetBudget", pb.GetBudgetRequest(scope=scope), pb.GetBudgetResponse)).budgets


async def set_limit(server: Server, amendment: Amendment, limit: float | None) -> Change:
    """Put a limit in the place of the configured one, in the budget's measure; None takes that back."""
    before = await _before(server, amendment)
    request = pb.SetLimitRequest(scope=amendment.scope, window=before.window, who=amendment.who, change_id=amendment.id)
    if limit is not None and Unit.of(before).in_usd:
        request.limit_usd = limit
    elif limit is not None:
        request.limit = _whole(limit, before)
    return _change(before, await server.ask("SetLimit", request, pb.ChangeBudgetResponse))


async def reset(server: Server, amendment: Amendment) -> Change:
    """Forget what was spent in the current window."""
    before = await _before(server, amendment)
    request = pb.ResetBudgetRequest(
        scope=amendment.scope, window=before.window, who=amendment.who, change_id=amendment.id
    )
    return _change(before, await server.ask("ResetBudget", request, pb.ChangeBudgetResponse))


async def grant(server: Server, amendment: Amendment, amount: float) -> Change:
    """Raise the limit of the current window, by an amount in the budget's measure."""
    before = await _before(server, amendment)
    request = pb.GrantBudgetRequest(
        scope=amendment.scope, window=before.window, who=amendment.who, change_id=amendment.id
    )
    if Unit.of(before).in_usd:
        request.amount_usd = amount
    else:
        request.amount = _whole(amount, before)
    return _change(before, await server.ask("GrantBudget", request, pb.ChangeBudgetResponse))


def to_listed(budget: pb.Budget) -> Document:
    """Give what `budgets list --json` has of a budget."""
    whole = document(budget)
    return {name: whole[name] for name in (LISTED if Unit.of(budget).in_usd else LISTED_OTHERS)}


def used_share(budget: pb.Budget) -> float:
    """Tell which share of the limit is spent or held; of a limit of 0 it is all as soon as there is something."""
    unit = Unit.of(budget)
    used, limit = unit.amount(budget, "spent") + unit.amount(budget, "held"), unit.amount(budget, "limit")
    if limit > 0:
        return used / limit
    return 1.0 if used > 0 else 0.0


def used_style(budget: pb.Budget) -> str:
    """Give the colour of a budget: red where nothing is left to spend, yellow where that is near."""
    if budget.exhausted:
        return "red"
    return "yellow" if used_share(budget) >= NEARLY else "green"


def show(budgets: Sequence[pb.Budget]) -> None:
    """Print a table of budgets."""
    console = new_console()
    if not budgets:
        console.print("no such budgets")
        return
    table = new_table(*COLUMNS, right=NUMBERS, tight=not wide(console))
    for budget in budgets:
        table.add_row(*_cells(console, budget))
    console.print(table)
    _explain_marks(console, budgets)


def show_change(change: Change) -> None:
    """Print a budget before and after."""
    console = new_console()
    table = new_table("", *COLUMNS, right=NUMBERS, tight=not wide(console))
    table.add_row("before", *_cells(console, change.before))
    table.add_row("after", *_cells(console, change.after))
    console.print(table)
    _explain_marks(console, (change.before, change.after))
    if not change.changed:
        console.print("nothing happened: this change was made before")


def _cells(console: Console, budget: pb.Budget) -> tuple[Text | str, ...]:
    unit = Unit.of(budget)
    return (
        cell(budget.scope if console.width >= WHOLE_KEYS_WIDTH else scope_short(budget.scope)),
        cell(budget.window),
        unit.cell(budget, "limit") + (BY_HAND if _by_hand(budget) else ""),
        *(unit.cell(budget, name) for name in ("spent", "held", "available")),
        Text(f"{used_share(budget) * PERCENT:.0f} %", used_style(budget)),
        roughly_until(budget.resets_at, time.time()) if budget.HasField("resets_at") else "never",
    )


def _explain_marks(console: Console, budgets: Sequence[pb.Budget]) -> None:
    if any(_by_hand(budget) for budget in budgets):
        console.print(f"{BY_HAND} not the configured limit: it was set by hand, or raised by a grant")
    if console.width < WHOLE_KEYS_WIDTH and any(budget.scope != scope_short(budget.scope) for budget in budgets):
        console.print("… a wider terminal, or --json, shows keys whole")


def _by_hand(budget: pb.Budget) -> bool:
    unit = Unit.of(budget)
    return unit.amount(budget, "limit") != unit.amount(budget, "configured_limit")


def _whole(amount: float, budget: pb.Budget) -> int:
    """Give an amount of tokens or requests. Raises ServerRefusedError for a part of one."""
    if not amount.is_integer():
        raise ServerRefusedError(
            f"{clean(budget.scope)} {clean(budget.window)} counts {Unit.of(budget).name}: write a whole number"
        )
    return int(amount)


async def _before(server: Server, amendment: Amendment) -> pb.Budget:
    """Find the one budget that is meant. Raises ServerRefusedError where that is not clear."""
    found = await of_scope(server, amendment.scope)
    wanted = _as_named(amendment.window)
    meant = [budget for budget in found if wanted in ("", budget.window)]
    windows = ", ".join(budget.window for budget in found)
    if not meant:
        raise ServerRefusedError(f"{amendment.scope} has no budget for {amendment.window}: its windows are {windows}")
    if len(meant) > 1:
        raise ServerRefusedError(f"{amendment.scope} has several budgets: choose one by --window ({windows})")
    return meant[0]


def _change(before: pb.Budget, answer: pb.ChangeBudgetResponse) -> Change:
    return Change(before, answer.budget, answer.changed)


def _as_named(window: str) -> str:
    """Write a label as budgets do, where it begins with a window: weekly/tokens is 7d/tokens."""
    duration, slash, rest = window.partition("/")
    try:
        return f"{parse_duration(duration)}{slash}{rest}"
    except ValueError:
        return window
