"""What a store may forget when it fails over: the verbs of the last seconds, kept to be told to its successor.

Redis acknowledges before its replicas have a write, and before it is on disk (`appendfsync everysec`). Verbs are
idempotent by reservation id, so that a successor which does know them is not disturbed.

What comes with every request is kept as it was written (items.py): of their objects, with all that hangs on them, there
would be millions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from extauthz.domain.value import value
from extauthz.ledger.base import Amendment, Promise, Release

REMEMBERED_S = 30.0
REMEMBERED_MAX = 100_000


@value
class Granted:
    """A reserve that the store granted, with the amount of each claim where it told."""

    item: tuple[str, ...]
    amounts: tuple[bytes, ...]


@value
class Renewed:
    """A renewal that the store took."""

    item: tuple[str, ...]


@value
class Settled:
    """A settle that the store took."""

    item: tuple[str, ...]


Told = Granted | Settled | Release | Renewed | Promise | Amendment


class Memory:
    """The verbs that were acknowledged in the last REMEMBERED_S, at most REMEMBERED_MAX of them."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._told: deque[tuple[float, Told]] = deque(maxlen=REMEMBERED_MAX)

    def keep(self, told: Told) -> None:
        """Remember a verb that the store has acknowledged just now."""
        now_s = self._clock_s()
        self._told.append((now_s, told))
        while self._told[0][0] < now_s - REMEMBERED_S:
            self._told.popleft()

    @property
    def latest_s(self) -> float | None:
        """When the store acknowledged a verb last, None when it never did."""
        return self._told[-1][0] if self._told else None

    def recall(self, at_s: float | None = None) -> tuple[Told, ...]:
        """Give what a successor must be told that took over now, or at another time, in the order in which it happened.

        Reservations that have ended since are left to their ending, which tells all that there is to book.
        """
        oldest_s = (self._clock_s() if at_s is None else at_s) - REMEMBERED_S
        recent = [told for at_s, told in self._told if at_s >= oldest_s]
        over = {_ended(told) for told in recent}
        return tuple(told for told in recent if not isinstance(told, Granted | Renewed) or told.item[0] not in over)


def _ended(told: Told) -> str | None:
    match told:
        case Settled([id_, *_]):
            return id_
        case Release(id_, None):
            return id_
        case _:
            return None
