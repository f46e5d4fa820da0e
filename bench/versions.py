"""What this tree costs beside another version of itself: `python -m bench.versions FOLDER`, where the other one is.

    git archive REVISION | tar x -C FOLDER

Both serve the same keys on one Redis and take turns, on one core. What counts is the CPU of a request.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.gate import FOUR_COUNTERS, Gate, check, checks, key_name
from bench.machine import on_core, two_cores
from bench.rig import Amount, Plan, calls, costed, in_turns, write_messages
from tests.support.redis import RedisServer

BEFORE, NOW = "before", "now"
INFLIGHT = 32
# The last endings belong to the run.
LINGER_S = 0.2


async def compare(before: Path, plan: Plan) -> None:
    """Compare a Check without a store, one with it, and one with its ending."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        passes = write_messages(folder / "passes", [check(key_name(0), path="/neither/a/list/nor/inference")])
        asks = write_messages(folder / "asks", checks(FOUR_COUNTERS, range(FOUR_COUNTERS.keys)))
        redis = await stack.enter_async_context(RedisServer(appendonly=False))
        with on_core(plan.cores.measured):
            gates: Mapping[str, Gate] = {
                BEFORE: await stack.enter_async_context(Gate(FOUR_COUNTERS, redis.url, code=before)),
                NOW: await stack.enter_async_context(Gate(FOUR_COUNTERS, redis.url)),
            }
        amount = Amount(INFLIGHT, plan.seconds)
        for name, messages, end in (("empty", passes, False), ("reserve", asks, False), ("with ending", asks, True)):
            subjects = {
                version: partial(
                    costed, {version: gate.pid}, partial(calls, gate.port, messages, amount, end=end), linger_s=LINGER_S
                )
                for version, gate in gates.items()
            }
            runs = await in_turns(plan, name, subjects)
            cpu = runs.figure("CPU", "µs", lambda sample: sample.total_cpu_us, NOW, BEFORE)
            p99 = runs.figure("p99", "ms", lambda sample: sample.p99_ms, NOW, BEFORE)
            for figure in (cpu, p99):
                low, high = figure.spread or (0.0, 0.0)
                print(
                    f"{figure.name:<18} {median(figure.peer_values):8.1f} → {median(figure.values):8.1f} {figure.unit}"
                    f"  ratio {figure.ratio:.2f} ({low:.2f} to {high:.2f})"
                )


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="folder of the other version")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    arguments = parser.parse_args()
    cores = two_cores()
    os.sched_setaffinity(0, {cores.around})
    plan = Plan(cores, arguments.pairs, arguments.seconds, lambda _: None)
    asyncio.run(compare(arguments.before.resolve(), plan))


if __name__ == "__main__":
    main()
