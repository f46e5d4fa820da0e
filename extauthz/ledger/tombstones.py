"""The endings that the ledger in memory remembers: so that nothing is booked twice, and what was late is put right."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from extauthz.domain.budgets import NOTHING_SPENT, Counter, Spent
from extauthz.domain.reservation import Hold, State
from extauthz.ledger.base import TOMBSTONE_SECONDS

RETENTION_MS = TOMBSTONE_SECONDS * 1000
TOMBSTONES_MAX = 1_000_000

# A release of what nobody knows stops a reserve that is still on its way; none is on its way for so long. They are kept
# apart: anybody can cause them, and they must not push the endings of real reservations out.
EARLY_RELEASES_MAX = 100_000
EARLY_RELEASE_MS = 60_000

# How much cleaning up one verb does, which leaves one tombstone: they shrink faster than they grow.
TOMBSTONES_DROPPED_MAX = 4


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An ended reservation. What its expiry booked, and where, is kept for a late settle.

    `reserved_at_ms` is that of its hold or, where no hold was known, the time of the ending, which is not before.
    """

    state: State
    ended_at_ms: int
    reserved_at_ms: int
    booked: Spent = NOTHING_SPENT
    counters: tuple[Counter, ...] = ()


# A reservation, or only the claim that one attempt has on it.
Name = tuple[str, str | None]


class Tombstones:
    """The endings of the last RETENTION_MS, at most `count_max`: the oldest go first."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._by_name: OrderedDict[Name, Tombstone] = OrderedDict()
        self._early: OrderedDict[Name, Tombstone] = OrderedDict()
        self._forgotten_ms = -1

    def get(self, name: Name, now_ms: int) -> Tombstone | None:
        """Give the ending of a reservation, or of one attempt's claim, None when there is none that counts still."""
        found = self._by_name.get(name)
        if found is not None and now_ms - found.ended_at_ms < RETENTION_MS:
            return found
        early = self._early.get(name)
        return early if early is not None and now_ms - early.ended_at_ms < EARLY_RELEASE_MS else None

    def put_early(self, name: Name, tombstone: Tombstone) -> None:
        """Remember a release of a reservation that nobody knows."""
        self._early.pop(name, None)
        self._early[name] = tombstone
        for _ in range(TOMBSTONES_DROPPED_MAX):
            oldest = next(iter(self._early.values()))
            aged = tombstone.ended_at_ms - oldest.ended_at_ms >= EARLY_RELEASE_MS
            if not aged and len(self._early) <= EARLY_RELEASES_MAX:
                return
            self._early.popitem(last=False)

    def put(self, name: Name, tombstone: Tombstone, now_ms: int) -> None:
        """Remember an ending."""
        self._by_name.pop(name, None)
        self._by_name[name] = tombstone
        for _ in range(TOMBSTONES_DROPPED_MAX):
            oldest = next(iter(self._by_name.values()))
            aged = now_ms - oldest.ended_at_ms >= RETENTION_MS
            if not aged and len(self._by_name) <= self._count_max:
                return
            self._by_name.popitem(last=False)
            if not aged:
                self._forgotten_ms = max(self._forgotten_ms, oldest.reserved_at_ms)

    def amend(self, name: Name, tombstone: Tombstone) -> None:
        """Change what a tombstone says, not how long it stands."""
        self._by_name[name] = tombstone

    def forget(self, hold: Hold, now_ms: int) -> bool:
        """Tell whether a reservation is so old that its tombstone, if it had one, may be gone."""
        return hold.reserved_at_ms <= self._forgotten_ms or now_ms - hold.reserved_at_ms >= RETENTION_MS
