"""What the same Checks cost when several processes on one core share them, instead of one: why a pod has one process.

Checks of one turn of the loop share a call of the store. With more processes there are fewer in each call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.figures import US, Sample
from bench.gate import FOUR_COUNTERS, Gate, checks
from bench.machine import cpu_seconds, on_core, two_cores
from bench.rig import Amount, Plan, calls, in_turns, write_messages
from tests.support.redis import RedisServer

PROCESSES = (1, 2, 4)
INFLIGHT = 32
PAIRS, SECONDS = 5, 1.5
STORE, SERVERS = "store", "servers"


async def spread(gates: list[Gate], store: int, messages: Path) -> Sample:
    """Ask all of them at once, and add up what that takes of them and of the store."""
    amount = Amount(INFLIGHT // len(gates), SECONDS)
    store_s, servers_s = cpu_seconds(store), sum(cpu_seconds(gate.pid) for gate in gates)
    samples = await asyncio.gather(*(calls(gate.port, messages, amount) for gate in gates))
    requests = sum(sample.requests for sample in samples)
    spent = {
        STORE: (cpu_seconds(store) - store_s) * US / requests,
        SERVERS: (sum(cpu_seconds(gate.pid) for gate in gates) - servers_s) * US / requests,
    }
    p50_ms, p99_ms = (max(getattr(sample, name) for sample in samples) for name in ("p50_ms", "p99_ms"))
    return Sample(requests, SECONDS, p50_ms, p99_ms, cpu_us=spent)


def cost_of(name: str) -> Callable[[Sample], float]:
    """Give what tells what of a run a process took."""
    return lambda sample: sample.cpu_us[name]


async def main() -> None:
    """Print what a Check costs with each number of processes."""
    cores = two_cores()
    os.sched_setaffinity(0, {cores.around})
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        messages = write_messages(folder / "asks", checks(FOUR_COUNTERS, range(FOUR_COUNTERS.keys)))
        redis = await stack.enter_async_context(RedisServer(appendonly=False))
        with on_core(cores.measured):
            gates = [await stack.enter_async_context(Gate(FOUR_COUNTERS, redis.url)) for _ in range(max(PROCESSES))]
        plan = Plan(cores, PAIRS, SECONDS, lambda _: None)
        subjects = {str(count): partial(spread, gates[:count], redis.pid, messages) for count in PROCESSES}
        runs = await in_turns(plan, "processes", subjects)
        for count in subjects:
            store, servers = (median(runs.values(count, cost_of(name))) for name in (STORE, SERVERS))
            print(f"{count} processes on one core: {servers:.0f} µs of theirs and {store:.0f} µs of Redis' for a Check")


if __name__ == "__main__":
    asyncio.run(main())
