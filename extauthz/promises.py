"""Answers that are still to be made, from their other end: a read that shows a result ends what was held for it.

A background response, a batch or a video is asked for by its id, by anybody; its cost is its creator's, whose hold the
store has under that id. A read may be told of before the stream that promised what it reads, by another Envoy worker at
another replica, so what is not known yet is looked up once more. All that waits is bounded, and lost with the process:
then the next read does it, or the lease.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from extauthz.booking import Observation, Outcome
from extauthz.domain.reservation import Hold, Signal, State
from extauthz.errors import HoldRejectedError, StoreUnavailableError
from extauthz.ledger.base import Ledger, Promise
from extauthz.settlement import Settlement
from extauthz.telemetry.events import Telemetry
from extauthz.usage import Report, Result

WAITING_MAX = 10_000

# Ten times as long as Envoys keep their entries: what was promised is known by then.
SECOND_LOOK_S = 1.0
# How many go to the store together.
AT_ONCE_MAX = 256


@dataclass(frozen=True, slots=True)
class Sight:
    """A read that showed a result: the name that it was promised under, as the Check sealed it, and what was seen."""

    sealed: str
    report: Report
    again: bool = False


class Promises:
    """Ends reservations by what reads show. `unseal` and `decode` tell our names and holds from forged ones."""

    def __init__(
        self,
        ledger: Ledger,
        settlement: Settlement,
        telemetry: Telemetry,
        *,
        unseal: Callable[[str], str],
        decode: Callable[[str], Hold],
    ) -> None:
        self._ledger = ledger
        self._settlement = settlement
        self._telemetry = telemetry
        self._unseal = unseal
        self._decode = decode
        self._waiting: deque[Sight] = deque()
        self._under_way = 0

    async def seen(self, sight: Sight) -> None:
        """End what was promised, now, or as soon as the store answers, or knows of it."""
        try:
            if await self._settled(sight) or sight.again:
                return
        except StoreUnavailableError:
            self._keep(sight)
        except HoldRejectedError:
            self._telemetry.hold_rejected()
        else:
            self._keep(Sight(sight.sealed, sight.report, again=True))

    async def look_again(self) -> None:
        """Look, after a while, at all that waits now."""
        waiting, self._waiting = self._waiting, deque()
        self._under_way = len(waiting)
        try:
            await asyncio.sleep(SECOND_LOOK_S)
            while waiting:
                batch = [waiting.popleft() for _ in range(min(AT_ONCE_MAX, len(waiting)))]
                self._under_way = len(waiting)
                await asyncio.gather(*map(self._seen, batch))
        finally:
            self._under_way = 0

    async def _seen(self, sight: Sight) -> None:
        try:
            await self.seen(sight)
        except Exception as error:  # noqa: BLE001 - one bad sight must not lose the others
            self._telemetry.failed("promises", error)

    async def _settled(self, sight: Sight) -> bool:
        """Settle what was promised, and tell whether the store knew of it."""
        if self._ledger.signing_key() is None:
            raise StoreUnavailableError("the store was not reached yet, and with it the key of holds")
        name = self._unseal(sight.sealed)
        signed = await self._ledger.promised(name)
        if signed is None:
            return False
        observation = Observation(
            self._decode(signed), _outcome(sight.report), sight.report, promise=Promise(name, signed)
        )
        await self._settlement.finished(observation)
        return True

    def _keep(self, sight: Sight) -> None:
        if len(self._waiting) + self._under_way >= WAITING_MAX:
            self._telemetry.ending_lost(State.SETTLED, Signal.ACCESS_LOG)
            return
        self._waiting.append(sight)


def _outcome(report: Report) -> Outcome:
    """Tell what became of a promise; what was cancelled was made in part, and is paid as an answer is."""
    failed = report.result is Result.FAILED and report.usage is None
    return Outcome.FAILED if failed else Outcome.ANSWERED
