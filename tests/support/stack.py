"""The whole house as processes: scripted upstream ◀ Envoy ▶ extauthz, and the clients that people use."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Self

import aiohttp
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from extauthz.envoy.bootstrap import BootstrapOptions, Document
from tests.support.envoy import NEWEST_ENVOY, EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import LOOPBACK, Process, eventually, free_port
from tests.support.upstream import MODELS, ScriptedUpstream

NANOUSD_PER_USD = 1_000_000_000

Labels = tuple[str, ...]


class GateProcess:
    """`extauthz serve` with a configuration, running and ready while the `async with` block does.

    `module` may be another that takes the same commands, such as `tests.support.faulty`. `new_port` finds its ports.
    """

    def __init__(
        self,
        config: str,
        *,
        environment: Mapping[str, str] | None = None,
        module: str = "extauthz",
        new_port: Callable[[], int] = free_port,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="extauthz-")
        self.config = Path(self._folder.name) / "config.yaml"
        self.config.write_text(dedent(config), encoding="utf-8")
        self.grpc_port, self.admin_port, self.http_port = new_port(), new_port(), new_port()
        self.process = Process(
            *(sys.executable, "-m", module, "serve", "--config", self.config),
            *("--grpc", f"{LOOPBACK}:{self.grpc_port}", "--http", f"{LOOPBACK}:{self.http_port}"),
            *("--admin", f"{LOOPBACK}:{self.admin_port}"),
            environment=environment,
        )

    async def __aenter__(self) -> Self:
        await self.process.__aenter__()
        try:
            await self.process.wait_for_port(self.grpc_port)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.process.__aexit__(None, None, None)
        self._folder.cleanup()

    async def page(self, path: str) -> tuple[int, str]:
        """Get a page of the HTTP port: its status and text."""
        url = f"http://{LOOPBACK}:{self.http_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def metrics(self) -> Metrics:
        """Read all metrics."""
        _, text = await self.page("/metrics")
        return Metrics(text)


class Metrics:
    """What /metrics says, by metric name and label values, which stand in the order of their labels' names."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, *labels: str) -> float:
        """Give one sample, 0 when it was never counted."""
        return self._samples.get((name, labels), 0.0)

    def total(self, name: str) -> float:
        """Give the sum over all labels."""
        return sum(value for (sample, _), value in self._samples.items() if sample == name)

    def amounts(self, name: str) -> dict[Labels, int]:
        """Give a metric in USD as nano-USD, by label values."""
        return {
            labels: round(value * NANOUSD_PER_USD)
            for (sample, labels), value in self._samples.items()
            if sample == name
        }

    @property
    def open(self) -> int:
        """How many reservations are open."""
        return int(self.value("extauthz_reservations_open"))

    @property
    def held(self) -> dict[Labels, int]:
        """What is held on each budget (scope, window), in nano-USD."""
        return self.amounts("extauthz_budget_held_usd")

    @property
    def spent(self) -> dict[Labels, int]:
        """What is spent on each budget (scope, window), in nano-USD."""
        return self.amounts("extauthz_budget_spent_usd")


@dataclass(frozen=True, slots=True)
class Stack:
    """The three, running."""

    upstream: ScriptedUpstream
    gate: GateProcess
    envoy: EnvoyProcess

    @property
    def url(self) -> str:
        """Where clients send their requests."""
        return self.envoy.url

    def openai(self, key: str, *, retries: int = 0) -> AsyncOpenAI:
        """Make the official client; close it with `async with`."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=retries)

    async def settled(self) -> Metrics:
        """Wait until no reservation is open, and give the metrics then."""

        async def read() -> Metrics | None:
            metrics = await self.gate.metrics()
            return metrics if metrics.open == 0 else None

        metrics = await eventually(read, what="no reservation is open")
        assert metrics is not None
        return metrics


def patient(options: BootstrapOptions) -> BootstrapOptions:
    """Give Checks more time than a busy machine needs, for tests of what is decided and not of how fast."""
    return replace(options, check_timeout_s=10.0)


@asynccontextmanager
async def stack(
    config: str,
    *,
    version: EnvoyVersion = NEWEST_ENVOY,
    options: Callable[[BootstrapOptions], BootstrapOptions] = lambda options: options,
    edit: Callable[[Document], Document] = lambda document: document,
    environment: Mapping[str, str] | None = None,
    models: Sequence[str] = MODELS,
    module: str = "extauthz",
    scripted: Callable[[Sequence[str]], ScriptedUpstream] = ScriptedUpstream,
) -> AsyncIterator[Stack]:
    """Start upstream, server and Envoy around the block. Heartbeats come every second; the upstream lists `models`."""
    async with AsyncExitStack() as running:
        upstream = await running.enter_async_context(scripted(models))
        gate = await running.enter_async_context(GateProcess(config, environment=environment, module=module))
        chosen = options(replace(options_for(upstream.port, gate.grpc_port), heartbeat_seconds=1.0))
        envoy = await running.enter_async_context(EnvoyProcess(chosen, version, edit))
        yield Stack(upstream, gate, envoy)
