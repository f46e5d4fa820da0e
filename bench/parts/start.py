"""How long a start takes, and how much memory there is to it: idle, with open reservations, with many keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench.figures import Figure, Results
from bench.gate import FOUR_COUNTERS, Gate, Payers, checks
from bench.machine import on_core, resident_bytes
from bench.parts.growth import KEYS, START_SECONDS_MAX, left_out
from bench.peers.proxy import litellm, litellm_is_there
from bench.peers.ratelimit import PROGRAM, RateLimit
from bench.rig import Amount, Plan, calls, write_messages
from tests.support.redis import RedisServer

BYTES_PER_MB = 1_000_000
RESERVATIONS = 100_000
AT_ONCE = 32
OURS, RATELIMIT, LITELLM = "ours", "ratelimit", "LiteLLM"
# LiteLLM takes its time, and memory is the same each time.
STARTS_MAX, FILLS_MAX = 3, 2
STORE = "memory"

LITELLM_CONFIG = """
model_list: [{model_name: gpt-4o, litellm_params: {model: openai/gpt-4o, api_key: none}}]
general_settings: {master_key: sk-bench-master, disable_model_info_refresh: true}
"""


class Running(Protocol):
    """What has a process."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...


Start = Callable[[], AbstractAsyncContextManager[Running]]


async def measure(plan: Plan) -> Results:
    """Start each in turns, and fill the memory of one of ours."""
    async with RedisServer(appendonly=False) as redis:
        starts: dict[str, Start] = {
            _ours(count): partial(Gate, Payers(count), STORE, start_seconds=START_SECONDS_MAX) for count in KEYS
        }
        notes = []
        if PROGRAM.exists():
            starts[RATELIMIT] = partial(RateLimit, redis.port)
        else:
            notes.append("no ratelimit: it could not be built")
        if litellm_is_there():
            starts[LITELLM] = partial(litellm, LITELLM_CONFIG)
        else:
            notes.append("no LiteLLM: it could not be installed")
        for count in KEYS:
            try:
                async with starts[_ours(count)]():
                    plan.tell(f"{count:,} keys: starts")
            except AssertionError as error:
                del starts[_ours(count)]
                notes.append(left_out(count, error))
                plan.tell(notes[-1])
        return Results((*await _starts(plan, starts), await _reservations(plan)), tuple(notes))


def _ours(keys: int) -> str:
    return f"{OURS}, {keys:,} keys"


async def _starts(plan: Plan, starts: Mapping[str, Start]) -> list[Figure]:
    """Compare how long it takes until each listens, and what memory it has then."""
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    memory: dict[str, list[float]] = {name: [] for name in starts}
    turns = min(plan.pairs, STARTS_MAX)
    for turn in range(turns):
        for name, start in starts.items():
            server = start()  # writes files, which is not its start
            with on_core(plan.cores.measured):
                started_s = time.perf_counter()
                async with server as running:
                    seconds[name].append(time.perf_counter() - started_s)
                    memory[name].append(resident_bytes(running.pid) / BYTES_PER_MB)
            plan.tell(f"start {turn + 1}/{turns}  {name:<20} {seconds[name][-1]:6.2f} s  {memory[name][-1]:,.0f} MB")
    first, *others = starts
    pairs = [(name, first) if name.startswith(OURS) else (first, name) for name in others]
    return [
        figure
        for subject, peer in pairs
        for figure in (
            _figure("start", "s", subject, peer, seconds),
            _figure("memory when idle", "MB", subject, peer, memory),
        )
    ]


def _figure(what: str, unit: str, subject: str, peer: str, values: Mapping[str, list[float]]) -> Figure:
    return Figure(what, unit, subject, peer, tuple(values[subject]), tuple(values[peer]))


async def _reservations(plan: Plan) -> Figure:
    """Compare the memory of a server with many reservations in its own store to what it was before them."""
    empty, full = [], []
    with TemporaryDirectory(prefix="bench-") as folder:
        ask = write_messages(Path(folder) / "checks", checks(FOUR_COUNTERS, range(FOUR_COUNTERS.keys)))
        turns = min(plan.pairs, FILLS_MAX)
        for turn in range(turns):
            async with AsyncExitStack() as stack:
                with on_core(plan.cores.measured):
                    gate = await stack.enter_async_context(Gate(FOUR_COUNTERS, STORE))
                await calls(gate.port, ask, Amount(AT_ONCE, count=AT_ONCE))
                empty.append(resident_bytes(gate.pid) / BYTES_PER_MB)
                await calls(gate.port, ask, Amount(AT_ONCE, count=RESERVATIONS))
                full.append(resident_bytes(gate.pid) / BYTES_PER_MB)
            plan.tell(f"{RESERVATIONS:,} open {turn + 1}/{turns}  {empty[-1]:,.0f} MB before, {full[-1]:,.0f} MB after")
    return Figure("memory, store in memory", "MB", f"{RESERVATIONS:,} open", "a few open", tuple(full), tuple(empty))
