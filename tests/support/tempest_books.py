"""The books as they stand in Redis, read in one step, and the proof that they are right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from extauthz.domain.budgets import Measure, Spent
from extauthz.domain.reservation import public_id
from extauthz.ledger.keys import Keys
from tests.support.redis import Server

KEYS = Keys("extauthz")
# How reservations end; other entries are changes by hand.
ENDINGS = ("settled", "released", "expired")
# Who ends one Check's claim only.
OF_ONE_CLAIM = ("cancellation", "operator")
WITHDRAWN = [key for key in KEYS.all if ":withdrawn:" in key]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the journal."""

    how: str
    id: str
    signal: str
    cost: Spent
    booked: Spent
    counters: tuple[str, ...]

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Self:
        """Read the fields of an entry."""
        return cls(
            fields["how"],
            fields["id"],
            fields["signal"],
            _spent(fields["cost"]),
            _spent(fields["booked"]),
            tuple(fields["counters"].split()),
        )


@dataclass(frozen=True, slots=True)
class Books:
    """All that Redis knows at one moment: what was spent by counter, and what each open reservation holds.

    Amounts are nano-USD, tokens or requests, as the counter is.

    `leases` are the reservations that have one. `withdrawn` are, by the names that clients see, those that were
    released where the store did not know them: it had forgotten them, or never heard of them.
    """

    spent: Mapping[str, int]
    held: Mapping[str, int]
    checkpoint: Mapping[str, int]
    open: Mapping[str, Mapping[str, int]]
    leases: frozenset[str]
    withdrawn: frozenset[str]
    journal: tuple[Entry, ...]

    def by_counter(self) -> Mapping[str, list[Entry]]:
        """Give the journal of each counter."""
        entries = defaultdict[str, list[Entry]](list)
        for entry in self.journal:
            for counter in entry.counters:
                entries[counter].append(entry)
        return entries

    def mistakes(self) -> list[str]:
        """Tell what is wrong: spent is the checkpoint and all that was booked, held is the sum of what is open."""
        booked = Counter(self.checkpoint)
        by_id = defaultdict[str, list[Entry]](list)
        for entry in self.journal:
            booked.update({counter: entry.booked.of(_measure(counter)) for counter in entry.counters})
            if entry.how in ENDINGS:
                by_id[entry.id].append(entry)
        held = Counter[str]()
        for amounts in self.open.values():
            held.update(amounts)
        return [
            *_differences("spent", self.spent, booked),
            *_differences("held", self.held, held),
            *(f"{id_} is open and has no lease, or the other way around" for id_ in self.leases ^ self.open.keys()),
            *(wrong for id_, entries in by_id.items() if (wrong := _wrong(id_, entries, self.open))),
        ]


def _differences(what: str, found: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    return [
        f"{what} of {counter} is {found.get(counter, 0)}, not {expected.get(counter, 0)}"
        for counter in sorted(found.keys() | expected.keys())
        if found.get(counter, 0) != expected.get(counter, 0) or found.get(counter, 0) < 0
    ]


def _wrong(id_: str, entries: list[Entry], still_open: Container[str]) -> str:
    """Tell what is wrong with the endings of a reservation: it is booked once, and at last with what settled it."""
    settled = [entry.cost for entry in entries if entry.how == "settled"]
    expired = [entry.cost for entry in entries if entry.how == "expired"]
    booked, due = added_up(entry.booked for entry in entries), added_up(settled or expired)
    over = any(entry.signal not in OF_ONE_CLAIM for entry in entries)
    if len(settled) > 1 or len(expired) > 1 or booked != due or (over and id_ in still_open):
        return f"{id_} {'is open' if id_ in still_open else 'is over'} and ended as {entries}"
    return ""


def added_up(amounts: Iterable[Spent]) -> Spent:
    """Add amounts up, in every measure."""
    listed = [*amounts]
    return Spent(*(sum(spent.of(measure) for spent in listed) for measure in Measure))


def _measure(counter: str) -> Measure:
    """Tell what a counter is in; one that tests make up is in USD."""
    label = counter.partition("|")[2].partition("|")[0].split("/")
    return Measure(label[1]) if label[1:] and "=" not in label[1] else Measure.USD


def _spent(word: str) -> Spent:
    """Read what was used: an amount in USD alone, or one in every measure (extauthz/ledger/keys.py)."""
    return Spent(*map(int, word.split(",")))


async def read_books(server: Server, seconds: float = 10.0) -> Books:
    """Read everything in one step. Raises what redis-py raises when the server does not answer within `seconds`."""
    async with server.client(seconds=seconds) as redis, redis.pipeline(transaction=True) as pipeline:
        for key in (KEYS.spent, KEYS.held, KEYS.checkpoint, KEYS.open):
            pipeline.hgetall(key)
        pipeline.zrange(KEYS.leases, 0, -1)
        pipeline.sunion(WITHDRAWN)
        pipeline.xrange(KEYS.journal)
        spent, held, checkpoint, records, leases, withdrawn, journal = await pipeline.execute()
    return Books(
        _amounts(spent),
        _amounts(held),
        _amounts(checkpoint),
        {id_: _holds(record) for id_, record in records.items()},
        frozenset(leases),
        frozenset(public_id(name.partition("|")[0]) for name in withdrawn),
        tuple(Entry.read(fields) for _, fields in journal),
    )


def _amounts(fields: Mapping[str, str]) -> dict[str, int]:
    return {counter: int(amount) for counter, amount in fields.items()}


def _holds(record: str) -> dict[str, int]:
    """Read what an open reservation holds: its record ends in counters and amounts (extauthz/ledger/keys.py)."""
    words = record.split(" ")[4:]
    return {counter: int(amount) for counter, amount in zip(words[::2], words[1::2], strict=True)}
