"""Budgets that a test writes down, and a memory store in which they are spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from extauthz.config.load import load
from extauthz.config.snapshot import Configuration, Snapshot
from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, ScopeKind, Spent
from extauthz.domain.directory import Directory
from extauthz.domain.payers import Accounts
from extauthz.domain.reservation import Claim, Lease
from extauthz.domain.windows import LIFETIME, Window
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import Ledger
from extauthz.ledger.memory import MemoryLedger
from extauthz.survey import Survey
from tests.support.ledger import SIGNING_KEY, ManualClock, a_hold, a_reserve

FOREVER = Window(LIFETIME, 0, None)
GLOBAL = Scope(ScopeKind.GLOBAL)
LONG_LEASE = Lease(lease_ms=3_600_000, spent=NOTHING_SPENT)

NOTHING = "model_list: []\n"


def a_snapshot(accounts: Accounts, own: str = "{}") -> Snapshot:
    """Give a configuration with these accounts; `own` is what stands under `extauthz:`, in one line."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(f"{NOTHING}extauthz: {own}\n", encoding="utf-8")
        return replace(load(path, {}), directory=Directory(accounts))


def a_configuration(accounts: Accounts, own: str = "{}") -> Configuration:
    """Put such a configuration in force."""
    return Configuration(a_snapshot(accounts, own))


def a_scope(text: str) -> Scope:
    """Give a scope by its text, such as team:research."""
    return Scope.parse(text)


async def spend(ledger: Ledger, counter: Counter, amount: int) -> None:
    """Book an amount on a counter, in its measure."""
    await ledger.settle(a_hold(uuid4().hex, (counter,), reserved_at_ms=ledger.now_ms()), Spent(amount, amount, amount))


async def hold(ledger: Ledger, nanousd: int, *counters: Counter) -> str:
    """Hold an amount on counters, and give the reservation's id."""
    name = uuid4().hex
    claims = (Claim(counter, None, nanousd) for counter in counters)
    await ledger.reserve(a_reserve(name, *claims, reserved_at_ms=ledger.now_ms(), lease=LONG_LEASE))
    return name


class FlakyLedger(MemoryLedger):
    """A memory store that is not there while `away`. `asked` counts the surveys that began."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock.now_ms, SIGNING_KEY)
        self.away = False
        self.asked = 0

    async def open_count(self) -> int:
        """Count the open reservations, unless the store is away."""
        self.asked += 1
        if self.away:
            raise StoreUnavailableError
        return await super().open_count()

    async def announce(self, name: str, ttl_ms: int) -> bool:
        """Announce, unless the store is away."""
        if self.away:
            raise StoreUnavailableError
        return await super().announce(name, ttl_ms)


def used(survey: Survey) -> dict[str, tuple[int, int, int]]:
    """Give the limit, spent and held of each budget of a survey by the key of its counter, in its order."""
    return {
        surveyed.standing.counter.key: (
            surveyed.standing.limit,
            surveyed.standing.spent,
            surveyed.standing.held,
        )
        for surveyed in survey.budgets
    }
