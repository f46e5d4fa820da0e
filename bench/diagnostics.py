"""How long operators wait: BUDGETS budgets in pages, the configuration of as many, and an audit of a full journal.

Each on the store in memory and on the newest Redis, over both gRPC servers, with nobody else on the machine. The
longest time that the event loop was kept from other work is what a Check would have waited meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from uuid import uuid4

from extauthz.domain.budgets import NOTHING_SPENT, Counter, Scope, ScopeKind, Spent
from extauthz.domain.reservation import Claim, Lease
from extauthz.domain.windows import LIFETIME, Window
from extauthz.ledger.base import Reserve
from extauthz.ledger.redis import RedisLedger, RedisOptions
from extauthz.survey import INTERVAL_S
from tests.support.ledger import a_hold, redis_ledger
from tests.support.operated import Office, operated
from tests.support.processes import eventually
from tests.support.redis import NEWEST_REDIS, RedisServer

BUDGETS = 10_000
PAGE = 1000
ENTRIES = 100_000
AT_ONCE = 500
TICK_S = 0.001

MODELS = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
"""


def configuration(store: str, server: str) -> str:
    """Write a configuration with BUDGETS teams, each with a budget and a key."""
    teams = (f"    team-{n:05}: {{max_budget: {n}, budget_duration: 1mo}}" for n in range(BUDGETS))
    keys = (f"    - {{key_sha256: {n:064x}, team: team-{n:05}}}" for n in range(BUDGETS))
    own = (f"  store: {store}", f"  server: {server}", "  teams:")
    return "\n".join(chain((MODELS.strip(), "extauthz:"), own, teams, ("  keys:",), keys, ("",)))


class Loop:
    """Watches the event loop: how long it was busy with one thing at most."""

    def __init__(self) -> None:
        self.stalled_s = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch it inside the block."""
        task = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            started_s = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self.stalled_s = max(self.stalled_s, time.perf_counter() - started_s - TICK_S)


async def timed(name: str, job: Callable[[], Awaitable[object]], times: int = 1) -> None:
    """Do a job some times, and print how long it took and what it kept from running."""
    loop, seconds = Loop(), []
    async with loop.watched():
        for _ in range(times):
            started_s = time.perf_counter()
            await job()
            seconds.append(time.perf_counter() - started_s)
    took = f"{median(seconds) * 1000:7.1f} ms, at most {max(seconds) * 1000:7.1f}"
    print(f"{name:<46} {took}; the loop stood still for {loop.stalled_s * 1000:6.1f} ms at most")


async def surveyed(office: Office) -> bool:
    """Tell whether the server has looked at all budgets once, as it does right after its start."""
    return len((await office.call("GetStatus")).budgets) > 0


async def pages(office: Office, size: int) -> int:
    """Go through all pages, and count the budgets."""
    count, token = 0, ""
    while True:
        page = await office.call("ListBudgets", page_size=size, page_token=token)
        count, token = count + len(page.budgets), page.next_page_token
        if not token:
            return count


async def measure_lists(store: str, server: str) -> None:
    """Measure what operators look at."""
    name = f"{'memory' if store == 'memory' else NEWEST_REDIS.name}, {server}"
    with TemporaryDirectory() as folder:
        async with operated(Path(folder), configuration(store, server), survey_seconds=INTERVAL_S) as office:
            await eventually(lambda: surveyed(office), what="the first survey is taken")
            await timed(f"{name}: a page right after the start", lambda: office.call("ListBudgets", page_size=PAGE))
            await timed(f"{name}: a page of 100", lambda: office.call("ListBudgets"), times=20)
            await timed(f"{name}: a page of {PAGE}", lambda: office.call("ListBudgets", page_size=PAGE), times=20)
            await timed(f"{name}: all of them, by {PAGE}", lambda: pages(office, PAGE))
            await timed(
                f"{name}: none of them is used", lambda: office.call("ListBudgets", used_share_min=0.5), times=5
            )
            await timed(f"{name}: one budget", lambda: office.call("GetBudget", scope="team:team-05000"), times=20)
            await timed(f"{name}: the configuration", lambda: office.call("GetConfig"), times=3)
            await timed(f"{name}: the status", lambda: office.call("GetStatus"), times=20)


async def fill(ledger: RedisLedger) -> None:
    """Settle ENTRIES requests on four counters each."""
    forever = Window(LIFETIME, 0, None)
    fixed = Counter(Scope(ScopeKind.GLOBAL), forever)

    async def one(number: int) -> None:
        kinds = (ScopeKind.TEAM, ScopeKind.USER, ScopeKind.KEY)
        counters = (fixed, *(Counter(Scope(kind, (str(number % 500),)), forever) for kind in kinds))
        hold = a_hold(uuid4().hex, counters, reserved_at_ms=ledger.now_ms())
        claims = tuple(Claim(counter, None, 1_000) for counter in counters)
        await ledger.reserve(Reserve(hold, uuid4().hex, claims, Lease(3_600_000, NOTHING_SPENT)))
        await ledger.settle(hold, Spent(900))

    for start in range(0, ENTRIES, AT_ONCE):
        await asyncio.gather(*(one(number) for number in range(start, start + AT_ONCE)))


async def measure_audit() -> None:
    """Measure an audit of books with a full journal."""
    async with RedisServer(appendonly=False) as server:
        options = RedisOptions(timeout_s=30.0, journal_entries_max=ENTRIES)
        async with redis_ledger(server.url, options=options) as ledger:
            await fill(ledger)
            started_s = time.process_time()
            await timed(f"{NEWEST_REDIS.name}: an audit of {ENTRIES:,} entries", ledger.audit)
            print(f"{'':<46} {time.process_time() - started_s:.1f} s of one core")


async def main() -> None:
    """Measure all of it."""
    async with RedisServer(appendonly=False) as server:
        for store in ("memory", server.url):
            for kind in ("native", "grpcio"):
                await measure_lists(store, kind)
    await measure_audit()


if __name__ == "__main__":
    asyncio.run(main())
