"""From end to end: Envoy with us against the LiteLLM proxy, on a core each, before the same upstream.

LiteLLM runs without a database, as it is fastest, and so has no budgets of keys: one of its master key's provider is
what it can keep. Ours has four counters of each request in Redis. An Envoy alone, which keeps none, tells how far ahead
anything behind an Envoy can be.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import Figure, Results, Runs, Sample, at_least, at_most
from bench.gate import FOUR_COUNTERS, PLENTY_USD, Gate, chat, key_name
from bench.machine import on_core
from bench.peers.gateways import bare
from bench.peers.proxy import litellm, litellm_is_there
from bench.rig import Amount, Plan, RigServer, costed, fetches, in_turns
from tests.support.envoy import EnvoyProcess, options_for
from tests.support.processes import LOOPBACK
from tests.support.redis import RedisServer
from tests.support.stack import patient

OURS, LITELLM, ENVOY, DIRECT = "Envoy and ours", "LiteLLM", "Envoy alone", "the upstream alone"
AT_ONCE = 16
LINGER_S = 0.4
MASTER_KEY = "sk-bench-master"
PATH = "/v1/chat/completions"

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_key: none, api_base: "http://{host}:{port}/v1",
      input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
router_settings:
  num_retries: 0
  provider_budget_config: {{openai: {{budget_limit: {limit}, time_period: 30d}}}}
litellm_settings: {{max_budget: {limit}, budget_duration: 30d}}
general_settings: {{master_key: {key}, disable_model_info_refresh: true}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the upstream: where it begins, whose key opens it, and the processes on it."""

    url: str
    key: str
    processes: dict[str, int]

    async def run(self, body: Path, amount: Amount) -> Sample:
        """Send requests on it."""
        return await costed(
            self.processes, partial(fetches, self.url + PATH, body, self.key, amount), linger_s=LINGER_S
        )


async def measure(plan: Plan) -> Results:
    """Measure how many requests a core takes, and how long one alone waits."""
    if not litellm_is_there():
        return Results(notes=("no LiteLLM: `make .cache/litellm/.installed` could not install it",))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        redis = await stack.enter_async_context(RedisServer(appendonly=False))
        upstream = await stack.enter_async_context(RigServer("upstream"))
        await upstream.ready()
        with on_core(plan.cores.measured):
            gate = await stack.enter_async_context(Gate(FOUR_COUNTERS, redis.url))
            envoy = await stack.enter_async_context(EnvoyProcess(patient(options_for(upstream.port, gate.port))))
            alone = await stack.enter_async_context(EnvoyProcess(options_for(upstream.port, gate.port), edit=bare))
            config = CONFIG.format(host=LOOPBACK, port=upstream.port, limit=PLENTY_USD, key=MASTER_KEY)
            proxy = await stack.enter_async_context(litellm(config))
        ways = {
            OURS: Way(envoy.url, key_name(0), {"envoy": envoy.pid, "server": gate.pid}),
            LITELLM: Way(proxy.url, MASTER_KEY, {"litellm": proxy.pid}),
            ENVOY: Way(alone.url, "none", {"envoy": alone.pid}),
        }
        body = folder / "body"
        body.write_bytes(chat())
        amount = Amount(AT_ONCE, plan.seconds)
        busy = await in_turns(
            plan, f"{AT_ONCE} in flight", {name: partial(way.run, body, amount) for name, way in ways.items()}
        )
        ways[DIRECT] = Way(f"http://{LOOPBACK}:{upstream.port}", "none", {})
        amount = Amount(1, plan.seconds)
        quiet = await in_turns(
            plan, "one at a time", {name: partial(way.run, body, amount) for name, way in ways.items()}
        )

    return Results((*_busy_figures(busy), *_quiet_figures(quiet)))


def _busy_figures(runs: Runs) -> tuple[Figure, ...]:
    def rate(sample: Sample) -> float:
        return sample.rate

    def cpu(sample: Sample) -> float:
        return sample.total_cpu_us

    return (
        runs.figure("requests per second on a core", "/s", rate, OURS, LITELLM, at_least(60)),
        runs.figure("requests per second on a core", "/s", rate, ENVOY, LITELLM),
        runs.figure("CPU per request", "µs", cpu, OURS, LITELLM),
        runs.figure("CPU per request", "µs", cpu, ENVOY, LITELLM),
        runs.figure("p99", "ms", lambda sample: sample.p99_ms, OURS, LITELLM),
    )


def _quiet_figures(runs: Runs) -> tuple[Figure, ...]:
    def added(way: str) -> tuple[float, ...]:
        return runs.added(way, DIRECT, lambda sample: sample.p50_ms)

    name = "one at a time: added p50"
    return (
        Figure(name, "ms", OURS, LITELLM, added(OURS), added(LITELLM), at_most(1 / 20)),
        Figure(name, "ms", ENVOY, LITELLM, added(ENVOY), added(LITELLM)),
    )
