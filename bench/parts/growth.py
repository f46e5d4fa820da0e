"""What a Check costs where there is more of everything: keys and budgets, open reservations, counters, body.

Each size is held against the smallest, by turns. Keys are drawn at random from all that there are. Every reservation is
ended as in real life, so that there are as many at the end of a run as at its beginning.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from bench.figures import Figure, Results, Runs, Sample, Target, at_most
from bench.gate import FOUR_COUNTERS, Gate, Payers, chat, check, checks, key_name
from bench.machine import on_core
from bench.rig import Amount, Plan, calls, costed, in_turns, write_messages
from tests.support.redis import RedisServer

KEYS = (100, 10_000, 1_000_000)
# The most is asked for, and measured only if the server starts with it in this time.
START_SECONDS_MAX = 60.0
TARGETED = f"{KEYS[-1]:,} keys"
OPEN = (10, 1000, 100_000)
BODIES = {"1 KB": 1000, "100 KB": 100_000, "1 MB": 1_000_000}
AT_ONCE = 32
FEW_AT_ONCE = 4
# So many different messages are sent in turn; a million of them would be half a gigabyte.
MESSAGES_MAX = 50_000
SEED = 9
# The last endings belong to the run.
LINGER_S = 0.2

COUNTERS = (
    Payers(100, teams=False),
    FOUR_COUNTERS,
    Payers(100, users=True),
    Payers(100, users=True, windows=3),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server in one size, and what it is asked."""

    pid: int
    port: int
    messages: Path
    inflight: int = AT_ONCE

    async def run(self, seconds: float) -> Sample:
        """Ask it, and end what it reserved."""
        load = partial(calls, self.port, self.messages, Amount(self.inflight, seconds), end=True)
        return await costed({"server": self.pid}, load, linger_s=LINGER_S)


class Field:
    """Servers of several sizes side by side, each with a Redis of its own."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._stack = AsyncExitStack()
        self._files = 0
        self.folder = Path()

    async def __aenter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="bench-")))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def gate(self, payers: Payers, start_seconds: float = START_SECONDS_MAX) -> Gate:
        """Start a server."""
        redis = await self._stack.enter_async_context(RedisServer(appendonly=False))
        with on_core(self._core):
            return await self._stack.enter_async_context(Gate(payers, redis.url, start_seconds=start_seconds))

    def messages(self, messages: Sequence[bytes]) -> Path:
        """Write down what is asked."""
        self._files += 1
        return write_messages(self.folder / f"messages-{self._files}", messages)


async def measure(plan: Plan) -> Results:
    """Measure along each of the four."""
    keys, notes = await _keys(plan)
    return Results((*keys, *await _open(plan), *await _counters(plan), *await _bodies(plan)), notes)


async def _keys(plan: Plan) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """More keys, each with a budget; a tenth as many teams with one."""
    async with Field(plan.cores.measured) as field:
        subjects, notes = {}, []
        for count in KEYS:
            payers = Payers(count)
            try:
                gate = await field.gate(payers)
            except AssertionError as error:
                notes.append(left_out(count, error))
                plan.tell(notes[-1])
                continue
            numbers = random.Random(SEED).sample(range(count), min(count, MESSAGES_MAX))
            subjects[f"{count:,} keys"] = Subject(gate.pid, gate.port, field.messages(list(checks(payers, numbers))))
        runs = await _runs(plan, "keys and budgets", subjects)
        return _against_first(runs, subjects, at_most(1.1)), tuple(notes)


def left_out(keys: int, error: AssertionError) -> str:
    """Say where it stops."""
    return f"{keys:,} keys are left out: {str(error).strip().splitlines()[-1]}"


async def _open(plan: Plan) -> tuple[Figure, ...]:
    """More reservations that are open all the time."""
    async with Field(plan.cores.measured) as field:
        ask = field.messages(list(checks(FOUR_COUNTERS, range(FOUR_COUNTERS.keys))))
        subjects = {}
        for count in OPEN:
            gate = await field.gate(FOUR_COUNTERS)
            await calls(gate.port, ask, Amount(AT_ONCE, count=count))
            subjects[f"{count:,} open"] = Subject(gate.pid, gate.port, ask)
        runs = await _runs(plan, "open reservations", subjects)
        return _against_first(runs, subjects)


async def _counters(plan: Plan) -> tuple[Figure, ...]:
    """More counters for each request; every request has the global one and that of its key."""
    async with Field(plan.cores.measured) as field:
        subjects = {}
        for payers in COUNTERS:
            ask = field.messages(list(checks(payers, range(payers.keys))))
            gate = await field.gate(payers)
            subjects[f"{payers.counters} counters"] = Subject(gate.pid, gate.port, ask)
        runs = await _runs(plan, "counters", subjects)
        return _against_first(runs, subjects)


async def _bodies(plan: Plan) -> tuple[Figure, ...]:
    """Longer bodies, to one server."""
    async with Field(plan.cores.measured) as field:
        gate = await field.gate(FOUR_COUNTERS)
        subjects = {
            name: Subject(gate.pid, gate.port, field.messages([check(key_name(0), body=chat(size))]), FEW_AT_ONCE)
            for name, size in BODIES.items()
        }
        runs = await _runs(plan, "body", subjects)
        return _against_first(runs, subjects)


async def _runs(plan: Plan, name: str, subjects: Mapping[str, Subject]) -> Runs:
    return await in_turns(plan, name, {each: partial(subject.run, plan.seconds) for each, subject in subjects.items()})


def _against_first(runs: Runs, subjects: Mapping[str, Subject], target: Target | None = None) -> tuple[Figure, ...]:
    """Hold every size against the smallest; what is asked for is asked of TARGETED."""
    first, *others = subjects
    return tuple(
        runs.figure(
            "CPU per Check and ending",
            "µs",
            lambda sample: sample.total_cpu_us,
            name,
            first,
            target if name == TARGETED else None,
        )
        for name in others
    )
