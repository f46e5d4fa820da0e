"""The records of payers, read and written whole: with the aliases of keys, and with what the log says of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from extauthz.directories.store.records import (
    EDITS_MAX,
    SCOPES_MAX,
    Change,
    Edit,
    Outcome,
    Place,
    Records,
    Table,
)
from extauthz.directories.store.written import Record, alias_place, from_bytes, place_of, to_bytes
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.domain.directory import KEY_NAME_LENGTH
from extauthz.errors import AbsentError, BusyError, ExtauthzError, ImpossibleError, UnclearError

# Records that one change writes: each has an edit of its own, and up to two of aliases.
WRITTEN_MAX = EDITS_MAX // 4
# How often a change is tried that others come before.
TRIES_MAX = 5

WHO_BYTES_MAX = 64
REMARK_CHARS_MAX = 128
_CHANGE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

T = TypeVar("T")


class OvertakenError(ExtauthzError):
    """Somebody else changed a record since it was read."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who wants a change, and what it is called: one that is sent twice is made once."""

    who: str
    change_id: str

    def check(self) -> None:
        """Raise UnclearError for names that the log has no room for."""
        if not self.who or len(self.who.encode()) > WHO_BYTES_MAX:
            raise UnclearError(f"`who` is empty or longer than {WHO_BYTES_MAX} bytes: send a name")
        if not self.who.isprintable():  # a terminal that shows the log would obey it
            raise UnclearError("`who` has characters that cannot be shown: send a name")
        if not _CHANGE_ID.fullmatch(self.change_id):
            raise UnclearError("`change_id` may have up to 64 letters, digits and . _ : -; or leave it out")


@dataclass(frozen=True, slots=True)
class Turn:
    """A record before and after a change, None: not there.

    A key that was replaced may be dropped after its end, and not before `kept_ms` (Unix milliseconds).
    """

    before: Record | None
    after: Record | None
    kept_ms: int = 0

    @property
    def scope(self) -> Scope:
        """Whose record it is."""
        record = self.after or self.before
        if record is None:
            raise ValueError("a turn has a record")
        return record.scope


class Archive:
    """Reads and writes records. `told` hears what was done to whom, and by whom."""

    def __init__(self, records: Records, told: Callable[[str, str, str], None]) -> None:
        self.records = records
        self._told = told

    async def read(self, scopes: Sequence[Scope]) -> Mapping[Scope, Record]:
        """Give records; those that are not there are left out."""
        places = {place_of(scope): scope for scope in scopes}
        found = await self.records.read(tuple(places))
        return {places[place]: record_of(places[place], raw) for place, raw in found.items()}

    async def of(self, scope: Scope) -> Record:
        """Give the record of a payer. Raises AbsentError."""
        record = (await self.read((scope,))).get(scope)
        if record is None:
            raise AbsentError(f"{shown(scope)} is not in the store")
        return record

    async def named(self, alias: str) -> Record:
        """Give the key with an alias. Raises AbsentError."""
        place = alias_place(alias)
        name = (await self.records.read((place,))).get(place)
        if name is None:
            raise AbsentError("the store has no key with this alias: `keys list` shows all")
        return await self.of(Scope(ScopeKind.KEY, (name.hex(),)))

    async def made(self, author: Author) -> tuple[Record | None] | None:
        """Tell what there is of the payer of a change that was made before, None: it was not made."""
        author.check()
        entry = await self.records.made(author.change_id)
        if entry is None:
            return None
        scopes = tuple(map(Scope.parse, entry.change.scopes[:1]))
        found = await self.read(scopes)
        return (next(iter(found.values()), None),)

    async def write(
        self,
        what: str,
        turns: Sequence[Turn],
        author: Author,
        *,
        needed: Iterable[Record] = (),
        aliases_move: bool = False,
    ) -> bool:
        """Put records in the place of others, all or none, and only while the `needed` ones are as they were read.

        False where this was done before. An alias that another key has is moved or refused. Raises OvertakenError and
        ImpossibleError.
        """
        scopes = tuple(turn.scope for turn in turns)
        few = len(scopes) <= SCOPES_MAX
        remark = ", ".join(shown(turn.scope, turn.after or turn.before) for turn in turns) if few else ""
        remark = remark[:REMARK_CHARS_MAX] or f"{len(scopes):,} payers"
        texts = tuple(scope.text for scope in scopes) if few else ()
        edits = [*map(_edit, turns), *await self._alias_edits(turns, move=aliases_move)]
        # As many as there is room for: a long list names few payers, again and again.
        unchanged = (Edit(place_of(record.scope), record.raw, record.raw) for record in needed)
        edits += islice(unchanged, max(0, EDITS_MAX - len(edits)))
        match await self.records.change(Change(author.change_id, author.who, what, texts, remark), edits):
            case Outcome.MADE:
                self._told(what, remark, author.who)
                return True
            case Outcome.REPEATED:
                return False
            case Outcome.CONFLICT:
                raise OvertakenError

    async def _alias_edits(self, turns: Sequence[Turn], *, move: bool) -> Sequence[Edit]:
        """Have every alias lead to its key, and none to one that is gone."""
        names = {place_of(turn.scope).name for turn in turns if turn.scope.kind is ScopeKind.KEY}
        lost = {alias_place(alias) for turn in turns for alias in _lost_alias(turn)}
        won = {alias_place(alias): place_of(turn.scope).name for turn in turns for alias in _won_alias(turn)}
        if not lost and not won:
            return ()
        found = await self.records.read((*lost, *won))
        if not move:
            await self._refuse_taken({place: name for place, name in found.items() if place in won}, names)
        dropped = (place for place in lost if place not in won and found.get(place) in names)
        return (
            *(Edit(place, None, found[place]) for place in dropped),
            *(Edit(place, name, found.get(place)) for place, name in won.items()),
        )

    async def _refuse_taken(self, found: Mapping[Place, bytes], ours: set[bytes]) -> None:
        others = {Place(Table.KEY, name): alias for alias, name in found.items() if name not in ours}
        taken = await self.records.read(tuple(others)) if others else {}
        for place in taken:
            alias = others[place].name.decode()
            raise ImpossibleError(f"another key has the alias `{alias}`: choose another one, or rotate that key")


async def in_turns(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try again what others came before. Raises BusyError."""
    for _ in range(TRIES_MAX):
        try:
            return await attempt()
        except OvertakenError:
            continue
    raise BusyError("others change the same at this moment: look at it, and ask again")


def shown(scope: Scope, record: Record | None = None) -> str:
    """Write a payer for people and logs: a key by its alias, or by the beginning of its hash."""
    if scope.kind is not ScopeKind.KEY:
        return scope.text
    alias = None if record is None else record.alias
    digits = scope.ids[0][:KEY_NAME_LENGTH]
    return f"{scope.kind}:{digits}" if alias is None else f"{scope.kind}:{digits} ({alias})"


def record_of(scope: Scope, raw: bytes) -> Record:
    """Read a record; one that was written by hand, and wrongly, has nothing in it, and can be put anew."""
    try:
        return from_bytes(scope, raw)
    except ValueError:
        return Record(scope, {}, 0, "", raw=raw, readable=False)


def _edit(turn: Turn) -> Edit:
    before, after = turn.before, turn.after
    return Edit(
        place_of(turn.scope),
        None if after is None else to_bytes(after),
        None if before is None else before.raw,
        None if after is None or not after.replaced or after.end_ms is None else max(after.end_ms, turn.kept_ms),
    )


def _won_alias(turn: Turn) -> Iterator[str]:
    after = None if turn.after is None else turn.after.alias
    if after is not None and (turn.before is None or turn.before.alias != after):
        yield after


def _lost_alias(turn: Turn) -> Iterator[str]:
    before = None if turn.before is None else turn.before.alias
    if before is not None and (turn.after is None or turn.after.alias != before):
        yield before
