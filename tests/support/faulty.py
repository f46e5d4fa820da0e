"""`extauthz` with a store, or a server, that fails on command: `python -m tests.support.faulty serve …`.

The file that FAULT_FILE names holds the Fault of the moment, so that a running server can fall ill and recover.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from unittest.mock import patch

from extauthz.cli import main
from extauthz.domain.budgets import Counter, Scope, Spent, Standing
from extauthz.domain.listings import Listing
from extauthz.domain.pruning import Visible, prune
from extauthz.domain.reservation import Hold, Lease, Note
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import UNNOTED, Ending, Reserve, ReserveResult
from extauthz.ledger.memory import MemoryLedger

FAULT_FILE = "FAULT_FILE"

# What a mute store writes for each reservation that nobody hears of.
RESERVED = "reserved, and mute about it"


class Fault(StrEnum):
    """What is wrong."""

    NONE = ""
    AWAY = "away"  # the store answers nothing that a request or its ending asks for
    MUTE = "mute"  # the store does what a request asks for, and never answers it
    BUG = "bug"  # a Check raises what nobody expects
    PRUNE_BUG = "prune bug"  # pruning a list does


def fault() -> Fault:
    """Read what is wrong at this moment."""
    return Fault(Path(os.environ[FAULT_FILE]).read_text(encoding="utf-8"))


class FaultyLedger(MemoryLedger):
    """A memory store that fails as the file says."""

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Reserve, unless something is wrong."""
        _fail()
        result = await super().reserve(request)
        if fault() is Fault.MUTE:
            sys.stdout.write(f"{RESERVED}\n")
            sys.stdout.flush()
        await _hang()
        return result

    async def standings(
        self, limits: Sequence[tuple[Counter, int]], *, payers: Sequence[Scope] = ()
    ) -> tuple[Standing, ...]:
        """Tell how counters stand, unless something is wrong."""
        _fail()
        await _hang()
        return await super().standings(limits, payers=payers)

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """Settle, unless the store is away."""
        _reach()
        return await super().settle(hold, spent, note)

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """Release, unless the store is away."""
        _reach()
        return await super().release(reservation_id, attempt=attempt, note=note)

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Renew, unless the store is away."""
        _reach()
        return await super().renew(hold, lease)


def _reach() -> None:
    if fault() is Fault.AWAY:
        raise StoreUnavailableError("the store is away")


def _fail() -> None:
    _reach()
    if fault() is Fault.BUG:
        raise ZeroDivisionError("somebody made a mistake")


async def _hang() -> None:
    if fault() is Fault.MUTE:
        await asyncio.Event().wait()


def _faulty_prune(body: bytes, listing: Listing, visible: Visible) -> bytes:
    if fault() is Fault.PRUNE_BUG:
        raise ZeroDivisionError("somebody made a mistake")
    return prune(body, listing, visible)


if __name__ == "__main__":
    with patch("extauthz.stores.MemoryLedger", FaultyLedger), patch("extauthz.adapters.ext_proc.prune", _faulty_prune):
        main()
