"""What 10,000 budgets cost: how long a survey of them takes, and how large and how slow `/metrics` is then.

Beside the survey it is measured how long it holds up the loop, and the page is also read while surveys go on. The books
are in a real Redis on this machine. Ids are as people write them, and then as long as they may be.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from statistics import median

import aiohttp
from aiohttp import web

from extauthz.adapters import http
from extauthz.domain.budgets import SCOPE_ID_BYTES_MAX, Budget, Counter, Scope, ScopeKind
from extauthz.domain.payers import Accounts, Payer, Team
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.jobs import repeated
from extauthz.ledger.redis import RedisLedger
from extauthz.survey import Surveyor
from extauthz.telemetry.events import Telemetry
from extauthz.telemetry.metrics import Metrics
from tests.support.ledger import redis_ledger
from tests.support.processes import LOOPBACK
from tests.support.redis import NEWEST_REDIS, RedisServer
from tests.support.surveyed import a_configuration, spend

BUDGETS = 10_000
SURVEYS = 5
SCRAPES = 50
SPENT_AT_ONCE = 500
TAG = "bench"
USD = 1_000_000_000
MONTHLY = WindowRule(Duration(1, Unit.MONTH))
MS = 1000


def ordinary(number: int) -> str:
    """Give an id as people write them."""
    return f"user-{number:06}@example.com"


def longest(number: int) -> str:
    """Give an id as long as one may be, of characters that take three times as many in a label."""
    digits = f"{number:06}"
    return digits + "ü" * ((SCOPE_ID_BYTES_MAX - len(digits)) // 2)


async def timed(job: Callable[[], Awaitable[object]]) -> float:
    """Give how long a job takes, in milliseconds."""
    started_s = time.perf_counter()
    await job()
    return (time.perf_counter() - started_s) * MS


async def stalls(until: asyncio.Event) -> float:
    """Give the longest time that the loop did nothing else, in milliseconds."""
    most = 0.0
    while not until.is_set():
        most = max(most, await timed(lambda: asyncio.sleep(0)))
    return most


async def measure(name: str, id_of: Callable[[int], str]) -> None:
    """Measure with such ids, and print the lines."""
    members = {id_of(number): Payer((Budget(10 * USD, MONTHLY),)) for number in range(BUDGETS)}
    configuration = a_configuration(Accounts(teams={id_of(0): Team(members=members)}))
    async with RedisServer(NEWEST_REDIS, appendonly=False) as server:
        async with redis_ledger(server.url, tag=TAG) as ledger:
            window = MONTHLY.at(ledger.now_ms())
            counters = [Counter(Scope(ScopeKind.MEMBER, (id_of(0), member)), window) for member in members]
            for start in range(0, BUDGETS, SPENT_AT_ONCE):
                piece = enumerate(counters[start : start + SPENT_AT_ONCE], start)
                await asyncio.gather(*(spend(ledger, counter, number * USD // BUDGETS) for number, counter in piece))
        async with redis_ledger(server.url, tag=TAG) as ledger:
            surveyor = Surveyor(ledger, configuration, time.monotonic)
            gc.collect()
            gc.freeze()  # as the server does at its start
            await surveys(name, surveyor)
            await scrapes(name, ledger, surveyor)


async def surveys(name: str, surveyor: Surveyor) -> None:
    """Take surveys, and print how long one takes and holds up others."""
    await surveyor.survey()
    times = [await timed(surveyor.survey) for _ in range(SURVEYS)]
    done = asyncio.Event()
    watch = asyncio.create_task(stalls(done))
    await surveyor.survey()
    done.set()
    print(f"{name:<9} survey of {BUDGETS:,}: {median(times):6.1f} ms; held up the loop for {await watch:.1f} ms")


async def scrapes(name: str, ledger: RedisLedger, surveyor: Surveyor) -> None:
    """Read the page again and again while surveys go on, and print how large it is and how long it takes."""
    runner = web.AppRunner(http.application(ledger, surveyor, Metrics(), ready=lambda: True), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    url = f"http://{LOOPBACK}:{runner.addresses[0][1]}/metrics"
    page = b""

    async with aiohttp.ClientSession() as session:

        async def scrape() -> None:
            nonlocal page
            async with session.get(url) as answer:
                page = await answer.read()

        quiet = [await timed(scrape) for _ in range(SCRAPES)]
        async with repeated("survey", surveyor.survey, Telemetry()):
            busy = [await timed(scrape) for _ in range(SCRAPES)]
    await runner.cleanup()
    print(
        f"{name:<9} /metrics: {len(page) / 1_000_000:.2f} MB in {median(quiet):.1f} ms, at most {max(quiet):.1f}; "
        f"during surveys {median(busy):.1f} ms, at most {max(busy):.1f}"
    )


def main() -> None:
    """Measure both kinds of ids."""
    for name, id_of in (("ordinary", ordinary), ("longest", longest)):
        asyncio.run(measure(name, id_of))


if __name__ == "__main__":
    main()
