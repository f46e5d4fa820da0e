"""Audits beside a server: one at a time, and one for all servers on a store every so often."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.errors import BusyError
from extauthz.inspection import INTERVAL_S, Inspector, interval_s
from extauthz.ledger.base import Audit, Drift
from extauthz.ledger.memory import MemoryLedger
from extauthz.telemetry.events import Telemetry
from tests.support.ledger import SIGNING_KEY, ManualClock

RIGHT = Audit((), 1, 1, 0, 0)
WRONG = Audit((Drift("held", "team:research|lifetime", 0, 7),), 1, 1, 0, 0)


class Books(MemoryLedger):
    """Books that say what they are told to, each audit when `may_end` is set."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock.now_ms, SIGNING_KEY)
        self.found = RIGHT
        self.audits = 0
        self.under_way = 0
        self.under_way_max = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def audit(self) -> Audit:
        """Count audits, and those that are under way together."""
        self.audits += 1
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        await self.may_end.wait()
        self.under_way -= 1
        return self.found


class Heard(Telemetry):
    """What was heard of audits."""

    def __init__(self) -> None:
        self.audits: list[Audit | None] = []

    def audited(self, audit: Audit | None) -> None:
        """Remember it."""
        self.audits.append(audit)


async def test_two_at_once_take_turns() -> None:
    """A second audit waits for the first; each is told of."""
    books, heard = Books(ManualClock()), Heard()
    inspector = Inspector(books, heard)

    found = await asyncio.gather(*(inspector.audit() for _ in range(3)))

    assert [RIGHT] * 3 == found == heard.audits
    assert 1 == books.under_way_max


async def test_a_long_one_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited long enough for its turn is told to come later, and the next one gets it."""
    monkeypatch.setattr("extauthz.inspection.TURN_S", 0.01)
    books = Books(ManualClock())
    books.may_end.clear()
    inspector = Inspector(books, Heard())
    first = asyncio.create_task(inspector.audit())
    with pytest.raises(BusyError, match="another audit is under way"):
        await asyncio.gather(inspector.audit())
    books.may_end.set()

    assert RIGHT == await first == await inspector.audit()


async def test_one_server_of_many() -> None:
    """Of all servers on a store one audits in each interval, and the others take back what they found before."""
    clock = ManualClock()
    books, heard = Books(clock), [Heard(), Heard()]
    inspectors = [Inspector(books, one, interval_s=0.001) for one in heard]
    books.found = WRONG
    await inspectors[0].next()
    await inspectors[1].next()
    await clock.advance(1)
    await inspectors[1].next()
    await inspectors[0].next()

    assert [[WRONG, None], [None, WRONG]] == [one.audits for one in heard]


def test_long_journals_are_audited_the_rarer() -> None:
    """Five minutes are enough for the usual journal; a hundred million entries are read every other day."""
    assert INTERVAL_S == interval_s(1_000) == interval_s(100_000)
    assert 1_500 == interval_s(1_000_000)
    assert 150_000 == pytest.approx(interval_s(100_000_000))
