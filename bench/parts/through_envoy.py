"""What a request through Envoy costs more with us: latency, and CPU of Envoy and the server.

Against an Envoy that only passes requests on, one that asks an empty Check, and one that shows answers to an ext_proc
server. JSON answers come at a fixed rate, which leaves the core idle for most of the time. Streams have 100 events,
5 ms apart. 200 of them at once fill the core, and events that wait there go on together; so what each event costs is
measured with fewer streams besides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import Figure, Results, Runs, Sample, at_most
from bench.gate import FOUR_COUNTERS, Gate, chat, key_name
from bench.interpreter import python
from bench.machine import on_core
from bench.peers.gateways import bare, check_only, through_ext_proc
from bench.rig import Amount, Plan, RigServer, costed, fetches, in_turns
from extauthz.envoy.bootstrap import Document
from tests.support.envoy import EnvoyProcess, options_for
from tests.support.processes import Process, free_port
from tests.support.redis import RedisServer
from tests.support.stack import patient

ALONE, NOOP, OURS, EXT_PROC = "Envoy alone", "no-op Check", "ours", "ext_proc"
JSON_RATE = 300
JSON_AT_ONCE = 64
# As long as a stream takes: from then on one begins when another one ends.
RAMP_S = 0.5
MANY = Amount(200, count=400, ramp_s=RAMP_S)
FEW = Amount(40, count=160, ramp_s=RAMP_S)
PATH = "/v1/chat/completions"

# Envoy flushes access logs every 0.1 s; the endings belong to the run.
LINGER_S = 0.4


@dataclass(frozen=True, slots=True)
class Gateway:
    """An Envoy, and the server beside it if there is one."""

    envoy: EnvoyProcess
    server: int | None

    async def run(self, body: Path, amount: Amount) -> Sample:
        """Send requests through it."""
        processes = {"envoy": self.envoy.pid} | ({} if self.server is None else {"server": self.server})
        load: Callable[[], Awaitable[Sample]] = partial(fetches, self.envoy.url + PATH, body, key_name(0), amount)
        return await costed(processes, load, linger_s=LINGER_S)


async def measure(plan: Plan) -> Results:
    """Measure JSON answers and streams."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        redis = await stack.enter_async_context(RedisServer(appendonly=False))
        upstream = await stack.enter_async_context(RigServer("upstream"))
        await upstream.ready()
        with on_core(plan.cores.measured):
            gateways = await _gateways(stack, redis.url, upstream.port)
        plain, streamed = folder / "plain", folder / "streamed"
        plain.write_bytes(chat())
        streamed.write_bytes(chat(stream=True))

        amount = Amount(JSON_AT_ONCE, plan.seconds, rate=JSON_RATE)
        answers = await in_turns(
            plan, "JSON", {name: partial(gateway.run, plain, amount) for name, gateway in gateways.items()}
        )
        many, few = [
            await in_turns(
                plan,
                f"{amount.inflight} streams",
                {name: partial(gateway.run, streamed, amount) for name, gateway in gateways.items()},
            )
            for amount in (MANY, FEW)
        ]
        return Results((*_figures(answers), *_figures(many), *_figures(few), *_targets(answers, many, few)))


async def _gateways(stack: AsyncExitStack, store: str, upstream: int) -> dict[str, Gateway]:
    gate = await stack.enter_async_context(Gate(FOUR_COUNTERS, store))
    noop = await stack.enter_async_context(RigServer("noop"))
    await noop.ready()
    port = free_port()
    runner = python()
    metering = await stack.enter_async_context(
        Process(*runner.command, "-m", "bench.peers.metering", str(port), environment=runner.environment)
    )
    await metering.wait_for_port(port)

    async def envoy(server: int, edit: Callable[[Document], Document]) -> EnvoyProcess:
        return await stack.enter_async_context(EnvoyProcess(patient(options_for(upstream, server)), edit=edit))

    return {
        ALONE: Gateway(await envoy(noop.port, bare), None),
        NOOP: Gateway(await envoy(noop.port, check_only), noop.pid),
        OURS: Gateway(await envoy(gate.port, lambda document: document), gate.pid),
        EXT_PROC: Gateway(await envoy(port, through_ext_proc), metering.pid),
    }


def _envoy_us(sample: Sample) -> float:
    return sample.cpu_us["envoy"]


def _server_us(sample: Sample) -> float:
    return sample.cpu_us["server"]


def _figures(runs: Runs) -> tuple[Figure, ...]:
    """Compare what is added to Envoy alone: until the first byte, which is all that a Check can keep waiting."""

    def added(what: str, of: Callable[[Sample], float]) -> Figure:
        values, peer_values = runs.added(OURS, ALONE, of), runs.added(NOOP, ALONE, of)
        return Figure(f"{runs.name}: added {what}", "ms", OURS, NOOP, values, peer_values)

    return (
        added("p50 of the first byte", lambda sample: sample.first_p50_ms),
        added("p99 of the first byte", lambda sample: sample.first_p99_ms),
        added("p50 of the whole", lambda sample: sample.p50_ms),
        runs.figure("CPU of Envoy", "µs", _envoy_us, OURS, ALONE),
        runs.figure("CPU of Envoy", "µs", _envoy_us, OURS, NOOP),
        runs.figure("CPU of the server", "µs", _server_us, OURS, NOOP),
        runs.figure("CPU of both", "µs", lambda sample: sample.total_cpu_us, OURS, EXT_PROC),
    )


def _targets(answers: Runs, many: Runs, few: Runs) -> tuple[Figure, ...]:
    """Compare what a stream costs the server with a plain answer, and with metering outside of Envoy."""
    per_stream, per_answer = many.values(OURS, _server_us), answers.values(OURS, _server_us)
    return (
        Figure(
            "CPU of the server for a stream", "µs", OURS, "ours, a JSON answer", per_stream, per_answer, at_most(1.3)
        ),
        few.figure("CPU of the server", "µs", _server_us, OURS, EXT_PROC, at_most(1 / 25)),
    )
