"""A replica's view of the keys in a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unittest.mock import patch

import pytest

from extauthz.directories.source import EVERYTHING_CHANGED, NOTHING_CHANGED, Changes
from extauthz.directories.store.memory import MemoryRecords
from extauthz.directories.store.records import Change, Edit, Entry, Place, Table
from extauthz.directories.store.source import StoreSource
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import DirectoryUnavailableError, StoreUnavailableError

TEAM = Scope(ScopeKind.TEAM, ("research",))


class AwayRecords(MemoryRecords):
    """Records that may be away."""

    away = False

    async def read(self, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """Read, or fail."""
        self._fail()
        return await super().read(places)

    async def entries(self, start: str, count: int) -> tuple[Entry, ...]:
        """Read, or fail."""
        self._fail()
        return await super().entries(start, count)

    def _fail(self) -> None:
        if self.away:
            raise StoreUnavailableError("the store is away")


@pytest.fixture
def records() -> AwayRecords:
    """Begin with nothing."""
    return AwayRecords(lambda: 1_795_000_000_000)


def source(records: MemoryRecords) -> StoreSource:
    """Look at them."""
    return StoreSource(records, lambda _, __: None)


async def change(records: MemoryRecords, number: int, scope: Scope = TEAM) -> None:
    """Change a payer."""
    await records.change(Change(f"c{number}", "ana", "put", (scope.text,)), [])


async def test_a_log_that_was_trimmed(records: AwayRecords) -> None:
    """Where the log no longer has the entry that was seen last, everything may have changed."""
    view = source(records)
    await view.changes()
    with patch("extauthz.directories.store.memory.LOG_ENTRIES_MAX", 3):
        await change(records, 0)
        assert Changes(frozenset({TEAM})) == await view.changes()
        for number in range(1, 4):
            await change(records, number)

    assert EVERYTHING_CHANGED == await view.changes()
    assert NOTHING_CHANGED == await view.changes()


async def test_another_log(records: AwayRecords) -> None:
    """Another change at the place of the one that was seen last is another log: everything may have changed."""
    view = source(records)
    await view.changes()
    await change(records, 0)
    await view.changes()
    records._log[0] = Entry(records._log[0].at, Change("another", "ana", "put", (TEAM.text,)))

    assert EVERYTHING_CHANGED == await view.changes()


async def test_a_store_that_is_away(records: AwayRecords) -> None:
    """What cannot be read is no answer, and afterwards everything may have changed."""
    view = source(records)
    await view.changes()
    records.away = True
    with pytest.raises(DirectoryUnavailableError):
        await view.fetch([TEAM])
    with pytest.raises(DirectoryUnavailableError):
        await view.changes()
    records.away = False

    assert EVERYTHING_CHANGED == await view.changes()


@pytest.mark.parametrize("scope", [Scope(ScopeKind.KEY, ("not a hash",)), Scope(ScopeKind.GLOBAL)])
async def test_who_can_have_no_record(records: AwayRecords, scope: Scope) -> None:
    """A key whose hash is none, or a kind of payer that has no record, is unknown."""
    assert {} == await source(records).fetch([scope])


async def test_memory_has_an_end() -> None:
    """The memory store takes no more payers than it has room for, and changes those that it has."""
    records = MemoryRecords(lambda: 0, records_max=1)
    place, other = Place(Table.TEAM, b"a"), Place(Table.TEAM, b"b")
    await records.change(Change("1", "ana", "put"), [Edit(place, b"1")])
    with pytest.raises(StoreUnavailableError, match="room for 1 "):
        await records.change(Change("2", "ana", "put"), [Edit(other, b"1")])
    await records.change(Change("3", "ana", "put"), [Edit(place, b"2")])

    assert {place: b"2"} == await records.read([place, other])
