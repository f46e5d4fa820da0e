"""What a million keys in the store cost: a start, the memory of a server and of its Redis, and Checks.

Hot keys are a hundred that are asked for again and again. Cold ones come once each, so that the store is asked for the
key, and for its team, before a Check can be decided; no client is like that. All have a budget of which something is
spent, and so have their teams and their organization. CPU is what a Check takes when there are as many as the server
can do, latencies are those at RATE a second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.asyncio import Redis

from bench.figures import Figure, Results, Runs, Sample, Target, at_most
from bench.gate import KEYS_PER_TEAM, PLENTY_USD, Gate, Payers, checks, key_name
from bench.machine import on_core, resident_bytes
from bench.rig import Amount, Plan, calls, costed, in_turns, write_messages
from extauthz.config.payers import hashed
from extauthz.directories.store.records import EDITS_MAX, Change, Edit
from extauthz.directories.store.redis import RedisRecords
from extauthz.directories.store.written import Record, place_of, to_bytes
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.windows import FOREVER
from extauthz.ledger.keys import Keys
from tests.support.ledger import redis_ledger
from tests.support.redis import RedisServer

FEW, MANY = 100, 1_000_000
# A hundred are asked for in turn, of all that there are.
HOT = 100
# More than any run asks for, and as many runs as there are keys for.
COLD_AT_ONCE = 10_000
COLD_RUNS_MAX = 24
AT_ONCE = 32
# So many a second are no load.
RATE = 200.0
# How many keys that came once are looked at for their memory.
REMEMBERED = 20_000
STARTS_MAX = 3
SEED = 9
LINGER_S = 0.2
BYTES_PER_MB = 1_000_000
FILLED_S = 1_795_000_000
# In nano-USD.
SPENT = 1_000_000
SPENT_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class House:
    """A server with its Redis, in which so many keys are."""

    keys: int
    gate: Gate
    redis: RedisServer
    bytes_per_key: float

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.keys:,} keys"


@dataclass(slots=True)
class Load:
    """What a server is asked: each run takes the next of its files, and begins anew after the last."""

    house: House
    files: Sequence[Path]
    at: int = 0

    async def run(self, amount: Amount) -> Sample:
        """Ask, and end what was reserved."""
        file = self.files[self.at % len(self.files)]
        self.at += 1
        load = partial(calls, self.house.gate.port, file, amount, end=True)
        return await costed({"server": self.house.gate.pid}, load, linger_s=LINGER_S)


async def measure(plan: Plan) -> Results:
    """Measure a server with few keys and one with many, by turns."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        few, many = [await _house(stack, plan, keys) for keys in (FEW, MANY)]
        starts = await _starts(plan, few, many)
        hot = await _compare(plan, "hot keys", few, many, _hot(folder, many), at_most(1.1))
        cold = await _compare(plan, "cold keys", few, many, _cold(folder, many))
        notes = (
            f"a key takes {many.bytes_per_key:.0f} bytes of Redis, its team's share and the log included",
            await _remembered(folder, many),
        )
        for note in notes:
            plan.tell(note)
        return Results((*starts, *hot, *cold), notes)


async def _house(stack: AsyncExitStack, plan: Plan, keys: int) -> House:
    redis = await stack.enter_async_context(RedisServer(appendonly=False))
    began_s = time.monotonic()
    taken = await _fill(redis, keys)
    plan.tell(f"{keys:,} keys are in the store, {time.monotonic() - began_s:.0f} s")
    with on_core(plan.cores.measured):
        gate = await stack.enter_async_context(Gate(Payers(keys), redis.url, stored=True))
    return House(keys, gate, redis, taken / keys)


async def _fill(redis: RedisServer, keys: int) -> int:
    """Write keys and their teams as an import does, and tell how much memory that took."""
    payers = _payers(keys)
    async with redis.client() as client, redis_ledger(redis.url, tag="extauthz") as ledger:
        records = RedisRecords(ledger.link, ledger.keys.tag, time.monotonic)
        before = await _used(client)
        number = 0
        while edits := [*islice(payers, EDITS_MAX)]:
            await records.change(Change(f"fill-{number}", "bench", "import"), edits)
            number += 1
        taken = await _used(client) - before
        await _spend(client, ledger.keys, keys)
        return taken


async def _spend(client: Redis, places: Keys, keys: int) -> None:
    """Write into the books what each key has spent, as if its journal entries were trimmed: money as it would stand."""
    numbers = iter(range(keys))
    while piece := [*islice(numbers, SPENT_AT_ONCE)]:
        scopes = (Scope(ScopeKind.KEY, (hashed(key_name(number)),)) for number in piece)
        spent = [part for scope in scopes for part in (Counter(scope, FOREVER).key, SPENT)]
        await client.hset(places.spent, items=spent)
        await client.hset(places.checkpoint, items=spent)


def _payers(keys: int) -> Iterator[Edit]:
    monthly = {"max_budget": PLENTY_USD, "budget_duration": "1mo"}
    yield _edit(Scope(ScopeKind.ORGANIZATION, ("acme",)), monthly)
    for team in range(-(-keys // KEYS_PER_TEAM)):
        yield _edit(Scope(ScopeKind.TEAM, (f"team-{team:05}",)), {"organization": "acme", **monthly})
    for number in range(keys):
        scope = Scope(ScopeKind.KEY, (hashed(key_name(number)),))
        yield _edit(scope, {"max_budget": PLENTY_USD, "team": f"team-{number // KEYS_PER_TEAM:05}"})


def _edit(scope: Scope, document: dict[str, object]) -> Edit:
    return Edit(place_of(scope), to_bytes(Record(scope, document, FILLED_S, "bench")))


async def _used(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


async def _starts(plan: Plan, few: House, many: House) -> tuple[Figure, ...]:
    """Compare how long a start takes, and the memory after it."""
    seconds: dict[str, list[float]] = {house.name: [] for house in (few, many)}
    memory: dict[str, list[float]] = {house.name: [] for house in (few, many)}
    for turn in range(min(plan.pairs, STARTS_MAX)):
        for house in (few, many):
            gate = Gate(Payers(house.keys), house.redis.url, stored=True)
            with on_core(plan.cores.measured):
                began_s = time.perf_counter()
                async with gate:
                    seconds[house.name].append(time.perf_counter() - began_s)
                    memory[house.name].append(resident_bytes(gate.pid) / BYTES_PER_MB)
            plan.tell(f"start {turn + 1}  {house.name:<16} {seconds[house.name][-1]:.2f} s")
    return (
        Figure("start", "s", many.name, few.name, tuple(seconds[many.name]), tuple(seconds[few.name]), at_most(1.1)),
        Figure(
            "memory when idle",
            "MB",
            many.name,
            few.name,
            tuple(memory[many.name]),
            tuple(memory[few.name]),
            at_most(1.1),
        ),
    )


async def _compare(
    plan: Plan, name: str, few: House, many: House, files: Sequence[Path], target: Target | None = None
) -> tuple[Figure, ...]:
    """Ask a server with many keys for some of them, and one with few for all of its own."""
    loads = {few.name: Load(few, files[:1]), many.name: Load(many, files[1:])}

    async def runs(what: str, amount: Amount) -> Runs:
        return await in_turns(plan, what, {each: partial(load.run, amount) for each, load in loads.items()})

    busy = await runs(name, Amount(AT_ONCE, plan.seconds))
    calm = await runs(f"{name}, {RATE:g}/s", Amount(AT_ONCE, plan.seconds, rate=RATE))
    return (
        busy.figure("CPU per Check and ending", "µs", lambda sample: sample.total_cpu_us, many.name, few.name, target),
        calm.figure("p50", "ms", lambda sample: sample.p50_ms, many.name, few.name),
        calm.figure("p99", "ms", lambda sample: sample.p99_ms, many.name, few.name),
    )


def _hot(folder: Path, many: House) -> list[Path]:
    """Write what is asked for a hundred keys, again and again."""
    numbers = random.Random(SEED).sample(range(many.keys), HOT)
    return [_few(folder), write_messages(folder / "hot", checks(Payers(many.keys), numbers))]


def _cold(folder: Path, many: House) -> list[Path]:
    """Write what is asked for keys that nobody asked for before, a file for each run."""
    numbers = iter(random.Random(SEED + 1).sample(range(many.keys), COLD_AT_ONCE * COLD_RUNS_MAX))
    return [
        _few(folder),
        *(
            write_messages(folder / f"cold-{run}", checks(Payers(many.keys), islice(numbers, COLD_AT_ONCE)))
            for run in range(COLD_RUNS_MAX)
        ),
    ]


def _few(folder: Path) -> Path:
    return write_messages(folder / "few", checks(Payers(FEW), range(FEW)))


async def _remembered(folder: Path, many: House) -> str:
    """Tell what memory a server takes for keys that it remembers, beside what as many requests of few keys leave."""
    await calls(many.gate.port, folder / "hot", Amount(AT_ONCE, count=REMEMBERED), end=True)
    numbers = random.Random(SEED + 2).sample(range(many.keys), REMEMBERED)
    file = write_messages(folder / "remembered", checks(Payers(many.keys), numbers))
    before = resident_bytes(many.gate.pid)
    await calls(many.gate.port, file, Amount(AT_ONCE, count=REMEMBERED), end=True)
    after = resident_bytes(many.gate.pid)
    return (
        f"{after / BYTES_PER_MB:,.0f} MB after {REMEMBERED:,} more keys, {before / BYTES_PER_MB:,.0f} MB before: "
        f"{(after - before) / REMEMBERED / 1000:.1f} kB for each that is remembered (directory_entries_max)"
    )
