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
from extauthz.console.text import amount, cell, new_console, new_table, roughly_until, scope_short, wide
from extauthz.domain.windows import parse_duration

PAGE_BUDGETS = 1000
# No server has more; a server that goes on for ever is broken.
PAGES_MAX = 1000

PERCENT = 100
NEARLY = 0.8

# What `budgets list --json` has of each: scripts rely on exactly these.
LISTED = ("scope", "window", "limit_usd", "spent_usd", "held_usd", "available_usd", "resets_at")

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


async def set_limit(server: Server, amendment: Amendment, limit_usd: float | None) -> Change:
    """Put a limit in the place of the configured one; None takes that back."""
    before = await _before(server, amendment)
    request = pb.SetLimitRequest(
        scope=amendment.scope,
        window=before.window,
        limit_usd=limit_usd,
        who=amendment.who,
        change_id=amendment.id,
    )
    return _change(before, await server.ask("SetLimit", request, pb.ChangeBudgetResponse))


async def reset(server: Server, amendment: Amendment) -> Change:
    """Forget what was spent in the current window."""
    before = await _before(server, amendment)
    request = pb.ResetBudgetRequest(
        scope=amendment.scope, window=before.window, who=amendment.who, change_id=amendment.id
    )
    return _change(before, await server.ask("ResetBudget", request, pb.ChangeBudgetResponse))


async def grant(server: Server, amendment: Amendment, amount_usd: float) -> Change:
    """Raise the limit of the current window."""
    before = await _before(server, amendment)
    request = pb.GrantBudgetRequest(
        scope=amendment.scope,
        window=before.window,
        amount_usd=amount_usd,
        who=amendment.who,
        change_id=amendment.id,
    )
    return _change(before, await server.ask("GrantBudget", request, pb.ChangeBudgetResponse))


def to_listed(budget: pb.Budget) -> Document:
    """Give what `budgets list --json` has of a budget."""
    whole = document(budget)
    return {name: whole[name] for name in LISTED}


def used_share(budget: pb.Budget) -> float:
    """Tell which share of the limit is spent or held; of a limit of 0 it is all as soon as there is something."""
    used_usd = budget.spent_usd + budget.held_usd
    if budget.limit_usd > 0:
        return used_usd / budget.limit_usd
    return 1.0 if used_usd > 0 else 0.0


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
    return (
        cell(budget.scope if console.width >= WHOLE_KEYS_WIDTH else scope_short(budget.scope)),
        cell(budget.window),
        amount(budget.limit_usd) + (BY_HAND if _by_hand(budget) else ""),
        amount(budget.spent_usd),
        amount(budget.held_usd),
        amount(budget.available_usd),
        Text(f"{used_share(budget) * PERCENT:.0f} %", used_style(budget)),
        roughly_until(budget.resets_at, time.time()) if budget.HasField("resets_at") else "never",
    )


def _explain_marks(console: Console, budgets: Sequence[pb.Budget]) -> None:
    if any(_by_hand(budget) for budget in budgets):
        console.print(f"{BY_HAND} not the configured limit: it was set by hand, or raised by a grant")
    if console.width < WHOLE_KEYS_WIDTH and any(budget.scope != scope_short(budget.scope) for budget in budgets):
        console.print("… a wider terminal, or --json, shows keys whole")


def _by_hand(budget: pb.Budget) -> bool:
    return budget.limit_usd != budget.configured_limit_usd


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
    """Write a window as budgets do, where it is one: 1440m is 24h."""
    try:
        return str(parse_duration(window))
    except ValueError:
        return window
