"""Reading the books as they stand in Redis, in pieces: no list of them holds up the store, or this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from extauthz.domain.budgets import Counter
from extauthz.ledger.base import Balance, OpenReservation
from extauthz.ledger.keys import Keys
from extauthz.ledger.link import Link
from extauthz.ledger.pieces import PIECE, first, paced
from extauthz.ledger.primary import text
from extauthz.ledger.ranking import Count, most_spent_in_turn

# What is asked of the store at once: some 0.3 ms of one core of it.
SCAN_COUNT = 1000

# Counters that one look at the balances goes through; beyond them the list is a part of all.
BALANCES_EXAMINED_MAX = 200_000
# Reservations that one look goes through: those whose leases end first, which the forgotten ones are among.
RESERVATIONS_EXAMINED_MAX = 50_000


class StoredBooks(Protocol):
    """Books in Redis, for who reads them without a verb."""

    @property
    def link(self) -> Link:
        """The way to the store."""
        ...

    @property
    def keys(self) -> Keys:
        """Where things stand in it."""
        ...

    @property
    def retention_ms(self) -> int:
        """How long endings are remembered."""
        ...

    def now_ms(self) -> int:
        """Tell the store's time."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What is spent and held on counters, by their keys, each in its measure."""

    spent: dict[str, int]
    held: dict[str, int]


async def read_counts(books: StoredBooks) -> Counts:
    """Read what stands on all counters, up to BALANCES_EXAMINED_MAX."""
    held = await _scan(books.link, books.keys.held)
    return Counts(await _scan(books.link, books.keys.spent), held)


async def added_up(parts: Sequence[Counts]) -> Counts:
    """Add up the counts of several shards."""
    return Counts(
        spent=await _summed([part.spent for part in parts]),
        held=await _summed([part.held for part in parts]),
    )


async def most_spent(counts: Counts, now_ms: int, count_max: int) -> tuple[Balance, ...]:
    """Give counters of current windows, or with something held, the most spent first, measures in turn."""
    rows: list[Count] = []
    async for names in paced([*(counts.spent | counts.held)]):
        rows += (
            (name, counts.spent.get(name, 0), counts.held.get(name, 0))
            for name in names
            if name in counts.held or _is_current(name, now_ms)
        )
    balances: list[Balance] = []
    async for piece in paced(await most_spent_in_turn(rows, count_max)):
        for name, spent, held in piece:
            with suppress(ValueError):  # no counter's name, so it was no verb that wrote it: `audit` tells of that
                balances.append(Balance(Counter.parse(name), spent, held))
    return tuple(balances)


async def read_reservations(books: StoredBooks, count_max: int) -> tuple[OpenReservation, ...]:
    """Read open reservations, the oldest first, out of RESERVATIONS_EXAMINED_MAX."""
    rows: dict[str, tuple[int, str, int, str]] = {}
    async for lease_ends in _leases(books.link, books.keys.leases):
        records = await books.link.ask("HMGET", books.keys.open, *lease_ends)
        for (id_, lease_end_ms), record in zip(lease_ends.items(), records, strict=True):
            if record is not None:  # else it has ended since its lease was read
                told = text(record)
                rows[id_] = int(told.split(" ", 3)[2]), id_, lease_end_ms, told
        if len(rows) >= RESERVATIONS_EXAMINED_MAX:
            break
    oldest = await first([*rows.values()], count_max, key=lambda row: row[:2])
    return tuple([_reservation(id_, end_ms, told) async for piece in paced(oldest) for _, id_, end_ms, told in piece])


async def pieces(link: Link, key: str) -> AsyncIterator[dict[str, str]]:
    """Read a hash, some SCAN_COUNT fields at a time; one that changes meanwhile may come twice."""
    cursor = 0
    while True:
        cursor, found = await link.ask("HSCAN", key, cursor, "COUNT", SCAN_COUNT)
        yield {text(name): text(value) for name, value in found.items()}
        if int(cursor) == 0:
            return


async def _scan(link: Link, key: str) -> dict[str, int]:
    fields: dict[str, int] = {}
    async for piece in pieces(link, key):
        fields.update((name, int(value)) for name, value in piece.items())
        if len(fields) >= BALANCES_EXAMINED_MAX:
            break
    return fields


async def _leases(link: Link, key: str) -> AsyncIterator[dict[str, int]]:
    """Read the ends of leases by id, the soonest first; one that is renewed meanwhile may come twice."""
    low, offset = "-inf", 0
    while True:
        found = await link.ask("ZRANGEBYSCORE", key, low, "+inf", "WITHSCORES", "LIMIT", offset, PIECE)
        ends = [*map(text, found[1::2])]
        if ends:
            yield {text(id_): int(end) for id_, end in zip(found[::2], ends, strict=True)}
        if len(ends) < PIECE:
            return
        # By their ends, not by their number: those before may go at any moment, and would move the others up.
        offset = offset + PIECE if ends[0] == ends[-1] else 0
        low = ends[-1]


async def _summed(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in parts:
        async for piece in paced([*part.items()]):
            for name, amount in piece:
                sums[name] = sums.get(name, 0) + amount
    return sums


def _is_current(name: str, now_ms: int) -> bool:
    """Tell whether a counter's window is now; the whole name is read of those only that are listed."""
    match name.rsplit("|", 2):
        case [_, start_ms, end_ms] if start_ms.isdigit() and end_ms.isdigit():
            return int(start_ms) <= now_ms < int(end_ms)
        case _:
            return True


def _reservation(id_: str, lease_end_ms: int, record: str) -> OpenReservation:
    """Read a record, as keys.py describes it."""
    _, attempt, reserved_at, model, *amounts = record.split(" ")
    return OpenReservation(
        id=id_,
        attempt=attempt,
        model=unquote(model),
        reserved_at_ms=int(reserved_at),
        lease_end_ms=lease_end_ms,
        amounts=tuple(
            (Counter.parse(counter), int(amount)) for counter, amount in zip(amounts[::2], amounts[1::2], strict=True)
        ),
    )
