"""The moment at which budgets reset, with requests in flight: each is in one window, and no cost is lost or doubled."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import count, cycle
from pathlib import Path

import pytest

from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.budgets import Counter, Scope, Spent
from extauthz.domain.request import RequestFacts
from extauthz.domain.reservation import Hold
from extauthz.domain.verdict import Admit
from extauthz.domain.windows import LIFETIME
from extauthz.ledger.base import Ledger, Reserve, ReserveResult, StaleWindow
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.ledger import SIGNING_KEY, ManualClock, redis_ledger
from tests.support.redis import RedisServer
from tests.support.store_clock import tell_time, told_the_time

REPLICAS = 3
WORKERS = 12
# The clock goes from a tenth of a second before the edge to one after it, and on by a step for so many answers.
AROUND_MS = 105
STEP_MS = 10
ANSWERS_PER_STEP = 20
PATIENCE_S = 30.0

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
extauthz:
  timezone: Europe/Berlin
  budget_reset_time: "{reset_time}"
  teams:
    research:
      budget_limits:
        - {{max_budget: 1000, budget_duration: 1d}}
        - {{max_budget: 1000, budget_duration: 24h}}
        - {{max_budget: 1000, budget_duration: 30d}}
        - {{max_budget: 1000, budget_duration: 1mo}}
  keys: [{{key: sk-team, team: research}}]
"""
CHAT = RequestFacts(
    "POST",
    "/v1/chat/completions",
    {"authorization": ("Bearer sk-team",)},
    json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello."}]}).encode(),
)
TEAM = Scope.parse("team:research")


class UncertainLedger(MemoryLedger):
    """A store in memory that answers late, to processes whose clocks are some milliseconds off in both directions."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock.now_ms, SIGNING_KEY)
        self._off_ms = cycle((-40, 0, 40))
        self.stale = 0

    def now_ms(self) -> int:
        """Tell what the next process believes."""
        return super().now_ms() + next(self._off_ms)

    async def reserve(self, request: Reserve) -> ReserveResult:
        """Reserve when others have had their turn, and count windows that were wrong."""
        await asyncio.sleep(0)
        result = await super().reserve(request)
        self.stale += isinstance(result, StaleWindow)
        return result


@dataclass(frozen=True, slots=True)
class Store:
    """A store as its replicas see it, and how it is told the time."""

    ledgers: Sequence[Ledger]
    tell: Callable[[int], Awaitable[None]]


@asynccontextmanager
async def memory() -> AsyncIterator[Store]:
    """Keep the books in memory."""
    clock = ManualClock(0)
    ledger = UncertainLedger(clock)

    async def tell(now_ms: int) -> None:
        await clock.advance(now_ms - clock.now_ms())

    yield Store([ledger] * REPLICAS, tell)


@asynccontextmanager
async def redis() -> AsyncIterator[Store]:
    """Keep the books in a Redis, each replica with a connection, and an idea of the store's time, of its own."""
    async with AsyncExitStack() as opened:
        opened.enter_context(told_the_time())
        server = await opened.enter_async_context(RedisServer(appendonly=False))
        # The time of a process stands still between answers of the store, as that of the store does.
        opening = [redis_ledger(server.url, tag="edge", clock_s=lambda: 0.0) for _ in range(REPLICAS)]
        ledgers = [await opened.enter_async_context(ledger) for ledger in opening]
        yield Store(ledgers, partial(tell_time, ledgers[0]))


@dataclass(slots=True)
class Night:
    """Replicas under load while the store's clock goes over an edge; `held` has the cost of each admitted request."""

    store: Store
    snapshot: Snapshot
    edge_ms: int
    held: dict[Hold, int] = field(default_factory=dict)
    unsettled: list[Hold] = field(default_factory=list)
    issued_ms: int = 0
    certain_ms: int = 0
    _numbers: count[int] = field(default_factory=count)
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pass_by(self) -> None:
        """Let all replicas ask until the night is over, and settle at its end what was left open."""
        await self._tell(self.edge_ms - AROUND_MS)
        for ledger in self.store.ledgers:
            await ledger.open_count()  # so that it knows the time
        await asyncio.gather(*(self._work(ledger) for ledger in self.store.ledgers for _ in range(WORKERS)))
        for hold, ledger in zip(self.unsettled, cycle(self.store.ledgers), strict=False):
            await ledger.settle(hold, Spent(self.held[hold]))

    async def _work(self, ledger: Ledger) -> None:
        authorizer = Authorizer(ledger, UsualAnswer(UsualTokens(100), UsualTokens(0)))
        while self.issued_ms < self.edge_ms + AROUND_MS:
            number = next(self._numbers)
            asked_ms = self.certain_ms
            decision = await authorizer.decide(CHAT, Call(f"r{number}", "attempt", PATIENCE_S), self.snapshot)
            assert isinstance(decision.verdict, Admit), decision
            assert decision.verdict.available_nanousd is not None, decision
            hold = decision.verdict.hold
            self._see(hold, asked_ms, self.issued_ms)
            self.held[hold] = 1000 + number
            if number % 3:
                await ledger.settle(hold, Spent(self.held[hold]))
            else:
                self.unsettled.append(hold)
            if number % ANSWERS_PER_STEP == 0:
                async with self._telling:  # one after the other, so that it never goes back
                    await self._tell(self.issued_ms + STEP_MS)

    def _see(self, hold: Hold, from_ms: int, until_ms: int) -> None:
        """See that every window of a hold was the store's at some moment of the time that it was asked in."""
        for counter in hold.counters:
            window = counter.window
            assert window.start_ms <= until_ms
            assert window.end_ms is None or from_ms < window.end_ms

    async def _tell(self, now_ms: int) -> None:
        self.issued_ms = now_ms
        await self.store.tell(now_ms)
        self.certain_ms = now_ms


EDGES = [
    pytest.param("00:00", "2026-11-01T00:00+01:00", {"1d", "24h", "30d", "1mo"}, id="month"),
    pytest.param("00:00", "2026-03-29T00:00+01:00", {"1d", "24h"}, id="midnight"),
    pytest.param("23:59", "2026-11-23T23:59+01:00", {"1d"}, id="23:59"),
    pytest.param("02:30", "2026-03-29T03:00+02:00", {"1d"}, id="time that does not exist"),
    pytest.param("02:30", "2026-10-25T02:30+02:00", {"1d"}, id="first of two"),
    pytest.param("02:30", "2026-10-25T02:30+01:00", set[str](), id="second of two"),
]


@pytest.mark.parametrize(("reset_time", "edge", "rolling"), EDGES)
@pytest.mark.parametrize("opened", [memory, pytest.param(redis, marks=pytest.mark.redis)])
async def test_each_request_is_in_one_window(
    tmp_path: Path,
    opened: Callable[[], AbstractAsyncContextManager[Store]],
    reset_time: str,
    edge: str,
    rolling: set[str],
) -> None:
    """Nobody is refused, each request counts in the window that it was let in, and the windows have what was served."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(reset_time=reset_time), encoding="utf-8")
    snapshot = load(file, {})
    edge_ms = int(datetime.fromisoformat(edge).timestamp()) * 1000
    async with opened() as store:
        night = Night(store, snapshot, edge_ms)
        await night.pass_by()

        served: dict[Counter, int] = defaultdict(int)
        for hold, cost in night.held.items():
            limited = [counter for counter in hold.counters if counter.window.name != LIFETIME]
            assert ["1d", "24h", "30d", "1mo"] == [counter.window.name for counter in limited]
            before = {counter.window.end_ms == edge_ms for counter in limited if counter.window.name in rolling}
            assert len(before) <= 1, "old and new windows in one request"
            for counter in hold.counters:
                served[counter] += cost

        counters = {
            Counter(TEAM, budget.rule.at(at_ms))
            for budget in snapshot.directory.budgets_on(TEAM)
            for at_ms in (edge_ms - 1, edge_ms)
        }
        assert counters == {counter for counter in served if counter.scope == TEAM}
        assert 4 + len(rolling) == len(counters)
        standings = await store.ledgers[0].standings([(counter, 0) for counter in served])
        assert [(counter, cost, 0) for counter, cost in served.items()] == [
            (standing.counter, standing.spent, standing.held) for standing in standings
        ]
        assert (await store.ledgers[0].audit()).ok
        if isinstance(store.ledgers[0], UncertainLedger):
            assert bool(rolling) is (store.ledgers[0].stale > 0)
