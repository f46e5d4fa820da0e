"""What is counted in this process's memory: one tally for each counter in use, dropped when nothing can concern it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from extauthz.domain.budgets import Counter, Scope
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.tombstones import RETENTION_MS

COUNTERS_MAX = 500_000

# How much cleaning up one verb does. It adds the counters of one principal, so that they shrink faster than they grow.
COUNTERS_EXAMINED_MAX = 64

Limits = Mapping[tuple[Scope, str], int]

# Windows that a change of an overspend goes on through, where each took over that of the one before.
CARRIED_ON_MAX = 100


@dataclass(slots=True)
class Tally:
    """A counter in use, with amounts in its measure. `touched_ms` is when a reservation on it last began or ended.

    `carried` is the tally of the next window, once that took over what was spent here beyond a limit, and that limit.
    """

    counter: Counter
    touched_ms: int
    spent: int = 0
    held: int = 0
    granted: int = 0
    reservations: int = 0
    carried: tuple[Tally, int] | None = None

    def book(self, amount: int, now_ms: int) -> None:
        """Add to spent; an amount below 0 puts right what an expiry booked too much."""
        tally = self
        for _ in range(1 + CARRIED_ON_MAX):
            before, end_ms = tally.spent, tally.counter.window.end_ms
            tally.spent = max(0, before + amount)
            tally.touched_ms = now_ms
            if tally.carried is None or end_ms is None or now_ms < end_ms:
                return
            into, limit = tally.carried
            amount = max(0, tally.spent - limit) - max(0, before - limit)
            if amount == 0:
                return
            tally = into


@dataclass(frozen=True, slots=True)
class Overspent:
    """A tally that the next window has still to take over the overspend of: what is beyond its limit."""

    tally: Tally
    limit: int

    @property
    def amount(self) -> int:
        """What is to be carried."""
        return max(0, self.tally.spent - self.limit)


class Tallies:
    """The counters in use, by key.

    One whose window has ended is dropped RETENTION_MS after that, or after the last ending on it: from then on nothing
    that is still booked can concern it. When the maximum is reached they go earlier, but never with a reservation on.
    One whose overspend is carried over stays for the whole of the next window.
    """

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._by_key: dict[str, Tally] = {}
        self._due: list[tuple[int, str]] = []  # a heap, with one entry for each tally whose window ends

    def get(self, counter: Counter) -> Tally | None:
        """Give the tally of a counter, None for one that is not in use."""
        return self._by_key.get(counter.key)

    def all(self) -> Iterable[Tally]:
        """Give every tally."""
        return self._by_key.values()

    def take(self, counters: Iterable[Counter], now_ms: int) -> list[Tally]:
        """Give the tally of each counter, new ones where there is none yet. Raises StoreUnavailableError when full."""
        wanted = {counter.key: counter for counter in counters}
        missing = [key for key in wanted if key not in self._by_key]
        if missing:
            self._make_room(len(missing), now_ms, spared=wanted)
        for key in missing:
            self._by_key[key] = Tally(wanted[key], touched_ms=now_ms)
            end_ms = wanted[key].window.end_ms
            if end_ms is not None:
                due_ms = max(end_ms, now_ms) + RETENTION_MS + _carried_for_ms(wanted[key])
                heapq.heappush(self._due, (due_ms, key))
        return [self._by_key[key] for key in wanted]

    def to_carry(self, counter: Counter, limits: Limits) -> Overspent | None:
        """Tell what a counter has still to take over from the window before, None for nothing.

        `limits` stand in for the configured ones, by scope and label.
        """
        before = counter.before
        tally = None if before is None else self._by_key.get(before.counter.key)
        if before is None or tally is None or not tally.spent or tally.carried is not None:
            return None
        return Overspent(tally, limits.get((counter.scope, counter.label), before.limit) + tally.granted)

    def carry_over(self, counters: Iterable[Counter], limits: Limits, now_ms: int) -> None:
        """Let counters take over what was overspent in the windows before, once."""
        for counter in counters:
            overspent = self.to_carry(counter, limits)
            if overspent is not None:
                (into,) = self.take((counter,), now_ms)
                overspent.tally.carried = into, overspent.limit
                into.book(overspent.amount, now_ms)

    def drop_unused(self, tally: Tally) -> None:
        """Forget a lifetime counter on which nothing happened; no window's end would ever do so."""
        used = tally.reservations or tally.spent or tally.granted
        if tally.counter.window.end_ms is None and not used:
            del self._by_key[tally.counter.key]

    def _make_room(self, count: int, now_ms: int, spared: Mapping[str, Counter]) -> None:
        for _ in range(COUNTERS_EXAMINED_MAX):
            full = len(self._by_key) + count > self._count_max
            # What has ended is due within RETENTION_MS from now, what has not is due later.
            due_until_ms = now_ms + RETENTION_MS if full else now_ms
            if not self._due or self._due[0][0] > due_until_ms:
                break
            key = self._due[0][1]
            tally = self._by_key[key]
            if tally.reservations or key in spared or tally.touched_ms + RETENTION_MS > due_until_ms:
                heapq.heapreplace(self._due, (now_ms + RETENTION_MS, key))
            else:
                heapq.heappop(self._due)
                del self._by_key[key]
        if len(self._by_key) + count > self._count_max:
            raise StoreUnavailableError(
                f"the memory store counts on {self._count_max} counters already, one per scope and budget: "
                "use longer windows or fewer end users, or raise its maximum"
            )


def _carried_for_ms(counter: Counter) -> int:
    """Tell for how long the next window may still take over what was overspent; it is up to an eighth longer."""
    window = counter.window
    return 0 if counter.before is None or window.end_ms is None else (window.end_ms - window.start_ms) * 9 // 8
