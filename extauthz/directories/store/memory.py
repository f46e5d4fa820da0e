"""Records in this process's memory: for one replica, and lost with it."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from extauthz.directories.store.records import (
    CHANGES_MAX,
    DROPPED_AFTER_MS,
    DROPPED_MAX,
    LOG_ENTRIES_MAX,
    Anything,
    Change,
    Edit,
    Entry,
    Outcome,
    Place,
    Table,
)
from extauthz.errors import StoreUnavailableError

# Of all tables together; a page looks through one of them.
RECORDS_MAX = 100_000

_START = "-"


class MemoryRecords:
    """Records in memory. `clock_ms` gives Unix milliseconds."""

    def __init__(self, clock_ms: Callable[[], int], *, records_max: int = RECORDS_MAX) -> None:
        self._clock_ms = clock_ms
        self._records_max = records_max
        self._tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._ends: dict[bytes, int] = {}
        self._log: list[Entry] = []
        self._made: OrderedDict[str, int] = OrderedDict()  # the place of its entry in the log, by its id
        self._last = (0, 0)

    async def read(self, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """Give records."""
        found = ((place, self._tables[place.table].get(place.name)) for place in places)
        return {place: record for place, record in found if record is not None}

    async def page(self, table: Table, cursor: str, count: int) -> tuple[str, Sequence[tuple[bytes, bytes]]]:
        """Give some records of a table, in the order of their names; the cursor is the last of them."""
        after = bytes.fromhex(cursor)
        records = self._tables[table]
        names = heapq.nsmallest(count + 1, (name for name in records if not cursor or name > after))
        given = [(name, records[name]) for name in names[:count]]
        return (given[-1][0].hex() if len(names) > count else ""), given

    async def count(self, table: Table) -> int:
        """Count the records of a table."""
        return len(self._tables[table])

    async def change(self, change: Change, edits: Sequence[Edit]) -> Outcome:
        """Make all edits or none, and write that down."""
        if change.id in self._made:
            return Outcome.REPEATED
        before = [self._tables[edit.place.table].get(edit.place.name) for edit in edits]
        if any(
            not isinstance(edit.before, Anything) and edit.before != found
            for edit, found in zip(edits, before, strict=True)
        ):
            return Outcome.CONFLICT
        added = sum(edit.after is not None and found is None for edit, found in zip(edits, before, strict=True))
        if added and added + sum(map(len, self._tables.values())) > self._records_max:
            raise StoreUnavailableError(f"the memory store has room for {self._records_max:,} payers and keys")
        for edit in edits:
            self._edit(edit)
        self._write_down(change)
        self._drop_ended()
        return Outcome.MADE

    async def entries(self, start: str, count: int) -> tuple[Entry, ...]:
        """Give entries of the log from a place on."""
        first = 0 if start == _START else bisect_left(self._log, _order(start), key=lambda entry: _order(entry.at))
        return tuple(self._log[first : first + count])

    async def latest(self, count: int) -> tuple[Entry, ...]:
        """Give the latest entries."""
        return tuple(islice(reversed(self._log), count))

    async def made(self, change_id: str) -> Entry | None:
        """Find a change that was made."""
        return next((entry for entry in reversed(self._log) if entry.change.id == change_id), None)

    def _edit(self, edit: Edit) -> None:
        table, name = self._tables[edit.place.table], edit.place.name
        if edit.after is None:
            table.pop(name, None)
        else:
            table[name] = edit.after
        if edit.place.table is not Table.KEY:
            return
        if edit.after is None or edit.end_ms is None:
            self._ends.pop(name, None)
        else:
            self._ends[name] = edit.end_ms

    def _write_down(self, change: Change) -> None:
        now_ms, (last_ms, number) = self._clock_ms(), self._last
        self._last = (now_ms, 0) if now_ms > last_ms else (last_ms, number + 1)
        self._log.append(Entry("{}-{}".format(*self._last), change))
        if len(self._log) > LOG_ENTRIES_MAX:
            del self._log[: len(self._log) - LOG_ENTRIES_MAX]
        self._made[change.id] = now_ms
        if len(self._made) > CHANGES_MAX:
            self._made.popitem(last=False)

    def _drop_ended(self) -> None:
        latest_ms = self._clock_ms() - DROPPED_AFTER_MS
        ended = [name for name, end_ms in self._ends.items() if end_ms <= latest_ms]
        for name in ended[:DROPPED_MAX]:
            self._tables[Table.KEY].pop(name, None)
            del self._ends[name]


def _order(at: str) -> tuple[int, int]:
    """Give what places of the log are in order of. Raises ValueError for what is none."""
    milliseconds, _, number = at.partition("-")
    return int(milliseconds), int(number or 0)
