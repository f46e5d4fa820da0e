"""Keys and payers in the store, as operators create, change and revoke them.

A key is made here, shown once, and known by its SHA-256 from then on. Everything that somebody does stands in the log,
and is done once, however often it is sent. What cannot be done is told in a sentence that says what to do instead.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from extauthz.config.payers import hashed
from extauthz.directories.store.archive import WRITTEN_MAX, Archive, Author, Turn, in_turns, shown
from extauthz.directories.store.records import Records
from extauthz.directories.store.references import named, naming
from extauthz.directories.store.written import Document, Record, checked
from extauthz.domain.budgets import Scope, ScopeKind
from extauthz.errors import ImpossibleError, UnclearError

# Keys in a row, each in the place of the one before, of which several work at a time.
PREVIOUS_MAX = 20

# Fields that are judged at once, some milliseconds.
PIECE = 25

GRACE_S_MAX = 366 * 86_400

KEY_PREFIX = "sk-"
_BLOCKED = "blocked"
# Of the id of a deletion, in that of its being taken back.
_CHANGE_ID_KEPT = 59
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Done:
    """A payer before and after somebody changed it, None: not there.

    `key` is one that was made, which nobody can be told again. `changed` is False where this very change had been made.
    """

    before: Record | None
    after: Record | None
    changed: bool = True
    key: str | None = None


class Registry:
    """Changes keys and payers. `listed` tells whether the configuration's files know a payer."""

    def __init__(
        self,
        archive: Archive,
        *,
        listed: Callable[[Scope], bool],
        new_key: Callable[[], str],
        unix_s: Callable[[], float],
    ) -> None:
        self._archive = archive
        self._listed = listed
        self._new_key = new_key
        self._unix_s = unix_s

    @property
    def records(self) -> Records:
        """What it changes."""
        return self._archive.records

    async def find(self, name: str) -> Record:
        """Find a key by its SHA-256, or by its alias. Raises UnclearError and AbsentError."""
        if name.startswith(KEY_PREFIX):
            raise UnclearError("this looks like a key itself: name it by its SHA-256 or its alias, and keep it secret")
        if not name:
            raise UnclearError("no key is named: send its SHA-256 or its alias")
        digits = name.removeprefix(f"{ScopeKind.KEY}:").lower()
        if _SHA256.fullmatch(digits):
            return await self._archive.of(Scope(ScopeKind.KEY, (digits,)))
        return await self._archive.named(name)

    async def sha256_of(self, alias: str) -> str:
        """Find the SHA-256 of the key with an alias. Raises AbsentError."""
        return (await self._archive.named(alias)).scope.ids[0]

    async def of(self, scope: Scope) -> Record:
        """Give a payer. Raises AbsentError."""
        return await self._archive.of(scope)

    async def create(self, document: Document, author: Author) -> Done:
        """Make a key with these fields. Raises UnclearError and ImpossibleError, with nothing changed."""
        key = self._new_key()
        scope = Scope(ScopeKind.KEY, (hashed(key),))

        async def turns() -> list[Turn]:
            return [Turn(None, self._new(scope, document, author))]

        return replace(done, key=key) if (done := await self._do("create", turns, author)).changed else done

    async def rotate(self, name: str, grace_s: float, author: Author) -> Done:
        """Make a key in the place of another, which ends after a grace period, or at once where that is 0.

        The new one has all fields of the old one, and goes on with its counters. Raises AbsentError and UnclearError.
        """
        if not 0 <= grace_s <= GRACE_S_MAX:
            raise UnclearError(f"`grace_seconds` must be between 0 and {GRACE_S_MAX}")
        key = self._new_key()
        scope = Scope(ScopeKind.KEY, (hashed(key),))

        async def turns() -> list[Turn]:
            old, *older = await self._with_previous(name)
            self._check_rotation(old)
            working = [key for key in older if not self._has_ended(key)]
            before = next((key.scope.ids[0] for key in working), None)
            if grace_s and len(working) >= PREVIOUS_MAX - 2:
                raise ImpossibleError(
                    f"{len(working)} keys in whose place this one came still work: rotate it with no grace, or revoke "
                    "some of them"
                )
            first = old.document.get("counts_as", old.scope.ids[0])
            new = self._new(scope, {**old.document, "counts_as": first}, author)
            if not grace_s:
                return [Turn(None, replace(new, previous=before)), Turn(old, None)]
            # Who revokes the new key finds by it those before it, as long as one of them works.
            kept_ms = _kept_ms(working)
            ending = replace(self._ending(old, grace_s), previous=before)
            return [Turn(None, replace(new, previous=old.scope.ids[0])), Turn(old, ending, kept_ms)]

        return replace(done, key=key) if (done := await self._do("rotate", turns, author)).changed else done

    async def update(self, name: str, document: Document, author: Author) -> Done:
        """Put fields in the place of a key's own, take away those that are None. Raises as `create` and `revoke`."""

        async def turns() -> list[Turn]:
            old, *older = await self._with_previous(name)
            new = replace(old, document=checked(old.scope, {**old.document, **document}))
            return [Turn(old, new, _kept_ms(older))]

        return await self._do("update", turns, author)

    async def block(self, name: str, author: Author, *, blocked: bool) -> Done:
        """Refuse a key from now on, or no longer, and those before it that still work. Raises AbsentError."""

        async def turns() -> list[Turn]:
            keys = await self._with_previous(name)
            return [
                Turn(key, _blocked(key, blocked=blocked), _kept_ms(keys[number:]))
                for number, key in enumerate(keys, start=1)
            ]

        return await self._do("block" if blocked else "unblock", turns, author)

    async def revoke(self, name: str, author: Author) -> Done:
        """Forget a key, and those before it that still work: they are unknown from now on. Raises AbsentError."""

        async def turns() -> list[Turn]:
            return [Turn(key, None) for key in await self._with_previous(name, readable=False)]

        return await self._do("revoke", turns, author)

    async def put(self, scope: Scope, document: Document, author: Author) -> Done:
        """Write a payer with these fields, and no others. Raises UnclearError and ImpossibleError."""

        async def turns() -> list[Turn]:
            before = (await self._archive.read((scope,))).get(scope)
            return [Turn(before, self._renewed(before, self._new(scope, document, author)))]

        return await self._do("put", turns, author)

    async def delete(self, scope: Scope, author: Author) -> Done:
        """Forget a payer; what it spent stays in the books. Raises AbsentError.

        Raises ImpossibleError where somebody names it, whom its budgets would bind no more.
        """

        async def turns() -> list[Turn]:
            record = await self._archive.of(scope)
            await self._refuse_named(scope)
            return [Turn(record, None)]

        done = await self._do("delete", turns, author)
        try:
            # Somebody may have named it while all others were looked through. Now nobody can any more.
            if done.changed:
                await self._refuse_named(scope)
        except ImpossibleError:
            if done.before is not None:
                back = Author(author.who, f"{author.change_id[:_CHANGE_ID_KEPT]}.back")
                await self._archive.write("put", [Turn(None, done.before)], back)
            raise
        return done

    async def load(self, documents: Sequence[tuple[Scope, Document]], author: Author) -> bool:
        """Write many payers, all or none, and tell whether this did. Raises as `put`, for all mistakes together."""
        if len(documents) > WRITTEN_MAX:
            raise UnclearError(f"these are {len(documents)} payers: send at most {WRITTEN_MAX} at once")
        records: dict[Scope, Record] = {}
        mistakes: list[str] = []
        for number, (scope, document) in enumerate(documents, start=1):
            if number % PIECE == 0:
                await asyncio.sleep(0)  # no Check waits for a long list
            try:
                records[scope] = self._new(scope, document, author)
            except UnclearError as error:
                mistakes.append(f"{shown(scope)}: {error}")
        if mistakes:
            raise UnclearError("; ".join(mistakes))

        async def turns() -> list[Turn]:
            before = await self._archive.read(tuple(records))
            return [
                Turn(old, self._renewed(old, new)) for scope, new in records.items() for old in (before.get(scope),)
            ]

        return (await self._do("import", turns, author, aliases_move=True)).changed

    async def _with_previous(self, name: str, *, readable: bool = True) -> list[Record]:
        """Give a key and those in whose place it came, as far as they are there.

        Raises ImpossibleError for one that has to be `readable` and is not: what is written anew would have no limits.
        """
        keys = [await self.find(name)]
        if readable and not keys[0].readable:
            raise ImpossibleError("the record of this key cannot be read, and the key is refused: put it anew")
        while keys[-1].previous is not None and len(keys) < PREVIOUS_MAX:
            scope = Scope(ScopeKind.KEY, (keys[-1].previous,))
            found = (await self._archive.read((scope,))).get(scope)
            if found is None:
                break
            keys.append(found)
        return keys

    async def _do(
        self, what: str, turns: Callable[[], Awaitable[list[Turn]]], author: Author, *, aliases_move: bool = False
    ) -> Done:
        """Do what `turns` comes to; it is asked again where others came before."""
        if (made := await self._archive.made(author)) is not None:
            return Done(None, *made, changed=False)

        async def attempt() -> Done | None:
            wanted = await turns()
            needed = await self._references(wanted)
            if not await self._archive.write(what, wanted, author, needed=needed, aliases_move=aliases_move):
                return None
            return Done(wanted[0].before or wanted[-1].before, wanted[0].after) if wanted else Done(None, None)

        done = await in_turns(attempt)
        if done is None:  # the same change was made between the two looks at it
            return Done(None, *(await self._archive.made(author) or (None,)), changed=False)
        return done

    async def _references(self, turns: Sequence[Turn]) -> Collection[Record]:
        """Give those in the store whom payers name and did not before. Raises ImpossibleError for one who is nobody."""
        own = {turn.scope for turn in turns}
        by = {other: turn.scope for turn in turns for other in named(turn) if other not in own}
        asked = [other for other in by if not self._listed(other)]
        found: Mapping[Scope, Record] = await self._archive.read(asked) if asked else {}
        for other in asked:
            if other not in found:
                who = f"{shown(by[other])} names {other.text}" if len(turns) > 1 else f"{other.text} is named"
                raise ImpossibleError(f"{who}, whom nobody knows: put it first, by `payers put {other.text}`")
        return found.values()

    async def _refuse_named(self, scope: Scope) -> None:
        """Raise ImpossibleError for a payer whom somebody names."""
        if not self._listed(scope) and (other := await naming(self.records, scope)) is not None:
            raise ImpossibleError(
                f"{shown(other)} names {scope.text}, whose budgets would bind it no more: change or revoke it first, "
                "or put the payer with blocked=true"
            )

    def _check_rotation(self, old: Record) -> None:
        """Raise ImpossibleError for a key whose end would be that of the new one."""
        if old.replaced:
            raise ImpossibleError("another key came in the place of this one: rotate that one, by its alias or hash")
        if self._has_ended(old):
            raise ImpossibleError("this key has expired: update its `expires` first, or create another key")

    def _has_ended(self, key: Record) -> bool:
        return key.end_ms is not None and key.end_ms <= self._unix_s() * 1000

    def _new(self, scope: Scope, document: Document, author: Author) -> Record:
        return Record(scope, checked(scope, document), int(self._unix_s()), author.who)

    def _renewed(self, before: Record | None, new: Record) -> Record:
        """Leave to a record what is not in its fields: when and by whom it was made, and the keys before and after."""
        if before is None:
            return new
        return replace(
            new, made_s=before.made_s, made_by=before.made_by, replaced=before.replaced, previous=before.previous
        )

    def _ending(self, old: Record, grace_s: float) -> Record:
        """Give a key that was replaced as it is until its end, which is no later than it was."""
        end_ms = int((self._unix_s() + grace_s) * 1000)
        if old.end_ms is not None and old.end_ms <= end_ms:
            return replace(old, replaced=True)
        expires = datetime.fromtimestamp(end_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
        return replace(old, document={**old.document, "expires": expires}, replaced=True)


def _blocked(key: Record, *, blocked: bool) -> Record:
    rest = {name: value for name, value in key.document.items() if name != _BLOCKED}
    return replace(key, document={**rest, _BLOCKED: True} if blocked else rest)


def _kept_ms(older: Sequence[Record]) -> int:
    """Tell until when a key is needed to find those before it."""
    return max((key.end_ms or 0 for key in older), default=0)
