"""Endings on their way into the books: told to the store at once, or kept until it is back.

What is kept is bounded and lost with the process; a reservation whose ending is lost is ended by its lease.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from extauthz.domain.reservation import State
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ending, Ledger, Release, Renew, Settle
from extauthz.telemetry.events import Telemetry

WAITING_MAX = 100_000

# Of them, releases of what one Check may have reserved. While the store is known to be away, each Check that is refused
# leaves one for nothing; it is the first that matter, of those that were under way, and costs of answers need the room.
WITHDRAWALS_MAX = 10_000

# How many go to the store together when it is back, and how long until the next try when it is not.
AT_ONCE_MAX = 256
RETRY_S = 0.1

End = Settle | Release | Renew
Ended = Callable[[Ending], None]


class Endings:
    """Carries endings out, each until the store has answered, and tells `ended` what it did."""

    def __init__(self, ledger: Ledger, telemetry: Telemetry, *, waiting_max: int = WAITING_MAX) -> None:
        self._ledger = ledger
        self._telemetry = telemetry
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[End, Ended]] = deque()
        self._under_way = 0
        self._withdrawals = 0
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """How many are kept for the store."""
        return len(self._waiting) + self._under_way

    async def carry_out(self, end: End, ended: Ended) -> None:
        """End a reservation now, or as soon as the store answers."""
        try:
            ending = await self._tell(end)
        except StoreUnavailableError:
            self._keep(end, ended)
        else:
            ended(ending)

    async def catch_up(self) -> None:
        """Tell the store what it has missed, whenever there is something; runs until it is cancelled."""
        while True:
            await self._arrived.wait()
            if not await self._catch_up_once():
                await asyncio.sleep(RETRY_S)

    async def drained(self) -> None:
        """Wait until nothing is kept."""
        await self._empty.wait()

    async def _catch_up_once(self) -> bool:
        """Tell the oldest ones, and whether the store took them."""
        batch = [self._waiting.popleft() for _ in range(min(AT_ONCE_MAX, len(self._waiting)))]
        self._under_way = len(batch)
        answers = await asyncio.gather(*(self._tell(end) for end, _ in batch), return_exceptions=True)
        missed = []
        for (end, ended), answer in zip(batch, answers, strict=True):
            match answer:
                case Ending():
                    self._report(answer, ended)
                case StoreUnavailableError():
                    missed.append((end, ended))
                case BaseException():
                    self._telemetry.failed("endings", answer)
        self._waiting.extendleft(reversed(missed))
        self._withdrawals -= _withdrawals(batch) - _withdrawals(missed)
        self._under_way = 0
        if not self._waiting:
            self._arrived.clear()
            self._empty.set()
        self._telemetry.endings_waiting(len(self._waiting))
        return not missed

    def _report(self, ending: Ending, ended: Ended) -> None:
        """Tell what an ending did; whoever fails to hear of it must not lose the others of its batch."""
        try:
            ended(ending)
        except Exception as error:  # noqa: BLE001
            self._telemetry.failed("endings", error)

    async def _tell(self, end: End) -> Ending:
        match end:
            case Settle(hold, spent, note, promised):
                ending = await self._ledger.settle(hold, spent, note)
                await self._forget(promised)
                return ending
            case Renew(hold, lease, note, promise):
                if await self._ledger.renew(hold, lease):
                    if promise is not None:
                        await self._ledger.promise(promise)
                    return Ending.OPEN
                # Its lease ran out, or the store never heard of it: its answer is paid all the same.
                return await self._ledger.settle(hold, lease.spent, note)
            case Release(id_, attempt, note, promised):
                ending = await self._ledger.release(id_, attempt=attempt, note=note)
                await self._forget(promised)
                return ending

    async def _forget(self, promised: str | None) -> None:
        """Forget the promise of a reservation that has ended; one that stays ends nothing any more."""
        if promised is not None:
            with suppress(StoreUnavailableError):
                await self._ledger.forget(promised)

    def _keep(self, end: End, ended: Ended) -> None:
        withdrawals = _withdrawals([(end, ended)])
        full = len(self._waiting) + self._under_way >= self._waiting_max
        if full or (withdrawals and self._withdrawals >= WITHDRAWALS_MAX):
            self._telemetry.ending_lost(State.RELEASED if isinstance(end, Release) else State.SETTLED, end.note.signal)
            return
        self._waiting.append((end, ended))
        self._withdrawals += withdrawals
        self._arrived.set()
        self._empty.clear()
        self._telemetry.endings_waiting(len(self._waiting) + self._under_way)


def _withdrawals(ends: Iterable[tuple[End, Ended]]) -> int:
    """Count releases of one Check's claim."""
    return sum(isinstance(end, Release) and end.attempt is not None for end, _ in ends)
