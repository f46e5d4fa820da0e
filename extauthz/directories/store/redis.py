"""Records in Redis, beside the books: one hash for each table, and three keys more.

They have the hash tag of the books (of the first shard, where these are in shards), and no script of the ledger touches
them. With the tag `extauthz`:

| key | type | what stands in it |
|---|---|---|
| `{extauthz}:directory:key` | hash | 32 bytes of a key's SHA-256 → its record |
| `{extauthz}:directory:team`, `:member`, `:user`, `:org`, … | hashes | id, as in a scope → the record |
| `{extauthz}:directory:alias` | hash | a key's alias → 32 bytes of its SHA-256 |
| `{extauthz}:directory:ended` | sorted set | SHA-256 of keys that were rotated, by the time at which they end |
| `{extauthz}:directory:log` | stream | who changed what; replicas read here what they must forget |
| `{extauthz}:directory:changes` | sorted set | ids of changes that were made, by their time |

A record is JSON of the fields that are set (written.py). Small hashes in buckets would save nothing: a record is longer
than `hash-max-listpack-value` allows, and most of what a key takes is its record.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from itertools import chain

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
from extauthz.ledger.link import Link, Server
from extauthz.ledger.primary import text
from extauthz.ledger.script import Script

# What ids of changes are looked for in.
MADE_AT_ONCE_MAX = 1000

# Changes that a successor of the store is told again: those of so many seconds, and so many edits at most.
RETOLD_S = 30.0
RETOLD_MAX = 10_000

_Fields = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Made:
    """A change, when it was acknowledged, and by which server."""

    at_s: float
    server: Server
    change: Change
    edits: tuple[Edit, ...]


class RedisRecords:
    """Records by the link of a ledger, under its tag."""

    def __init__(self, link: Link, tag: str, clock_s: Callable[[], float]) -> None:
        self._link = link
        self._clock_s = clock_s
        self._recent: deque[_Made] = deque()
        self._tables = {table: f"{{{tag}}}:directory:{table}" for table in Table}
        self._ended, self._log, self._changes = (f"{{{tag}}}:directory:{name}" for name in ("ended", "log", "changes"))
        self._may_write = False

    async def read(self, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """Give records, one command for each table, in one step."""
        by_table: dict[Table, list[Place]] = defaultdict(list)
        for place in places:
            by_table[place.table].append(place)
        commands: list[tuple[str | bytes | int, ...]] = [
            ("HMGET", self._tables[table], *(place.name for place in asked)) for table, asked in by_table.items()
        ]
        match commands:
            case []:
                return {}
            case [command]:
                answers = [await self._link.ask(*command)]
            case _:
                answers = await self._link.transact(*commands)
        found = zip(chain(*by_table.values()), chain(*answers), strict=True)
        return {place: record for place, record in found if record is not None}

    async def page(self, table: Table, cursor: str, count: int) -> tuple[str, Sequence[tuple[bytes, bytes]]]:
        """Give some records of a table; a small one is given whole."""
        at = int(cursor or "0")
        if at < 0:
            raise ValueError("a cursor is not negative")
        following, found = await self._link.ask("HSCAN", self._tables[table], at, "COUNT", count)
        return (str(following) if following else ""), [*found.items()]

    async def count(self, table: Table) -> int:
        """Count the records of a table."""
        return int(await self._link.ask("HLEN", self._tables[table]))

    async def change(self, change: Change, edits: Sequence[Edit]) -> Outcome:
        """Make all edits or none, and write that down."""
        await self._try_rights()
        head = (change.id, change.who, change.what, " ".join(change.scopes), change.remark)
        limits = (LOG_ENTRIES_MAX, CHANGES_MAX, DROPPED_AFTER_MS, DROPPED_MAX)
        keys = (*self._tables.values(), self._ended, self._log, self._changes)
        arguments = (*head, *map(str, limits), *chain.from_iterable(map(_arguments, edits)))
        outcome = Outcome(text(await self._link.run(_script(), keys, arguments)))
        if outcome is Outcome.MADE and self._link.server is not None:
            self._keep(_Made(self._clock_s(), self._link.server, change, tuple(edits)))
        return outcome

    async def entries(self, start: str, count: int) -> tuple[Entry, ...]:
        """Give entries of the log from a place on."""
        await self._tell_again()
        return _entries(await self._link.ask("XRANGE", self._log, start, "+", "COUNT", count))

    async def latest(self, count: int) -> tuple[Entry, ...]:
        """Give the latest entries."""
        await self._tell_again()
        return _entries(await self._link.ask("XREVRANGE", self._log, "+", "-", "COUNT", count))

    async def made(self, change_id: str) -> Entry | None:
        """Find a change that was made, by its time: entry and change are written in one step."""
        made_ms = await self._link.ask("ZSCORE", self._changes, change_id)
        if made_ms is None:
            return None
        # The script looked at the clock a moment after the entry was written, if at all.
        start = int(float(made_ms)) - 1
        found = await self._link.ask("XRANGE", self._log, start, "+", "COUNT", MADE_AT_ONCE_MAX)
        return next((entry for entry in _entries(found) if entry.change.id == change_id), None)

    def _keep(self, made: _Made) -> None:
        """Remember the changes of the last moments, however long ago these were."""
        self._recent.append(made)
        while made.at_s - self._recent[0].at_s > RETOLD_S or sum(len(each.edits) for each in self._recent) > RETOLD_MAX:
            self._recent.popleft()

    async def _tell_again(self) -> None:
        """Make changes again: a successor may have lost what its predecessor acknowledged last, a revocation as well.

        What it knows it does not make again, and what others have changed since stays as it is.
        """
        server = self._link.server
        if server is None or all(server.continues(made.server) for made in self._recent):
            return
        recent, self._recent = self._recent, deque()
        try:
            while recent:
                await self.change(recent[0].change, recent[0].edits)
                recent.popleft()
        except StoreUnavailableError:
            self._recent = deque((*recent, *self._recent))
            raise

    async def _try_rights(self) -> None:
        """Raise StoreUnavailableError where the store's user may not what only changes need.

        Inside a script, the link would take that for a store that serves nobody.
        """
        if self._may_write:
            return
        await self._link.ask("ZSCORE", self._changes, "")
        await self._link.ask("ZREMRANGEBYRANK", self._changes, 0, -CHANGES_MAX - 1)
        self._may_write = True


@cache
def _script() -> Script:
    source = (files("extauthz.directories.store") / "scripts" / "change.lua").read_text("utf-8")
    return Script("change", source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def _arguments(edit: Edit) -> tuple[str | bytes, ...]:
    match edit.before:
        case Anything():
            expected = ("any", b"")
        case None:
            expected = ("none", b"")
        case bytes() as before:
            expected = ("was", before)
    becomes = ("drop", b"") if edit.after is None else ("put", edit.after)
    number = tuple(Table).index(edit.place.table) + 1
    return (str(number), edit.place.name, *expected, *becomes, "" if edit.end_ms is None else str(edit.end_ms))


def _entries(found: Sequence[tuple[bytes, _Fields]]) -> tuple[Entry, ...]:
    return tuple(map(_entry, found))


def _entry(found: tuple[bytes, _Fields]) -> Entry:
    at, pairs = found
    fields = {text(name): text(value) for name, value in pairs.items()}
    scopes = tuple(fields.get("scopes", "").split())
    change = Change(fields["change"], fields["who"], fields["what"], scopes, fields.get("remark", ""))
    return Entry(text(at), change)
