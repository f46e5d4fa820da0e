"""The journal: what happened to money, one entry each, in the order in which it happened.

The scripts write it, in the same step as the books (`note` in scripts/prelude.lua). It keeps the latest entries; older
ones are folded into the checkpoint, which is the sum that they added to each counter. So for every counter

    spent == checkpoint + what was `booked`, in its measure, by all entries that name it

Exported lines can be added up in the same way (exported.py does): they begin with a checkpoint, and where entries were
trimmed before they could be read, another checkpoint stands in for all that came before it. Prompts, answers and keys
are not in it; a key's scope is its hash.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self
from urllib.parse import quote, unquote

from extauthz.domain.budgets import Measure, Spent
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.amounts import from_word, measure_of
from extauthz.ledger.primary import text
from extauthz.ledger.reading import StoredBooks, pieces

PAGE_ENTRIES = 1000
FOLLOW_S = 0.5
START = "0-0"

# Counters in one line of a checkpoint.
CHECKPOINT_COUNTERS = 500

# While somebody reads from the journal's beginning it is not trimmed; a reader that dies stops that for so long.
PAUSE_MS = 60_000

CHECKPOINT = "checkpoint"
SPENT = "spent"
# Its name in exports of before there were other measures.
_SPENT_IN_USD = "spent_nanousd"
LIMIT_REMOVED = "limit_removed"
CARRIED = "carried"

COST, COST_TOKENS, COST_REQUESTS = "cost_nanousd", "cost_tokens", "cost_requests"
BOOKED, BOOKED_TOKENS, BOOKED_REQUESTS = "booked_nanousd", "booked_tokens", "booked_requests"
TOKENS = ("input", "output", "cache_read_input", "cache_creation_input", "reasoning_output")
COLUMNS = (
    "at",
    "how",
    "id",
    "ended_at",
    "reserved_at",
    "model",
    "signal",
    COST,
    BOOKED,
    *(f"{kind}_tokens" for kind in TOKENS),
    "counters",
    "who",
    COST_TOKENS,
    COST_REQUESTS,
    BOOKED_TOKENS,
    BOOKED_REQUESTS,
)

_BOOKED_IN = {Measure.USD: BOOKED, Measure.TOKENS: BOOKED_TOKENS, Measure.REQUESTS: BOOKED_REQUESTS}

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def position(at: str) -> tuple[int, int]:
    """Give a stream id as numbers that can be compared."""
    milliseconds, _, sequence = at.partition("-")
    return int(milliseconds), int(sequence or 0)


def cost_of(row: Mapping[str, Any]) -> Spent:
    """Give what an exported entry cost."""
    return Spent(int(row[COST]), int(row.get(COST_TOKENS, 0)), int(row.get(COST_REQUESTS, 0)))


def booked_of(row: Mapping[str, Any]) -> Spent:
    """Give what an exported entry booked."""
    return Spent(int(row[BOOKED]), int(row.get(BOOKED_TOKENS, 0)), int(row.get(BOOKED_REQUESTS, 0)))


def spent_of(row: Mapping[str, Any]) -> Mapping[str, int]:
    """Give the sums of an exported checkpoint, by counter."""
    return {counter: int(amount) for counter, amount in row[SPENT if SPENT in row else _SPENT_IN_USD].items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to money.

    `at` is its place in the stream and begins with its time (Unix milliseconds). `how` says what it was: `settled`,
    `released` and `expired` end a reservation; `floored` puts back what a correction took below 0; `carried` takes over
    what was overspent in the window before, or what that changed by later, and cost nothing; an amendment has the
    name of its kind, or `limit_removed` where the configured limit counts again, and `who` made it. `cost` is what was
    used, or the amendment's amount in the measure of its counter; `booked` what that added to each of `counters`, in
    its measure: the difference, for a settle that came after the lease. Tokens and requests are in them only where a
    counter is in one of these. `tokens` are the five counts of TOKENS, if any.
    """

    at: str
    how: str
    id: str
    model: str
    signal: str
    cost: Spent
    booked: Spent
    tokens: tuple[int, ...]
    reserved_at_ms: int
    counters: tuple[str, ...]
    who: str = ""

    @classmethod
    def parse(cls, at: str, fields: Mapping[str, str]) -> Self:
        """Read an entry of the stream."""
        return cls(
            at=at,
            how=fields["how"],
            id=fields["id"],
            model=unquote(fields["model"]),
            signal=fields["signal"],
            cost=from_word(fields["cost"]),
            booked=from_word(fields["booked"]),
            tokens=tuple(map(int, fields["tokens"].split())),
            reserved_at_ms=int(fields["reserved_at"]),
            counters=tuple(fields["counters"].split()),
            who=unquote(fields["who"]),
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_row` wrote."""
        return cls(
            at=row["at"],
            how=row["how"],
            id=row.get("id", ""),
            model=row.get("model", ""),
            signal=row.get("signal", ""),
            cost=cost_of(row),
            booked=booked_of(row),
            tokens=tuple(row[name] for name in (f"{kind}_tokens" for kind in TOKENS) if name in row),
            reserved_at_ms=_milliseconds(row["reserved_at"]) if "reserved_at" in row else 0,
            counters=tuple(row.get("counters", ())),
            who=row.get("who", ""),
        )

    def to_row(self) -> dict[str, Any]:
        """Write it as COLUMNS, leaving out what it does not have."""
        tokens = zip((f"{kind}_tokens" for kind in TOKENS), self.tokens, strict=False)
        row = {
            "at": self.at,
            "how": self.how,
            "id": self.id,
            "ended_at": _iso(position(self.at)[0]),
            "reserved_at": _iso(self.reserved_at_ms) if self.reserved_at_ms else "",
            "model": self.model,
            "signal": self.signal,
            COST: self.cost.cost_nanousd,
            BOOKED: self.booked.cost_nanousd,
            **dict(tokens),
            "counters": list(self.counters),
            "who": self.who,
            COST_TOKENS: self.cost.tokens or "",
            COST_REQUESTS: self.cost.requests or "",
            BOOKED_TOKENS: self.booked.tokens or "",
            BOOKED_REQUESTS: self.booked.requests or "",
        }
        return {name: value for name, value in row.items() if value not in ("", [])}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What all entries up to `at` have added to counters since these books began (Unix milliseconds).

    It may come in several pieces, of which one is the `first` and one the `last`. All together they stand in for
    whatever was told of these books before.
    """

    at: str
    began_at_ms: int
    spent: Mapping[str, int]
    first: bool
    last: bool

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `to_row` wrote."""
        return cls(row["at"], row["began_at"], spent_of(row), first=row["first"], last=row["last"])

    def to_row(self) -> dict[str, Any]:
        """Write it as one line."""
        return {
            "at": self.at,
            "how": CHECKPOINT,
            "first": self.first,
            "last": self.last,
            "began_at": self.began_at_ms,
            SPENT: dict(self.spent),
        }


class Journal:
    """Reads the journal of a ledger."""

    def __init__(self, ledger: StoredBooks) -> None:
        self._ledger = ledger
        self._link = ledger.link
        self._keys = ledger.keys

    async def export(self, after: str | None = None, *, follow: bool = False) -> AsyncIterator[Entry | Checkpoint]:
        """Give what happened after a place in the stream, or all from the checkpoint on; with `follow` without end."""
        at, began_ms = after, 0
        while True:
            try:
                async for item in self._news(at, began_ms):
                    yield item
                    # A checkpoint that broke off is told again, from its first piece on.
                    at = item.at if isinstance(item, Entry) or item.last else None
                    if isinstance(item, Checkpoint):
                        began_ms = item.began_at_ms
            except StoreUnavailableError:
                if not follow:
                    raise
            if not follow:
                return
            await asyncio.sleep(FOLLOW_S)

    async def _news(self, at: str | None, began_ms: int) -> AsyncIterator[Entry | Checkpoint]:
        """Give all that there is after a place of the books that began then (0 when that is not known).

        Where entries are gone already, or these are other books, a checkpoint stands in.
        """
        while True:
            page = None if at is None else await self._page(at, began_ms)
            if page is None:
                async for piece in self.checkpoint():
                    at, began_ms = piece.at, piece.began_at_ms
                    yield piece
                continue
            for entry in page:
                at = entry.at
                yield entry
            if len(page) < PAGE_ENTRIES:
                return

    async def checkpoint(self) -> AsyncIterator[Checkpoint]:
        """Give the checkpoint, in pieces, with nothing trimmed while it is read.

        It begins again, with a `first` piece, when something was trimmed: another reader has resumed that.
        """
        while True:
            await self.pause_trimming()
            at, began_ms = await self.checkpoint_at(), await self.began_ms()
            spent: dict[str, int] = {}
            first = True
            async for piece in pieces(self._link, self._keys.checkpoint):
                spent |= {counter: int(amount) for counter, amount in piece.items()}
                while len(spent) > CHECKPOINT_COUNTERS:
                    told = dict(islice(spent.items(), CHECKPOINT_COUNTERS))
                    yield Checkpoint(at, began_ms, told, first=first, last=False)
                    spent = dict(islice(spent.items(), CHECKPOINT_COUNTERS, None))
                    first = False
                await self.pause_trimming()
            if await self.checkpoint_at() == at:
                yield Checkpoint(at, began_ms, spent, first=first, last=True)
                return

    async def entries(self, after: str, until: str) -> AsyncIterator[Entry]:
        """Give the entries after one place up to another, with nothing trimmed meanwhile."""
        at = after
        while position(at) < position(until):
            await self.pause_trimming()
            found = await self._link.ask("XRANGE", self._keys.journal, f"({at}", until, "COUNT", PAGE_ENTRIES)
            for entry in map(_entry, found):
                at = entry.at
                yield entry
            if len(found) < PAGE_ENTRIES:
                return

    async def checkpoint_at(self) -> str:
        """Tell which entry was the last that the checkpoint took up."""
        return text(await self._link.ask("HGET", self._keys.meta, "checkpoint_at") or START)

    async def began_ms(self) -> int:
        """Tell when these books began; 0 when older ones were restored into them."""
        return int(await self._link.ask("HGET", self._keys.meta, "began_at") or 0)

    async def restored_to(self) -> str:
        """Tell how far the export went that these books were restored from, if they were."""
        return text(await self._link.ask("HGET", self._keys.meta, "restored_to") or START)

    async def pause_trimming(self) -> None:
        """Keep the journal whole for PAUSE_MS from now on."""
        await self._link.ask("HSET", self._keys.meta, "audited_until", str(self._ledger.now_ms() + PAUSE_MS))

    async def resume_trimming(self) -> None:
        """Let the journal be trimmed again."""
        await self._link.ask("HDEL", self._keys.meta, "audited_until")

    async def _page(self, at: str, began_ms: int) -> list[Entry] | None:
        """Read some entries after a place; None when they do not continue it."""
        found, (trimmed_at, now_began) = await self._link.transact(
            ("XRANGE", self._keys.journal, f"({at}", "+", "COUNT", PAGE_ENTRIES),
            ("HMGET", self._keys.meta, "checkpoint_at", "began_at"),
        )
        trimmed_at, now_began_ms = text(trimmed_at or START), int(now_began or 0)
        if position(trimmed_at) > position(at):
            return None
        if began_ms and now_began_ms:
            other_books = now_began_ms != began_ms
        else:
            other_books = at != trimmed_at and now_began_ms > position(at)[0]
        return None if other_books else [_entry(item) for item in found]


def to_json(item: Entry | Checkpoint) -> str:
    """Write a line of JSON."""
    return json.dumps(item.to_row(), ensure_ascii=False, separators=(",", ":"))


def from_json(line: str) -> Entry | Checkpoint:
    """Read back what `to_json` wrote. Raises ValueError, KeyError or TypeError for something else."""
    row = json.loads(line)
    return Checkpoint.from_row(row) if row["how"] == CHECKPOINT else Entry.from_row(row)


def to_csv(items: Iterable[Entry | Checkpoint]) -> str:
    """Write rows of COLUMNS; a checkpoint is a row for each counter, with its sum as what was booked in its measure."""
    written = io.StringIO()
    rows = csv.DictWriter(written, COLUMNS)
    for item in items:
        match item:
            case Checkpoint(at=at, spent=spent):
                for counter, amount in spent.items():
                    booked = _BOOKED_IN[measure_of(counter)]
                    rows.writerow({"at": at, "how": CHECKPOINT, booked: amount, "counters": counter})
            case Entry():
                row = {name: _one_line(value) for name, value in item.to_row().items()}
                rows.writerow(row | {"counters": " ".join(item.counters)})
    return written.getvalue()


def _entry(item: tuple[bytes, Mapping[bytes, bytes]]) -> Entry:
    at, fields = item
    return Entry.parse(text(at), {text(name): text(value) for name, value in fields.items()})


def _one_line(value: object) -> object:
    """Percent-encode control characters: a row is one line, so that it can be told whether the last one is whole."""
    return _CONTROL.sub(lambda found: quote(found[0]), value) if isinstance(value, str) else value


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _milliseconds(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1000)
