"""Records of payers in tables, changed in steps that are all or nothing and written down in a log.

A record is known here by its table and a short name in bytes, and its content is only bytes: names.py and written.py
say what they mean. Memory and Redis keep them alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

# What one change may edit, and one read ask for.
EDITS_MAX = 1000
READS_MAX = 2000

# Entries of the log that are kept, changes that are remembered by their ids, and scopes that one entry names.
LOG_ENTRIES_MAX = 10_000
CHANGES_MAX = 10_000
SCOPES_MAX = 100

# Keys that were rotated are dropped so long after their end, and at most so many of them by one change.
DROPPED_AFTER_MS = 86_400_000
DROPPED_MAX = 10


class Table(StrEnum):
    """The tables: a kind of payer each, and the keys by their aliases."""

    KEY = "key"
    TEAM = "team"
    MEMBER = "member"
    USER = "user"
    ORGANIZATION = "org"
    PROJECT = "project"
    TAG = "tag"
    END_USER = "end_user"
    ALIAS = "alias"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    table: Table
    name: bytes


@dataclass(frozen=True, slots=True)
class Anything:
    """What an edit expects that is right whatever was there."""


ANYTHING = Anything()


@dataclass(frozen=True, slots=True)
class Edit:
    """A record as it is to be, None: not there; made only where it was `before`, None: not there.

    At `end_ms` and a while the record may be dropped.
    """

    place: Place
    after: bytes | None
    before: bytes | Anything | None = ANYTHING
    end_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Who does what to which payers, for the log. `id` names it, so that one that is sent twice is made once.

    `scopes` are texts of scopes; empty where there are more than SCOPES_MAX. `remark` is for people.
    """

    id: str
    who: str
    what: str
    scopes: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A change that was made: where it stands in the log, and when (Unix milliseconds)."""

    at: str
    change: Change

    @property
    def made_ms(self) -> int:
        """When it was made, by the store's clock."""
        return int(self.at.partition("-")[0])


class Outcome(StrEnum):
    """What came of a change: it was made, was made before, or one of its records was not as it expected."""

    MADE = "made"
    REPEATED = "repeated"
    CONFLICT = "conflict"


class Records(Protocol):
    """Keeps the tables. Every call raises StoreUnavailableError where the store does not answer."""

    async def read(self, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """Give records, at most READS_MAX, all as of one moment; those that are not there are left out."""
        ...

    async def page(self, table: Table, cursor: str, count: int) -> tuple[str, Sequence[tuple[bytes, bytes]]]:
        """Give some records of a table, about `count`, in no order, and where to go on: empty at the end.

        What is there all the time is given at least once; what changes meanwhile may be given twice. Raises ValueError
        for a cursor that is none.
        """
        ...

    async def count(self, table: Table) -> int:
        """Count the records of a table."""
        ...

    async def change(self, change: Change, edits: Sequence[Edit]) -> Outcome:
        """Make all edits, at most EDITS_MAX, or none, and write that down."""
        ...

    async def entries(self, start: str, count: int) -> tuple[Entry, ...]:
        """Give entries of the log from a place on, `-` from the oldest, the oldest first."""
        ...

    async def latest(self, count: int) -> tuple[Entry, ...]:
        """Give the latest entries, the latest first."""
        ...

    async def made(self, change_id: str) -> Entry | None:
        """Find a change that was made, as long as the log has it."""
        ...
