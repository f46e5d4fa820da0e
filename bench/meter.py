"""What the meter costs inside Envoy: CPU per megabyte of a JSON answer, and per event of a stream.

Two Envoys run side by side, one with the meter and one without, and get the same answers in turn. A pair of runs gives
one difference; what is printed is the median of the differences and how far they lie apart. Events arrive one at a
time, the next when the client has the last: the dearest way, since each is a chunk of its own.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from extauthz.envoy.bootstrap import Metering
from tests.support.envoy import ENVOY_VERSIONS, EnvoyProcess, EnvoyVersion, options_for
from tests.support.metered import EVENT_STREAM, FINISH, USAGE, USAGE_ONLY, delta
from tests.support.stage import Exchange, Stage

PAIRS = 5
NS_PER_US = 1000
BYTES_PER_MB = 1_000_000

WORDS = 'The meter reads "usage", and\nnothing else that is called so. '
EVENT = f"data: {delta(' token', id='chatcmpl-0123456789', object='chat.completion.chunk', created=1700000000)}\n\n"


@dataclass(frozen=True, slots=True)
class Load:
    """What both Envoys get in a run: an exchange, so many times. It amounts to `units` of `unit`."""

    name: str
    exchange: Exchange
    times: int
    units: float
    unit: str


def json_load(name: str, answer: dict[str, object], times: int) -> Load:
    """Send a JSON answer again and again."""
    body = json.dumps({**answer, "usage": USAGE}).encode()
    return Load(name, Exchange((body,), length=True), times, times * len(body) / BYTES_PER_MB, "MB")


def stream_load(events: int, times: int) -> Load:
    """Send a stream of events again and again."""
    last = (f"data: {FINISH}\n\n".encode(), f"data: {USAGE_ONLY}\n\n".encode(), b"data: [DONE]\n\n")
    pieces = (*[EVENT.encode()] * events, *last)
    return Load("stream", Exchange(pieces, EVENT_STREAM), times, times * len(pieces), "event")


LOADS = (
    json_load("chat, 1 MB of text", {"choices": [{"message": {"content": WORDS * 16_000}}]}, times=20),
    json_load("embeddings", {"data": [{"embedding": [0.0123456789] * 3072} for _ in range(25)]}, times=20),
    stream_load(events=500, times=4),
)


def cpu_ns(pid: int) -> int:
    """Sum up the time that the threads of a process have run: schedstat is exact, where stat counts in 10 ms."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def run(stage: Stage, envoy: EnvoyProcess, load: Load) -> float:
    """Give the CPU time per unit of one run, in microseconds."""
    before = cpu_ns(envoy.pid)
    for _ in range(load.times):
        await stage.perform(envoy.url, load.exchange)
    return (cpu_ns(envoy.pid) - before) / NS_PER_US / load.units


async def compare(version: EnvoyVersion) -> None:
    """Measure every load on one version, and print a line for each."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(Stage())
        options = options_for(stage.upstream_port, stage.extauthz_port)
        metered = await stack.enter_async_context(EnvoyProcess(options, version))
        options = replace(options_for(stage.upstream_port, stage.extauthz_port), metering=Metering.NONE)
        plain = await stack.enter_async_context(EnvoyProcess(options, version))
        for load in LOADS:
            await run(stage, metered, load)  # the first run compiles the Lua code
            pairs = [(await run(stage, plain, load), await run(stage, metered, load)) for _ in range(PAIRS)]
            costs = sorted(with_meter - without for without, with_meter in pairs)
            without = median(pair[0] for pair in pairs)
            print(
                f"Envoy {version.name}  {load.name:<20} {median(costs):8.1f} µs/{load.unit}"
                f"  ({costs[0]:.1f} to {costs[-1]:.1f} in {PAIRS} pairs; without the meter {without:.1f})"
            )


def main() -> None:
    """Measure every supported version."""
    for version in ENVOY_VERSIONS:
        asyncio.run(compare(version))


if __name__ == "__main__":
    main()
