"""The rig at work: how loads are put on a server, and what a run of one costs."""

from __future__ import annotations

import asyncio
import json
import struct
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.figures import US, Runs, Sample
from bench.machine import Cores, cpu_seconds
from tests.support.processes import LOOPBACK, Process, free_port

CACHE = Path(__file__).parents[1] / ".cache"
RIG = CACHE / "rig/rig"

CHECK_METHOD = "/envoy.service.auth.v3.Authorization/Check"
# No run is as long as this, not even of what is slowest.
RUN_SECONDS_MAX = 180.0
ERRORS_SHARE_MAX = 0.01


class LoadError(Exception):
    """A run went wrong, so its figures say nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: on which cores, how many pairs of runs, how many seconds of a run, whom to tell what goes on."""

    cores: Cores
    pairs: int
    seconds: float
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Amount:
    """How much: so many at once, for a time or so often in all (`count`), as fast as it goes or `rate` a second.

    They do not all begin at the same moment, but within `ramp_s`.
    """

    inflight: int
    seconds: float = 3.0
    count: int = 0
    rate: float = 0.0
    ramp_s: float = 0.0

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the rig is told."""
        numbers = {
            "inflight": self.inflight,
            "seconds": self.seconds,
            "count": self.count,
            "rate": self.rate,
            "ramp": self.ramp_s,
        }
        return tuple(part for name, number in numbers.items() for part in (f"-{name}", f"{number:g}"))


def write_messages(path: Path, messages: Iterable[bytes]) -> Path:
    """Write messages for `calls`, each after its length."""
    with path.open("wb") as file:
        for message in messages:
            file.write(struct.pack(">I", len(message)) + message)
    return path


async def calls(
    port: int, messages: Path, amount: Amount, *, method: str = CHECK_METHOD, end: bool = False, refusals: bool = False
) -> Sample:
    """Ask a gRPC server; with `end`, every reservation ends by an access log, as Envoy sends it.

    With `refusals`, they and nothing else are what it should answer.
    """
    ending = (*(("-end",) if end else ()), *(("-refusals",) if refusals else ()))
    target = ("-target", f"{LOOPBACK}:{port}", "-method", method, "-messages", str(messages))
    return await _rig("calls", *target, *ending, *amount.arguments)


async def fetches(url: str, body: Path, key: str, amount: Amount) -> Sample:
    """Ask an HTTP server."""
    return await _rig("fetches", "-url", url, "-body", str(body), "-key", key, *amount.arguments)


async def _rig(*arguments: str) -> Sample:
    output = await run_program(RIG, *arguments)
    outcome = json.loads(output)
    if outcome["errors"] > outcome["requests"] * ERRORS_SHARE_MAX:
        raise LoadError(f"{outcome['errors']} of {outcome['requests']} requests failed: {outcome['error']}")
    latencies = (outcome[name] for name in ("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms"))
    return Sample(outcome["requests"], outcome["seconds"], *latencies)


async def run_program(program: Path, *arguments: str) -> bytes:
    """Run a program to its end, and give what it wrote. Raises LoadError when it fails."""
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise LoadError(f"{program.name} {arguments[0]} did not end within {RUN_SECONDS_MAX:g} s") from None
    if process.returncode != 0:
        raise LoadError(f"{program.name} {arguments[0]}: {errors.decode(errors='replace').strip()[-500:]}")
    return output


async def costed(
    processes: Mapping[str, int], load: Callable[[], Awaitable[Sample]], *, linger_s: float = 0.0
) -> Sample:
    """Make a run, and add what it cost each process, by name, until `linger_s` after it."""
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    sample = await load()
    await asyncio.sleep(linger_s)
    cost = {name: (cpu_seconds(pid) - before[name]) * US / sample.requests for name, pid in processes.items()}
    return replace(sample, cpu_us=cost)


async def in_turns(plan: Plan, name: str, subjects: Mapping[str, Callable[[], Awaitable[Sample]]]) -> Runs:
    """Let the subjects take turns, once to warm up and then once for each pair, there and back again."""
    samples: dict[str, list[Sample]] = {subject: [] for subject in subjects}
    for turn in range(-1, plan.pairs):
        order = list(subjects) if turn % 2 else list(subjects)[::-1]
        for subject in order:
            sample = await subjects[subject]()
            if turn < 0:
                continue
            samples[subject].append(sample)
            plan.tell(
                f"{name} {turn + 1}/{plan.pairs}  {subject:<24} {sample.rate:9,.0f}/s  p50 {sample.p50_ms:7.2f} ms"
                f"  p99 {sample.p99_ms:7.2f} ms  "
                + "  ".join(f"{process} {cost:,.0f} µs" for process, cost in sample.cpu_us.items())
            )
    return Runs(name, samples)


class RigServer(Process):
    """A server of the rig: `noop` or `upstream`."""

    def __init__(self, command: str, *arguments: str) -> None:
        self.port = free_port()
        super().__init__(RIG, command, "-listen", f"{LOOPBACK}:{self.port}", *arguments)

    async def ready(self) -> None:
        """Wait until it listens."""
        await self.wait_for_port(self.port)
