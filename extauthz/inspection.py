"""Audits of the books beside the server: one at a time, when an operator asks, and every few minutes."""

from __future__ import annotations

import asyncio

from extauthz.errors import BusyError
from extauthz.ledger.base import Audit, Ledger
from extauthz.telemetry.events import Telemetry

# Every so often one of all servers on a store audits it, so that a drift is known before somebody asks.
INTERVAL_S = 300.0
# An audit reads the whole journal, in pieces; an entry takes so long of one core. Journals that are allowed to be very
# long are audited the rarer, so that no more than this share of one core goes into it.
ENTRY_S = 15e-6
TIME_SHARE_MAX = 0.01

_ANNOUNCEMENT = "audit"

# How long an operator waits for an audit that is under way already.
TURN_S = 10.0


class Inspector:
    """Audits the books."""

    def __init__(self, ledger: Ledger, telemetry: Telemetry, *, interval_s: float = INTERVAL_S) -> None:
        self._ledger = ledger
        self._telemetry = telemetry
        self._interval_s = interval_s
        self._turn = asyncio.Lock()

    async def next(self) -> None:
        """Wait until an audit is due, and make it, unless another server on the store has.

        What a server found is told until the next one is due: it may be the other that finds the books right again.
        """
        await asyncio.sleep(self._interval_s)
        if await self._ledger.announce(_ANNOUNCEMENT, int(self._interval_s * 1000)):
            await self.audit()
        else:
            self._telemetry.audited(None)

    async def audit(self) -> Audit:
        """Audit the books now. Raises BusyError while another audit takes long, and StoreUnavailableError."""
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise BusyError("another audit is under way: ask again when it is done") from None
        try:
            audit = await self._ledger.audit()
        finally:
            self._turn.release()
        self._telemetry.audited(audit)
        return audit


def interval_s(journal_entries_max: int) -> float:
    """Tell how often books are audited that keep so many entries; all servers on them must come to the same."""
    return max(INTERVAL_S, journal_entries_max * ENTRY_S / TIME_SHARE_MAX)
