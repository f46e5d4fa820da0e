"""What is in the store, in pages."""

from __future__ import annotations

from dataclasses import dataclass, field

from extauthz.directories.store.archive import record_of
from extauthz.directories.store.records import Place, Records, Table
from extauthz.directories.store.written import Document, Record, scope_at
from extauthz.domain.budgets import ScopeKind
from extauthz.errors import UnclearError

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000
# Records that one page looks at, to find those that were asked for.
EXAMINED_MAX = 5000

_NO_PLACE = "`page_token` is none of ours: send `next_page_token` of the page before"


@dataclass(frozen=True, slots=True)
class PayerQuery:
    """Which payers are asked for: of which kinds, with which fields, about how many, and from where on.

    `after` is the end of the page before, empty for the first.
    """

    kinds: tuple[ScopeKind, ...]
    fields: Document = field(default_factory=dict)
    count: int = PAGE_SIZE
    after: str = ""


@dataclass(frozen=True, slots=True)
class PayerPage:
    """Payers in no order, and where to go on, empty at the end."""

    records: tuple[Record, ...]
    end: str


async def page(records: Records, query: PayerQuery) -> PayerPage:
    """List payers. A page may have fewer or more than were asked for, and the list go on all the same.

    Raises UnclearError.
    """
    tables = [Table(str(kind)) for kind in query.kinds]
    number, cursor = _opened(tables, query.after)
    found: list[Record] = []
    examined = 0
    while number < len(tables) and len(found) < query.count and examined < EXAMINED_MAX:
        table = tables[number]
        try:
            cursor, some = await records.page(table, cursor, query.count)
        except ValueError:
            raise UnclearError(_NO_PLACE) from None
        examined += max(1, len(some))
        every = (record_of(scope_at(Place(table, name)), raw) for name, raw in some)
        found += (record for record in every if _has(record, query.fields))
        number += not cursor
    return PayerPage(tuple(found), f"{tables[number]}/{cursor}" if number < len(tables) else "")


def _opened(tables: list[Table], place: str) -> tuple[int, str]:
    """Find the table and the cursor of a place."""
    if not place:
        return 0, ""
    name, _, cursor = place.partition("/")
    if name not in tables:
        raise UnclearError(_NO_PLACE)
    return tables.index(Table(name)), cursor


def _has(record: Record, fields: Document) -> bool:
    return all(record.document.get(name) == value for name, value in fields.items())
