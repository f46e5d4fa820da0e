"""Who sees everything that is told, and a store that goes away and comes back on command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from extauthz.domain.budgets import Spent
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Hold, Lease, Note, Signal, State
from extauthz.domain.thresholds import Alert
from extauthz.domain.verdict import Decision
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.base import UNNOTED, Ending, Expired
from extauthz.ledger.link import Server
from extauthz.ledger.memory import MemoryLedger
from extauthz.telemetry.events import Delivery, Telemetry
from tests.support.ledger import SIGNING_KEY


@dataclass(slots=True)
class Witness(Telemetry):
    """Keeps what a Telemetry hears, by what it is about, in the order in which it came."""

    decisions: list[Decision] = field(default_factory=list)
    failures: list[tuple[str, BaseException]] = field(default_factory=list)
    endings: list[tuple[State, Signal, Ending]] = field(default_factory=list)
    absurd: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    paid: list[tuple[str, str | None]] = field(default_factory=list)
    holds_rejected: int = 0
    answered: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    lost: list[tuple[State, Signal]] = field(default_factory=list)
    blind: list[bool] = field(default_factory=list)
    store: list[str | Server] = field(default_factory=list)
    replayed: list[tuple[int, int]] = field(default_factory=list)
    reloads: list[str] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    deliveries: list[tuple[Delivery, str, str]] = field(default_factory=list)

    def decided(self, decision: Decision, facts: RequestFacts | None, seconds: float) -> None:
        """Keep a decision."""
        self.decisions.append(decision)

    def failed(self, where: str, error: BaseException) -> None:
        """Keep a failure."""
        self.failures.append((where, error))

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Keep an ending."""
        self.endings.append((how, signal, ending))

    def usage_absurd(self, model: str, fields: Sequence[str]) -> None:
        """Keep what had to be put right."""
        self.absurd.append((model, tuple(fields)))

    def free_answer_paid(self, asked: str, answered: str | None) -> None:
        """Keep what was free and is not."""
        self.paid.append((asked, answered))

    def hold_rejected(self) -> None:
        """Count a hold that is none."""
        self.holds_rejected += 1

    def store_answered(self, verb: str, seconds: float) -> None:
        """Keep a verb that was carried out."""
        self.answered.append(verb)

    def store_failed(self, verb: str, error: StoreUnavailableError) -> None:
        """Keep a verb that was not."""
        self.unanswered.append(verb)

    def endings_waiting(self, count: int) -> None:
        """Keep how many wait."""
        self.waiting.append(count)

    def ending_lost(self, how: State, signal: Signal) -> None:
        """Keep an ending that nobody kept."""
        self.lost.append((how, signal))

    def settlement_blind(self, *, blind: bool) -> None:
        """Keep whether settlement is blind."""
        self.blind.append(blind)

    def store_lost(self, reason: str) -> None:
        """Keep why the store is away."""
        self.store.append(reason)

    def store_seen(self, server: Server) -> None:
        """Keep how the store is."""
        self.store.append(server)

    def store_replayed(self, count: int, lost: int) -> None:
        """Keep what the store was told again."""
        self.replayed.append((count, lost))

    def config_loaded(
        self, loaded_ms: int, *, changed: Sequence[str], waiting: Sequence[str], notices: Sequence[str]
    ) -> None:
        """Keep what changed, and what waits."""
        self.reloads.append(f"loaded {', '.join(changed)}" + (f"; waiting {', '.join(waiting)}" if waiting else ""))

    def config_refused(self, mistakes: Sequence[str]) -> None:
        """Keep the mistakes."""
        self.reloads.append(f"refused {' | '.join(mistakes)}")

    def config_unchanged(self) -> None:
        """Keep that nothing was new."""
        self.reloads.append("unchanged")

    def config_unwatched(self, reason: str, poll_s: float) -> None:
        """Keep why nothing is watched."""
        self.reloads.append(f"unwatched {reason}")

    def alerted(self, alert: Alert) -> None:
        """Keep an alert."""
        self.alerts.append(alert)

    def alert_delivered(self, delivery: Delivery, host: str, reason: str) -> None:
        """Keep what became of an alert."""
        self.deliveries.append((delivery, host, reason))


class AbsentLedger(MemoryLedger):
    """A memory store that is not there while `away`, and answers only while `answers` is set.

    `broken` are ids whose endings raise what nobody expects. `told` are the endings that it was told, each as
    (id, spent, note), with None for a release; `tries` counts those that it missed as well.
    """

    def __init__(self, clock_ms: Callable[[], int] = lambda: 0) -> None:
        super().__init__(clock_ms, SIGNING_KEY)
        self.away = False
        self.broken: set[str] = set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.tries = 0
        self.told: list[tuple[str, Spent | None, Note]] = []

    async def settle(self, hold: Hold, spent: Spent, note: Note = UNNOTED) -> Ending:
        """Settle, unless the store is away."""
        await self._reach(hold.id)
        self.told.append((hold.id, spent, note))
        return await super().settle(hold, spent, note)

    async def release(self, reservation_id: str, *, attempt: str | None = None, note: Note = UNNOTED) -> Ending:
        """Release, unless the store is away."""
        await self._reach(reservation_id)
        self.told.append((reservation_id, None, note))
        return await super().release(reservation_id, attempt=attempt, note=note)

    async def renew(self, hold: Hold, lease: Lease) -> bool:
        """Renew, unless the store is away."""
        await self._reach(hold.id)
        return await super().renew(hold, lease)

    async def expire(self, count_max: int) -> tuple[Expired, ...]:
        """Expire, unless the store is away."""
        await self._reach("")
        return await super().expire(count_max)

    @property
    def ids(self) -> list[str]:
        """The ids of the endings that it was told."""
        return [id_ for id_, _, _ in self.told]

    async def _reach(self, reservation_id: str) -> None:
        self.tries += 1
        await self.answers.wait()
        if self.away:
            raise StoreUnavailableError("the store is away")
        if reservation_id in self.broken:
            raise ZeroDivisionError("somebody made a mistake")
