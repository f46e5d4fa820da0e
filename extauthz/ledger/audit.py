"""Proving the books, while they are in use: that every counter is what its journal and its reservations say.

The counters are read in slices, each with the journal's last entry of the same moment; then the journal is read once,
in order, and each slice is compared when its entry has passed. So nothing has to stand still, and no slice is large.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extauthz.domain.budgets import Counter
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.amounts import measure_of
from extauthz.ledger.base import Audit, Drift
from extauthz.ledger.exported import Amendments, Exported, ExportUnusableError
from extauthz.ledger.journal import START, Entry, Journal, position
from extauthz.ledger.pieces import chunks, paced
from extauthz.ledger.reading import SCAN_COUNT, StoredBooks

# Differences that are shown; all are counted.
DRIFTS_SHOWN_MAX = 100

# Adds to a field of a hash what is missing, and leaves no 0 behind: a counter on which something is held is kept.
ADD = """
if redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
"""
# Ends the lease of a reservation that is open, at once, and forgets that of one which is not.
END_LEASE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
end
"""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Slice:
    """What some counters said when `at` was the journal's last entry."""

    at: str
    spent: Mapping[str, int]


class Auditor:
    """Audits the books of a ledger, and puts them right. `progress` hears of entries read, and how many there are."""

    def __init__(self, ledger: StoredBooks, progress: Progress | None = None) -> None:
        self._ledger = ledger
        self._link = ledger.link
        self._keys = ledger.keys
        self._journal = Journal(ledger)
        self._progress = progress or (lambda *_: None)

    async def audit(self) -> Audit:
        """Compare every counter with the journal and the open reservations. Raises StoreUnavailableError."""
        try:
            return await self._audit()
        finally:
            await self._journal.resume_trimming()

    async def rebuild(self, export: Iterable[str] | None = None) -> Audit:
        """Put the counters right by the journal, or by an exported one, and tell what was wrong.

        Raises ExportUnusableError when the export and the store's own journal do not fit together.
        """
        try:
            if export is not None:
                await self._restore_checkpoint(Exported(export))
            found = await self._audit()
            await self._correct(found.drifts)
        finally:
            await self._journal.resume_trimming()
        return found

    async def _audit(self) -> Audit:
        start, sums = START, defaultdict[str, int](int)
        async for checkpoint in self._journal.checkpoint():
            if checkpoint.first:
                start, sums = checkpoint.at, defaultdict[str, int](int)
            sums.update(checkpoint.spent)
        slices = [piece async for piece in self._slices()]
        entries_total = int(await self._link.ask("XLEN", self._keys.journal))

        drifts: dict[str, Drift] = {}
        seen: set[str] = set()
        read = 0
        at = start
        while slices:
            for piece in slices:
                async for entry in self._journal.entries(at, piece.at):
                    read += 1
                    if read % SCAN_COUNT == 0:
                        self._progress(read, entries_total)
                    _add(sums, entry)
                at = max(at, piece.at, key=position)
                seen |= {*piece.spent}
                drifts |= {drift.name: drift for drift in self._spent_drifts(piece, sums)}
            # Counters that should be there and were in no slice: they are looked at by name, as one more slice.
            absent = [counter for counter, amount in sums.items() if amount and counter not in seen]
            slices = [await self._slice_of(names) for names in chunks(absent, SCAN_COUNT)]
        held_drifts, reservations_open, held_counters = await self._held()
        if await self._journal.checkpoint_at() != start:
            raise StoreUnavailableError("the journal was trimmed while it was read: audit again")
        counters = seen | held_counters
        return Audit(
            drifts=(*drifts.values(), *held_drifts),
            counters_checked=len(counters),
            scopes_checked=len({counter.partition("|")[0] for counter in counters}),
            reservations_open=reservations_open,
            entries_read=read,
        )

    def _spent_drifts(self, piece: _Slice, sums: Mapping[str, int]) -> Iterable[Drift]:
        for counter, found in piece.spent.items():
            expected = sums.get(counter, 0)
            if found != expected and not self._over(counter):
                yield Drift("spent", counter, expected, found)

    async def _slices(self) -> AsyncIterator[_Slice]:
        """Read what is spent, some counters at a time."""
        cursor = 0
        while True:
            (cursor, found), at = await self._with_last_entry("HSCAN", self._keys.spent, cursor, "COUNT", SCAN_COUNT)
            yield _Slice(at, {name.decode(): int(amount) for name, amount in found.items()})
            if int(cursor) == 0:
                return

    async def _slice_of(self, counters: Sequence[str]) -> _Slice:
        amounts, at = await self._with_last_entry("HMGET", self._keys.spent, *counters)
        return _Slice(at, {name: int(amount or 0) for name, amount in zip(counters, amounts, strict=True)})

    async def _with_last_entry(self, *command: str | int) -> tuple[Any, str]:
        answer, last = await self._link.transact(command, ("XREVRANGE", self._keys.journal, "+", "-", "COUNT", 1))
        return answer, last[0][0].decode() if last else START

    async def _held(self) -> tuple[list[Drift], int, set[str]]:
        """Compare what is held with the open reservations, which must all have leases, in one moment."""
        records, held, leased = await self._link.transact(
            ("HGETALL", self._keys.open), ("HGETALL", self._keys.held), ("ZRANGE", self._keys.leases, 0, -1)
        )
        expected = defaultdict[str, int](int)
        async for piece in paced([*records.values()]):
            for record in piece:
                _, _, _, _, *amounts = record.decode().split()
                for counter, amount in zip(amounts[::2], amounts[1::2], strict=True):
                    expected[counter] += int(amount)
        found = {counter.decode(): int(amount) for counter, amount in held.items()}
        drifts = [
            Drift("held", counter, expected[counter], found.get(counter, 0))
            for counter in {*expected, *found}
            if expected[counter] != found.get(counter, 0)
        ]
        drifts += [Drift("lease", id_.decode(), 0, 0) for id_ in {*records} ^ {*leased}]
        return drifts, len(records), {*expected, *found}

    def _over(self, counter: str) -> bool:
        """Tell whether a counter's window is over for so long that it may have been dropped."""
        due_ms = self._due_ms(counter)
        return due_ms is not None and due_ms <= self._ledger.now_ms()

    def _due_ms(self, counter: str) -> int | None:
        """Tell from when on a counter can be dropped; None for one that stays, and for a name that is no counter's."""
        try:
            end_ms = Counter.parse(counter).window.end_ms
        except ValueError:
            return None
        return None if end_ms is None else end_ms + self._ledger.retention_ms

    async def _correct(self, drifts: Sequence[Drift]) -> None:
        """Add what is missing; what happens meanwhile is added as well, and stays right."""
        for chunk in chunks(drifts, SCAN_COUNT):
            commands: list[tuple[str | int, ...]] = []
            for drift in chunk:
                difference = drift.expected - drift.found
                match drift.of:
                    case "spent":
                        commands.append(("EVAL", ADD, 1, self._keys.spent, drift.name, difference))
                        if (due_ms := self._due_ms(drift.name)) is not None:
                            commands.append(("ZADD", self._keys.windows, "NX", due_ms, drift.name))
                    case "held":
                        commands.append(("EVAL", ADD, 1, self._keys.held, drift.name, difference))
                    case _:
                        # An open one has ended as far as anybody knows; the next expiry does the rest.
                        keys = (self._keys.open, self._keys.leases)
                        commands.append(("EVAL", END_LEASE, 2, *keys, drift.name, self._ledger.now_ms()))
            await self._link.transact(*commands)

    async def _restore_checkpoint(self, export: Exported) -> None:
        """Make an export's sums the checkpoint, less those of its entries that the store still has itself."""
        await self._journal.pause_trimming()
        began_ms = await self._journal.began_ms()
        start = await self._journal.checkpoint_at()
        same_books = began_ms in (0, export.began_ms)
        if same_books and await self._has_taken_up(export, start):
            return
        (newest,) = await self._link.transact(("XREVRANGE", self._keys.journal, "+", "-", "COUNT", 1))
        until = newest[0][0].decode() if newest else START
        async for entry in self._journal.entries(export.last if same_books else start, until):
            export.take_back(entry.id, entry.how, entry.cost, entry.booked)
            export.amendments.take(entry.how, entry.id, entry.counters, entry.cost)
        amounts = defaultdict[str, int](int, export.spent())
        if same_books:
            async for entry in self._journal.entries(start, export.last):
                for counter in entry.counters:
                    amounts[counter] -= entry.booked.of(measure_of(counter))
        else:
            # These books began after the export's were lost: theirs comes on top.
            own: dict[str, int] = {}
            async for piece in self._journal.checkpoint():
                own = {**({} if piece.first else own), **piece.spent}
            for counter, amount in own.items():
                amounts[counter] += amount
        await self._restore_amendments(export.amendments)
        await self._replace_checkpoint(amounts, export.furthest)

    async def _has_taken_up(self, export: Exported, start: str) -> bool:
        """Tell whether all of an export is in the checkpoint already. Raises ExportUnusableError when it is too old."""
        restored_to = await self._journal.restored_to()
        if position(restored_to) > position(export.furthest):
            raise ExportUnusableError(
                f"the export ends at {export.furthest}, and these books were restored from one that ends at "
                f"{restored_to}; use that, or one that goes further"
            )
        if position(start) <= position(export.last):
            return False
        if restored_to == export.furthest:
            return True
        raise ExportUnusableError(
            f"the export ends at {export.last}, and the store's journal begins after {start}: what happened in between "
            "is in neither; use an export that goes further"
        )

    async def _restore_amendments(self, amendments: Amendments) -> None:
        """Give back grants and limits that are missing, and take none away: an export may have begun after some."""
        grants = [(counter, amount) for counter, amount in amendments.granted.items() if not self._over(counter)]
        for chunk in chunks(grants, SCAN_COUNT):
            found = await self._link.ask("HMGET", self._keys.granted, *(counter for counter, _ in chunk))
            commands: list[tuple[str | int, ...]] = []
            for (counter, amount), there in zip(chunk, found, strict=True):
                if amount > int(there or 0):
                    commands.append(("HINCRBY", self._keys.granted, counter, amount - int(there or 0)))
                    if (due_ms := self._due_ms(counter)) is not None:
                        commands.append(("ZADD", self._keys.windows, "NX", due_ms, counter))
            await self._link.transact(*commands)
        limits = [(budget, limit) for budget, limit in amendments.limits.items() if limit is not None]
        for limits_chunk in chunks(limits, SCAN_COUNT):
            # Not over one that is there: it was set since then.
            await self._link.transact(*(("HSETNX", self._keys.limits, *budget_limit) for budget_limit in limits_chunk))

    async def _replace_checkpoint(self, amounts: Mapping[str, int], furthest: str) -> None:
        """Put another checkpoint in place, all of it in one step: a rebuild that breaks off has changed nothing."""
        new = f"{self._keys.checkpoint}:new"
        await self._link.ask("DEL", new)
        kept = [(counter, amount) for counter, amount in amounts.items() if amount and not self._over(counter)]
        for chunk in chunks(kept, SCAN_COUNT):
            await self._link.ask("HSET", new, *(value for pair in chunk for value in pair))
            await self._journal.pause_trimming()
        for pairs in chunks(_following({counter for counter, _ in kept}), SCAN_COUNT):
            # What the later one took over is in its sum; by which limit, the journal does not say.
            await self._link.transact(
                *(("HSETNX", self._keys.meta, f"carried|{before}", f"- {after}") for before, after in pairs)
            )
        await self._link.transact(
            ("RENAME", new, self._keys.checkpoint) if kept else ("DEL", self._keys.checkpoint),
            ("HSET", self._keys.meta, "began_at", 0, "restored_to", furthest),
        )


def _following(counters: Collection[str]) -> list[tuple[str, str]]:
    """Give each counter of which that of the next window is there as well, with that one."""
    by_start: dict[tuple[str, str], str] = {}
    for counter in counters:
        match counter.rsplit("|", 2):
            case [budget, start_ms, _]:
                by_start[budget, start_ms] = counter
    ends = ((counter, *counter.rsplit("|", 2)) for counter in by_start.values())
    return [(counter, by_start[budget, end]) for counter, budget, _, end in ends if (budget, end) in by_start]


def _add(sums: dict[str, int], entry: Entry) -> None:
    for counter in entry.counters:
        sums[counter] += entry.booked.of(measure_of(counter))
