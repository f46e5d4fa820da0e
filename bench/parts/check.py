"""A Check on Redis, of four counters: ours, envoyproxy/ratelimit's on the same Redis, and the least that gRPC can do.

Each server is alone on a core; the load and Redis are on the other. Reservations stay open here, since ratelimit has
none to end; what the ending costs besides stands below, and what a refusal costs. ghz, which others know, repeats the
main figure.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from bench.figures import Figure, Results, Runs, Sample, at_least, at_most
from bench.gate import BROKE, FOUR_COUNTERS, KEYS_PER_TEAM, Gate, check, checks, key_name
from bench.machine import Cores, on_core
from bench.peers.ratelimit import METHOD, PROGRAM, RateLimit, described, rate_limit
from bench.rig import (
    CACHE,
    CHECK_METHOD,
    Amount,
    Plan,
    RigServer,
    calls,
    costed,
    in_turns,
    run_program,
    write_messages,
)
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2
from tests.support.processes import LOOPBACK
from tests.support.redis import RedisServer

OURS, RATELIMIT, NOOP = "ours", "ratelimit", "no-op grpc-go"
EMPTY, ENDED, REFUSED = "ours, empty policy", "ours, with endings", "ours, refused"
BUSY, QUIET = 32, 4
BUSY_SHARE = 0.9

# The last endings belong to the run.
LINGER_S = 0.2

GHZ = CACHE / "ghz/ghz"
NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and what it is asked."""

    port: int
    pid: int
    messages: Path
    method: str = CHECK_METHOD
    end: bool = False
    refusals: bool = False

    async def run(self, amount: Amount) -> Sample:
        """Put a load on it."""
        load = partial(
            calls, self.port, self.messages, amount, method=self.method, end=self.end, refusals=self.refusals
        )
        return await costed({"server": self.pid}, load, linger_s=LINGER_S)

    async def run_by_ghz(self, message: Path, protoset: Path, amount: Amount) -> Sample:
        """Put the same load on it by ghz, which sends one and the same message."""
        return await costed({"server": self.pid}, partial(_ghz, self, message, protoset, amount))


async def measure(plan: Plan) -> Results:
    """Measure with many and with few Checks at once."""
    async with _servers(plan.cores) as servers:
        figures, notes = [], []
        for inflight in (BUSY, QUIET):
            amount = Amount(inflight, plan.seconds)
            subjects = {name: partial(server.run, amount) for name, server in servers.items()}
            runs = await in_turns(plan, f"{inflight} in flight", subjects)
            figures += list(_figures(runs, peer=RATELIMIT in servers, busy=inflight == BUSY))
            if inflight == BUSY:
                notes += _idle(runs, servers)
        if RATELIMIT not in servers:
            notes.append("no ratelimit: it could not be built")
        elif GHZ.exists():
            figures += await _by_ghz(plan, servers)
        else:
            notes.append("no ghz: the main figure is not repeated by it")
        return Results(tuple(figures), tuple(notes))


@asynccontextmanager
async def _servers(cores: Cores) -> AsyncIterator[dict[str, Server]]:
    """Run what is to be had of the servers, each started on the core that is measured."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        redis = await stack.enter_async_context(RedisServer(appendonly=False))
        numbers = range(FOUR_COUNTERS.keys)
        ask = write_messages(folder / "checks", checks(FOUR_COUNTERS, numbers))
        with on_core(cores.measured):
            gate = await stack.enter_async_context(Gate(FOUR_COUNTERS, redis.url))
            noop = await stack.enter_async_context(RigServer("noop"))
            await noop.ready()
        passes = write_messages(folder / "passes", [check(key_name(0), path="/neither/a/list/nor/inference")])
        servers = {OURS: Server(gate.port, gate.pid, ask)}
        if PROGRAM.exists():
            with on_core(cores.measured):
                limiter = await stack.enter_async_context(RateLimit(redis.port))
            limits = write_messages(folder / "limits", (rate_limit(number, KEYS_PER_TEAM) for number in numbers))
            servers[RATELIMIT] = Server(limiter.port, limiter.pid, limits, METHOD)
        servers[EMPTY] = Server(gate.port, gate.pid, passes)
        servers[NOOP] = Server(noop.port, noop.pid, ask)
        servers[ENDED] = Server(gate.port, gate.pid, ask, end=True)
        asks_in_vain = write_messages(folder / "refused", [check(BROKE)])
        servers[REFUSED] = Server(gate.port, gate.pid, asks_in_vain, refusals=True)
        yield servers


def _figures(runs: Runs, *, peer: bool, busy: bool) -> tuple[Figure, ...]:
    """Compare, and hold against what is asked for."""

    def rate(sample: Sample) -> float:
        return sample.rate

    def p50(sample: Sample) -> float:
        return sample.p50_ms

    def p99(sample: Sample) -> float:
        return sample.p99_ms

    def cpu(sample: Sample) -> float:
        return sample.total_cpu_us

    found = [
        runs.figure("rate", "/s", rate, EMPTY, NOOP, at_least(0.6) if busy else None),
        runs.figure("CPU per Check", "µs", cpu, EMPTY, NOOP),
        runs.figure("rate", "/s", rate, OURS, NOOP),
        runs.figure("CPU per Check", "µs", cpu, OURS, NOOP),
        runs.figure("CPU per Check", "µs", cpu, ENDED, OURS),
        runs.figure("CPU per Check", "µs", cpu, REFUSED, OURS),
    ]
    if not peer:
        return tuple(found)
    return (
        runs.figure("rate", "/s", rate, OURS, RATELIMIT, at_least(1.5) if busy else None),
        runs.figure("p50", "ms", p50, OURS, RATELIMIT, None if busy else at_most(1.0)),
        runs.figure("p99", "ms", p99, OURS, RATELIMIT, at_most(1.0) if busy else None),
        runs.figure("CPU per Check", "µs", cpu, OURS, RATELIMIT),
        *found,
    )


def _idle(runs: Runs, subjects: Iterable[str]) -> list[str]:
    """Name the servers that could have done more than they were asked: CPU per Check tells more of them than rates."""
    shares = {subject: median(runs.values(subject, lambda sample: sample.busy)) for subject in subjects}
    return [
        f"{runs.name}: {subject} used {share:.0%} of its core, so its rate is that of the load around it"
        for subject, share in shares.items()
        if share < BUSY_SHARE
    ]


async def _by_ghz(plan: Plan, servers: dict[str, Server]) -> list[Figure]:
    """Repeat the main figure with a load generator that is not ours."""
    amount = Amount(BUSY, plan.seconds)
    with TemporaryDirectory(prefix="bench-") as folder:
        protoset = Path(folder) / "protoset"
        protoset.write_bytes(_descriptors())
        single = {OURS: check(key_name(0)), RATELIMIT: rate_limit(0, KEYS_PER_TEAM)}
        subjects = {}
        for name, message in single.items():
            path = Path(folder) / name
            path.write_bytes(message)
            subjects[name] = partial(servers[name].run_by_ghz, path, protoset, amount)
        runs = await in_turns(plan, f"{BUSY} in flight, by ghz", subjects)
    return [
        runs.figure("rate", "/s", lambda sample: sample.rate, OURS, RATELIMIT),
        runs.figure("CPU per Check", "µs", lambda sample: sample.total_cpu_us, OURS, RATELIMIT),
    ]


async def _ghz(server: Server, message: Path, protoset: Path, amount: Amount) -> Sample:
    call = server.method.removeprefix("/")
    output = await run_program(
        GHZ,
        *("--insecure", "--call", call, "--binary-file", str(message), "--protoset", str(protoset), "--format", "json"),
        *("--concurrency", str(amount.inflight), "--duration", f"{amount.seconds:g}s", "--duration-stop", "wait"),
        f"{LOOPBACK}:{server.port}",
    )
    report = json.loads(output)
    quantiles = {each["percentage"]: each["latency"] / NS_PER_MS for each in report["latencyDistribution"]}
    return Sample(report["count"], report["total"] / NS_PER_S, quantiles[50], quantiles[99])


def _descriptors() -> bytes:
    """Describe the messages of both servers, and all that they are made of."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        files[file.name] = file

    add(external_auth_pb2.DESCRIPTOR)
    return FileDescriptorSet(
        file=[described(), *(FileDescriptorProto.FromString(file.serialized_pb) for file in files.values())]
    ).SerializeToString()
