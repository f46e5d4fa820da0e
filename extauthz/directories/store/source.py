"""The directory of a store, as servers ask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from extauthz.config.payers import BudgetFields
from extauthz.directories.source import CHANGED_MAX, EVERYTHING_CHANGED, NOTHING_CHANGED, Changes, stand_in
from extauthz.directories.store.records import Entry, Place, Records
from extauthz.directories.store.written import fields_of, from_bytes, place_of
from extauthz.domain.budgets import Scope
from extauthz.errors import DirectoryUnavailableError, StoreUnavailableError

# Entries of the log that are read at once; after more of them, everything may have changed.
ENTRIES_MAX = 500

_OLDEST = "-"


class StoreSource:
    """A Source over records. `unreadable` hears of one that cannot be read.

    Such a key is unknown, and anybody else is refused: those who name it would be bound by nothing of it.
    """

    def __init__(self, records: Records, unreadable: Callable[[Scope, Exception], None]) -> None:
        self._records = records
        self._unreadable = unreadable
        self._seen: Entry | None = None
        self._begun = False

    async def fetch(self, scopes: Sequence[Scope]) -> Mapping[Scope, BudgetFields]:
        """Give what is known of payers now; who is missing is unknown. Raises DirectoryUnavailableError."""
        places = {place: scope for scope in scopes if (place := _place(scope)) is not None}
        try:
            found = await self._records.read(tuple(places))
        except StoreUnavailableError as error:
            raise DirectoryUnavailableError(str(error)) from error
        known = ((places[place], raw) for place, raw in found.items())
        return {scope: fields for scope, raw in known if (fields := self._fields(scope, raw)) is not None}

    async def changes(self) -> Changes | None:
        """Tell whose records have changed since the last call; everything, where the log does not say.

        Raises DirectoryUnavailableError.
        """
        try:
            return await self._changes()
        except StoreUnavailableError as error:
            self._begun = False
            raise DirectoryUnavailableError(str(error)) from error

    async def close(self) -> None:
        """Let go of nothing: the store is the ledger's."""

    async def _changes(self) -> Changes:
        if not self._begun:
            return await self._begin()
        seen = () if self._seen is None else (self._seen,)
        entries = await self._records.entries(seen[0].at if seen else _OLDEST, ENTRIES_MAX)
        # What was seen last stands there again, unless it was trimmed, or the store lost it.
        fresh = entries[len(seen) :]
        if entries[: len(seen)] != seen or len(entries) == ENTRIES_MAX:
            return await self._begin()
        if not fresh:
            return NOTHING_CHANGED
        scopes = {text for entry in fresh for text in entry.change.scopes}
        if len(scopes) > CHANGED_MAX or not all(entry.change.scopes for entry in fresh):
            return await self._begin()
        self._seen = fresh[-1]
        return Changes(frozenset(map(Scope.parse, scopes)))

    async def _begin(self) -> Changes:
        """Read on behind the latest entry; what was before it is to be read anew."""
        latest = await self._records.latest(1)
        self._seen, self._begun = (latest[0] if latest else None), True
        return EVERYTHING_CHANGED

    def _fields(self, scope: Scope, raw: bytes) -> BudgetFields | None:
        try:
            return fields_of(from_bytes(scope, raw))
        except ValueError as error:
            self._unreadable(scope, error)
            return stand_in(scope.kind)


def _place(scope: Scope) -> Place | None:
    """Tell where a record stands, None for a scope that can have none."""
    try:
        return place_of(scope)
    except ValueError:
        return None
