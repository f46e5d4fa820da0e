"""Adding up an exported journal: what had been spent on each counter where it ends, to restore lost books from."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from extauthz.domain.budgets import NOTHING_SPENT, Counter, Spent
from extauthz.errors import ExtauthzError
from extauthz.ledger.amounts import measure_of
from extauthz.ledger.base import AmendmentKind
from extauthz.ledger.journal import CARRIED, CHECKPOINT, LIMIT_REMOVED, START, booked_of, cost_of, position, spent_of

# Reservations, imports and first carries of windows of which it is remembered what was booked, for when it is booked
# again after a loss.
BOOKINGS_MAX = 100_000

BOOKED_ONCE = ("settled", "expired", "import", CARRIED)
AMENDS_LIMITS = (AmendmentKind.GRANT, AmendmentKind.LIMIT, LIMIT_REMOVED)

NO_LINE = "is not a line of `extauthz journal --format jsonl`"


class ExportUnusableError(ExtauthzError):
    """This export cannot restore these books."""


class Amendments:
    """What grants and limits come to, each taken once by its id: a gate may have told a store again that forgot it.

    `granted` is by counter, `limits` by scope and label, as a store keeps them, in the measure of the counter; None:
    the configured one.
    """

    def __init__(self) -> None:
        self.granted = defaultdict[str, int](int)
        self.limits: dict[str, int | None] = {}
        self._taken: dict[str, None] = {}

    def take(self, how: str, id_: str, counters: Iterable[str], cost: Spent) -> None:
        """Take an entry of a journal; one that is no grant and no limit changes nothing here."""
        if how not in AMENDS_LIMITS or id_ in self._taken:
            return
        self._taken[id_] = None
        if len(self._taken) > BOOKINGS_MAX:
            del self._taken[next(iter(self._taken))]
        for counter in counters:
            budget = "|".join(counter.split("|")[:2])
            match how:
                case AmendmentKind.GRANT:
                    self.granted[counter] += cost.of(measure_of(counter))
                case AmendmentKind.LIMIT:
                    self.limits[budget] = cost.of(measure_of(counter))
                case _:
                    self.limits[budget] = None


@dataclass(frozen=True, slots=True)
class _Booking:
    """What an entry booked, in which of the books that the export has seen."""

    books: int
    how: str
    counters: tuple[str, ...]
    booked: Spent


class Exported:
    """The sums over an export's lines, as far as its `last` entry of the books that began at `began_ms`.

    An export may go on across the loss of a store: what its books had added stays, and that of the next comes on top.
    Only what gates told both, the verbs of the last seconds before the loss, counts once. `furthest` is the latest
    entry of all. Raises ExportUnusableError.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.last = self.furthest = START
        self.began_ms = -1
        self.amendments = Amendments()
        self._books = 0
        self._lost = defaultdict[str, int](int)
        self._spent = defaultdict[str, int](int)
        self._checkpoint: dict[str, int] = {}
        self._bookings: dict[str, list[_Booking]] = {}
        for number, line in enumerate(lines, 1):
            try:
                self._take(json.loads(line), number)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if line.endswith("\n"):
                    raise ExportUnusableError(f"line {number} {NO_LINE}") from error
                # The last one, cut off when its writer was stopped: it was never told.
        if self.began_ms < 0:
            raise ExportUnusableError("there is no whole checkpoint in the export, not even an empty one")

    def spent(self) -> dict[str, int]:
        """Give what had been spent on each counter."""
        sums = defaultdict[str, int](int, self._lost)
        for counter, amount in self._spent.items():
            sums[counter] += amount
        return sums

    def take_back(self, id_: str, how: str, cost: Spent, booked: Spent) -> None:
        """Take back what is booked again by an entry that comes after all of these: the store had forgotten it.

        An entry that books all of its cost is all that its reservation has cost; a correction stands on its expiry.
        """
        if how not in BOOKED_ONCE or not id_:
            return
        whole = booked == cost
        kept = []
        for booking in self._bookings.pop(id_, ()):
            if not whole and booking.how != how:
                kept.append(booking)
                continue
            sums = self._spent if booking.books == self._books else self._lost
            for counter in booking.counters:
                sums[counter] -= booking.booked.of(measure_of(counter))
        if kept:
            self._bookings[id_] = kept

    def _take(self, row: Mapping[str, Any], number: int) -> None:
        if row["how"] == CHECKPOINT:
            self._take_checkpoint(row)
        elif self.began_ms < 0:
            raise ExportUnusableError(f"line {number}: an export begins with a checkpoint; this is a part of one")
        elif position(row["at"]) > position(self.last):
            self._take_entry(row)

    def _take_checkpoint(self, row: Mapping[str, Any]) -> None:
        began_ms = int(row["began_at"])
        position(row["at"])
        if row["first"]:
            self._checkpoint = {}
        self._checkpoint |= {Counter.parse(name).key: amount for name, amount in spent_of(row).items()}
        if not row["last"]:
            return
        if began_ms == 0:  # older books were restored into these, and all is in their checkpoint
            self._lost.clear()
            self._bookings.clear()
        elif began_ms == self.began_ms:
            self._bookings = {
                id_: kept
                for id_, bookings in self._bookings.items()
                if (kept := [booking for booking in bookings if booking.books != self._books])
            }
        else:
            self._lost = defaultdict(int, self.spent())
            self._books += 1
        self._spent = defaultdict(int, self._checkpoint)
        self.began_ms, self.last = began_ms, row["at"]
        self.furthest = max(self.furthest, self.last, key=position)

    def _take_entry(self, row: Mapping[str, Any]) -> None:
        counters = tuple(Counter.parse(counter).key for counter in row.get("counters", ()))
        how, id_ = row["how"], row.get("id", "")
        cost, booked = cost_of(row), booked_of(row)
        self.take_back(id_, how, cost, booked)
        self.amendments.take(how, id_, counters, cost)
        for counter in counters:
            self._spent[counter] += booked.of(measure_of(counter))
        if booked != NOTHING_SPENT and how in BOOKED_ONCE and id_:
            self._bookings.setdefault(id_, []).append(_Booking(self._books, how, counters, booked))
            if len(self._bookings) > BOOKINGS_MAX:
                del self._bookings[next(iter(self._bookings))]
        self.last = row["at"]
        self.furthest = max(self.furthest, self.last, key=position)
