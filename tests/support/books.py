"""Books in a real Redis for the commands that look at them: their configuration, verbs that go on, and other sums."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from extauthz.books import export_journal
from extauthz.config.load import load
from extauthz.console.exports import Format
from extauthz.domain.budgets import Counter, Measure, Spent
from extauthz.domain.reservation import Claim, Lease, Note
from extauthz.domain.windows import Window
from extauthz.ledger.base import UNNOTED, Ledger, Reserve
from extauthz.ledger.journal import Journal, to_json
from extauthz.ledger.keys import Keys
from extauthz.ledger.redis import RedisLedger
from tests.support.gate import CONFIG
from tests.support.ledger import MEASURED, RealClock, a_counter, a_reserve

COMMAND_SECONDS_MAX = 40.0
TAG = "books"
# Where an exported entry says what it booked.
BOOKED = {Measure.USD: "booked_nanousd", Measure.TOKENS: "booked_tokens", Measure.REQUESTS: "booked_requests"}

LONG = Lease(lease_ms=60_000, spent=Spent(30, 20, 1))
SHORT = Lease(lease_ms=1, spent=Spent(30, 20, 1))

WORKERS = 8


@dataclass(frozen=True, slots=True)
class Run:
    """How a command went."""

    code: int
    out: str
    err: str


async def extauthz(*arguments: str | Path) -> Run:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extauthz"), *map(str, arguments), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(COMMAND_SECONDS_MAX):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Run(process.returncode, out.decode(), err.decode())


def configured(folder: Path, store: str, *own: str) -> Path:
    """Write a configuration with a store, and further lines of its section `extauthz`."""
    path = folder / "books.yaml"
    path.write_text(CONFIG + "".join(f"  {line}\n" for line in (f"store: {store}", *own)), encoding="utf-8")
    return path


def tagged(url: str) -> str:
    """Give the URL of the books under TAG."""
    return f"{url}/0?tag={TAG}"


def ask(name: str, *counters: Counter, lease: Lease = LONG, amount: int = 100, attempt: str = "first") -> Reserve:
    """Ask for a reservation made now, on counters without a limit."""
    claims = (Claim(counter, None, amount) for counter in counters or (a_counter(),))
    return a_reserve(name, *claims, reserved_at_ms=RealClock().now_ms(), lease=lease, attempt=attempt)


async def settle(ledger: Ledger, name: str, cost: int, *counters: Counter, note: Note = UNNOTED) -> Reserve:
    """Reserve, and settle at once, with as many tokens as it costs nano-USD."""
    request = ask(name, *counters)
    await ledger.reserve(request)
    await ledger.settle(request.hold, Spent(cost, cost, 1), note)
    return request


def this_hour() -> Window:
    """Give a window around the present, so long that no test sees its end."""
    now_ms = RealClock().now_ms()
    return Window("1h", now_ms - 1_800_000, now_ms + 1_800_000)


@asynccontextmanager
async def busy(ledger: Ledger) -> AsyncIterator[list[int]]:
    """Let every kind of ending go on inside the block, on some counters that are there and always a new one.

    The list counts rounds, one for each worker.
    """
    rounds = [0] * WORKERS
    block = uuid.uuid4().hex

    async def work(worker: int) -> None:
        for number in count():
            counters = (a_counter(), a_counter(f"of {worker}"), a_counter(f"new {worker} {number % 50}"), *MEASURED)
            name = f"{block} {worker} {number}"
            expiring = ask(f"{name} expires", *counters, lease=SHORT)
            await asyncio.gather(ledger.reserve(expiring), settle(ledger, name, number % 7, *counters))
            await ledger.reserve(ask(f"{name} released", *counters))
            await ledger.release(f"{name} released")
            await asyncio.sleep(0.002)
            await ledger.expire(10)
            await ledger.settle(expiring.hold, Spent(number % 50, number % 30, 1))
            rounds[worker] += 1

    workers = [asyncio.create_task(work(worker)) for worker in range(WORKERS)]
    try:
        yield rounds
    finally:
        for worker in workers:
            worker.cancel()
        outcomes = await asyncio.gather(*workers, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


async def told(ledger: RedisLedger) -> list[dict[str, Any]]:
    """Read the journal as its export has it."""
    return [json.loads(to_json(item)) async for item in Journal(ledger).export()]


async def exported(ledger: RedisLedger) -> list[str]:
    """Export the journal, as lines."""
    return [to_json(item) + "\n" async for item in Journal(ledger).export()]


def sums_of(lines: Iterable[str]) -> dict[str, int]:
    """Add up exported lines: a checkpoint stands in for all before it."""
    sums: dict[str, int] = defaultdict(int)
    for row in map(json.loads, lines):
        if row["how"] == "checkpoint":
            if row["first"]:
                sums.clear()
            sums.update(row["spent"])
        else:
            for counter in row["counters"]:
                sums[counter] += booked_on(counter, row)
    return {counter: amount for counter, amount in sums.items() if amount}


def booked_on(counter: str, row: Mapping[str, Any]) -> int:
    """Tell what an exported entry booked on a counter, in the measure that is the counter's."""
    amount: int = row.get(BOOKED[Counter.parse(counter).measure], 0)
    return amount


async def spent(redis: Redis, keys: Keys) -> dict[str, int]:
    """Read what is spent on every counter."""
    return {str(counter): int(amount) for counter, amount in (await redis.hgetall(keys.spent)).items()}


async def export_file(config: Path, output: Path, form: str = "jsonl") -> None:
    """Do what `extauthz journal --output` does, in this process."""
    settings = load(config, {}).settings
    await export_journal(settings, output=output, form=Format(form), after=None, follow=False, shard=None)
