"""Payers that name others: a key its team, a team its organization."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from extauthz.directories.store.archive import Turn
from extauthz.directories.store.records import Place, Records, Table
from extauthz.directories.store.written import Document, from_bytes, scope_at
from extauthz.domain.budgets import Scope, ScopeKind

# The fields that name other payers, and of which kind these are.
FIELDS: Mapping[str, ScopeKind] = {
    "organization": ScopeKind.ORGANIZATION,
    "team": ScopeKind.TEAM,
    "user": ScopeKind.USER,
    "project": ScopeKind.PROJECT,
    "tags": ScopeKind.TAG,
}
# Who has them.
_NAMING = (Table.TEAM, Table.USER, Table.PROJECT, Table.KEY)
_PAGE = 1000


def named(turn: Turn) -> Iterator[Scope]:
    """Give the payers that a record names and did not name before."""
    if turn.after is None:
        return
    before: Document = {} if turn.before is None else turn.before.document
    if turn.before is None and turn.scope.kind is ScopeKind.MEMBER:
        team, user = turn.scope.ids
        yield from (Scope(ScopeKind.TEAM, (team,)), Scope(ScopeKind.USER, (user,)))
    for field, kind in FIELDS.items():
        match turn.after.document.get(field):
            case str(name) if name != before.get(field):
                yield Scope(kind, (name,))
            case [*names] if names != before.get(field):
                yield from (Scope(kind, (str(name),)) for name in names)


async def naming(records: Records, payer: Scope) -> Scope | None:
    """Find somebody who names a payer, looking through all who could."""
    field = next((field for field, kind in FIELDS.items() if kind is payer.kind), None)
    if field is None:
        return None
    (name,) = payer.ids
    written = json.dumps(name, ensure_ascii=False).encode()
    for table in _NAMING:
        cursor = ""
        while True:
            cursor, some = await records.page(table, cursor, _PAGE)
            for place, raw in some:
                if written in raw and _names(scope := scope_at(Place(table, place)), raw, field, name):
                    return scope
            if not cursor:
                break
    return None


def _names(scope: Scope, raw: bytes, field: str, name: str) -> bool:
    try:
        value = from_bytes(scope, raw).document.get(field)
    except ValueError:
        return False
    return value == name or (isinstance(value, list) and name in value)
