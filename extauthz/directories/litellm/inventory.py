"""All payers that LiteLLM's database has, at one moment, for whoever wants to have them elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from extauthz.directories.litellm.booked import Booked, booked
from extauthz.directories.litellm.database import Database, Reading
from extauthz.directories.litellm.queries import Queries
from extauthz.directories.litellm.records import DEFAULT_END_USER, Records
from extauthz.directories.litellm.rows import written
from extauthz.directories.litellm.source import fields_of, shown
from extauthz.directories.litellm.values import Row, UnreadableError, Written
from extauthz.directories.source import stand_in
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX, Scope, ScopeKind
from extauthz.errors import ImpossibleError

# For all of it. LiteLLM goes on meanwhile: a reading takes no lock that it would wait for.
INVENTORY_S = 300.0
PAGE = 1000
PAGES_MAX = 1000
# Whose spend is that of all together, under the name of a user who is nobody.
EVERYBODY = Scope(ScopeKind.USER, ("litellm-proxy-budget",))

# In an order in which those who are named come before those who name them.
KINDS = (
    *(ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.MEMBER, ScopeKind.USER, ScopeKind.PROJECT),
    *(ScopeKind.TAG, ScopeKind.END_USER, ScopeKind.KEY),
)
# LiteLLM's words for the payers whose windows it keeps apart.
_WINDOWED = {ScopeKind.KEY: "Key", ScopeKind.TEAM: "Team"}
# Before every id.
_FIRST = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A payer that is not in an inventory, or a part of it, and why; `refused` where it stands there as one who is."""

    who: str
    why: str
    refused: bool = False


@dataclass(slots=True)
class Inventory:
    """Payers in order of their ids, by kinds; what LiteLLM has booked on them; and what was left out."""

    payers: dict[ScopeKind, dict[Scope, Written]] = field(default_factory=dict)
    booked: dict[Scope, Booked] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def count(self, kind: ScopeKind) -> int:
        """Count the payers of a kind."""
        return len(self.payers.get(kind, {}))

    def add(self, scope: Scope, record: Written, spent: Booked) -> None:
        """Add a payer."""
        self.payers.setdefault(scope.kind, {})[scope] = record
        if spent != Booked():
            self.booked[scope] = spent


async def take_inventory(database: Database, end_user_budget: str | None, now: datetime) -> Inventory:
    """Read everything. Raises DirectoryUnavailableError, and ImpossibleError where there is too much of it."""
    inventory = Inventory()
    async with database.reading(INVENTORY_S) as reading:
        records, queries = Records(reading, end_user_budget), Queries(reading.schema)
        for kind in KINDS:
            async for ids in _pages(reading, queries, kind):
                scopes = [*_scopes(kind, ids, inventory)]
                rows = await records.rows(scopes)
                windows = await _windows(reading, queries, kind, scopes)
                for scope in scopes:
                    if scope in rows:
                        _take(inventory, scope, rows[scope], windows.get(scope.ids[0], ()), now)
        for scope, row in (await records.rows([DEFAULT_END_USER])).items():
            _take(inventory, scope, row, (), now)
        groups = await reading.fetch(queries.group_budgets())
        if groups[0]["count"]:
            why = "budgets of access groups of models have no counterpart here"
            inventory.left_out.append(LeftOut(f"{groups[0]['count']} model access groups", why))
    return inventory


def _take(inventory: Inventory, scope: Scope, row: Row, windows: Sequence[Row], now: datetime) -> None:
    record = written(scope.kind, row)
    try:
        fields = fields_of(scope.kind, record)
        if isinstance(fields, UnreadableError):
            raise fields
        if not isinstance(record, dict):
            return
        _refuse_variables([*scope.ids, record])
    except UnreadableError as error:
        # Others name it: left out, it would be one without limits.
        refusal = stand_in(scope.kind)
        inventory.left_out.append(LeftOut(shown(scope), str(error), refused=refusal is not None))
        if refusal is not None:
            inventory.add(scope, refusal.model_dump(exclude_unset=True), Booked())
        return
    try:
        spent = booked(scope.kind, row, record, windows, now)
    except (UnreadableError, OverflowError) as error:
        inventory.left_out.append(LeftOut(f"what {shown(scope)} has spent", str(error)))
        spent = Booked()
    if scope == EVERYBODY:
        inventory.booked[Scope(ScopeKind.GLOBAL)] = spent
    else:
        inventory.add(scope, record, spent)


def _refuse_variables(value: object) -> None:
    """Raise UnreadableError for a text that a file would take for the name of an environment variable."""
    match value:
        case str() if value.startswith("os.environ/"):
            raise UnreadableError("a text in it begins with os.environ/, which a file cannot say")
        case Mapping():
            for name, item in value.items():
                _refuse_variables(name)
                _refuse_variables(item)
        case list() | tuple():
            for item in value:
                _refuse_variables(item)
        case _:
            pass


async def _pages(reading: Reading, queries: Queries, kind: ScopeKind) -> AsyncIterator[Sequence[tuple[str, ...]]]:
    """Give the ids of all payers of a kind."""
    query = queries.ids(kind)
    last: tuple[str, ...] = (_FIRST, _FIRST) if kind is ScopeKind.MEMBER else (_FIRST,)
    for _ in range(PAGES_MAX):
        page = [tuple(map(str, row.values())) for row in await reading.fetch(query, *last, PAGE)]
        if not page:
            return
        yield page
        last = page[-1]
    raise ImpossibleError(
        f"there are more than {PAGES_MAX * PAGE:,} {kind}s: let servers read them, `directory: litellm`"
    )


def _scopes(kind: ScopeKind, ids: Iterable[tuple[str, ...]], inventory: Inventory) -> Iterable[Scope]:
    for each in ids:
        if any(len(part.encode()) > SCOPE_ID_BYTES_MAX for part in each):
            inventory.left_out.append(LeftOut(f"{kind}:{each[0][:32]}…", f"its id has over {SCOPE_ID_BYTES_MAX} bytes"))
        else:
            yield Scope(kind, each)


async def _windows(
    reading: Reading, queries: Queries, kind: ScopeKind, scopes: Sequence[Scope]
) -> Mapping[str, Sequence[Row]]:
    """Find what was spent in windows, by the ids of payers."""
    found: dict[str, list[Row]] = {}
    if kind in _WINDOWED:
        ids = [scope.ids[0] for scope in scopes]
        for row in await reading.fetch(queries.window_spend(), _WINDOWED[kind], ids):
            found.setdefault(row["entity_id"], []).append(row)
    return found
