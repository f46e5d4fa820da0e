"""Many replicas on one Redis behind a real Envoy, all of which a test may stop and start again.

tempest_calls.py is the traffic through it, tempest_books.py what Redis says of it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

import aiohttp

from extauthz.domain.address import Address
from extauthz.envoy.bootstrap import SERVER_CLUSTER, BootstrapOptions, Document
from tests.support import storm
from tests.support.envoy import EnvoyProcess, EnvoyVersion, options_for
from tests.support.processes import LOOPBACK, START_SECONDS, eventually, free_port
from tests.support.redis import RedisServer
from tests.support.stack import GateProcess
from tests.support.tempest_books import Books, read_books
from tests.support.upstream import Cue, ScriptedUpstream

# Servers start some fifty times. Where Python may not write what it has compiled, each start would compile it all anew.
_COMPILED = TemporaryDirectory(prefix="extauthz-compiled-")
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": _COMPILED.name} if sys.dont_write_bytecode else {}

REPLICAS = 2
WORKERS = 2

LEASE_SECONDS = 2
HEARTBEATS_PER_LEASE = 4
CHECK_SECONDS = 1.0
HEALTH_SECONDS = 0.25

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
  - model_name: local-llama
    litellm_params: {{model: openai/llama, input_cost_per_token: 0, output_cost_per_token: 0}}
general_settings: {{user_header_name: x-end-user, budget_exceeded_models_policy: all}}
extauthz:
  store: {store}
  lease_seconds: {lease_seconds}
  estimate: {{mode: fixed, output_tokens: 64}}
  global: {{max_budget: 1000}}
  organizations: {{acme: {{max_budget: 1000, max_tokens: 1000000000, max_requests: 1000000, budget_duration: 1mo}}}}
  teams:
    red: {{organization: acme, max_budget: 1000, members: {{ana: {{max_budget: 1000, budget_duration: 1mo}}}}}}
    blue: {{max_budget: 1000}}
  users: {{ana: {{max_budget: 1000}}}}
  keys:
    - {{key: sk-ana, user: ana, team: red, max_budget: 1000}}
    - {{key: sk-bob, team: blue, max_budget: 1000}}
  {rules}
"""

# What the upstream does in the middle of an answer, by the name of the play.
CUES = {"breaks": Cue.RESET, "stalls": Cue.HANG}

Edit = Callable[[Document], Document]


class Gateway(EnvoyProcess):
    """An Envoy that may be stopped and started again."""

    async def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Let it end in its own way."""
        self._process.terminate()
        await self._process.wait()

    async def restart(self) -> None:
        """Start it again."""
        await self._process.__aenter__()
        await eventually(self._ready, START_SECONDS, what="Envoy is ready again")

    async def post(self, path: str) -> None:
        """Tell Envoy's admin interface to do something."""
        url = f"http://{self.options.envoy_admin}{path}"
        async with aiohttp.ClientSession() as session, session.post(url) as answer:
            assert 200 == answer.status, await answer.text()

    async def count(self, name: str) -> int:
        """Read one of its counters."""
        stats = await self.admin(f"/stats?filter=^{name}$")
        return int(stats.partition(": ")[2] or "0")


class Replica(GateProcess):
    """A server that may be stopped and started again: while it is away, no client is given its port."""

    def __init__(self, config: str) -> None:
        super().__init__(config, environment=COMPILED)

    async def restart(self) -> None:
        """Start it again, and wait until it listens."""
        await self.process.__aenter__()
        await self.process.wait_for_port(self.grpc_port)


@dataclass(frozen=True, slots=True)
class Store:
    """Where the replicas keep the books, and which server has them now."""

    url: str
    primary: Callable[[], Awaitable[RedisServer]]

    @classmethod
    def on(cls, server: RedisServer) -> Self:
        """Keep the books on one server."""

        async def primary() -> RedisServer:
            return server

        return cls(server.url, primary)

    async def books(self, seconds: float = 10.0) -> Books:
        """Read the books."""
        return await read_books(await self.primary(), seconds)


@dataclass(slots=True)
class House:
    """Everything, running. Clients come while the door is open."""

    store: Store
    upstream: ScriptedUpstream
    gates: tuple[Replica, ...]
    envoy: Gateway
    lease_seconds: int
    door: asyncio.Event

    @property
    def port(self) -> int:
        """Where clients send their requests."""
        return self.envoy.options.listen.port

    async def empty(self, seconds: float) -> Books:
        """Wait until no reservation is open, and give the books then."""

        async def read() -> Books | None:
            books = await self.store.books()
            return None if books.open or books.held or books.leases else books

        books = await eventually(read, seconds, "no reservation is open")
        assert books is not None
        return books


@asynccontextmanager
async def house(
    store: Store,
    version: EnvoyVersion,
    *,
    replicas: int = REPLICAS,
    lease_seconds: int = LEASE_SECONDS,
    rules: str = "",
    edit: Edit = lambda document: document,
    options: Callable[[BootstrapOptions], BootstrapOptions] = lambda chosen: chosen,
) -> AsyncIterator[House]:
    """Run everything around the block. `rules` is a line of configuration, `edit` may change Envoy's further."""
    config = configuration(store, lease_seconds=lease_seconds, rules=rules)
    async with AsyncExitStack() as running:
        upstream = await running.enter_async_context(ScriptedUpstream())
        upstream.plays |= {name: storm.plays(cue) for name, cue in CUES.items()}
        gates = [Replica(config) for _ in range(replicas)]
        await asyncio.gather(*map(running.enter_async_context, gates))
        chosen = replace(
            options_for(upstream.port, gates[0].grpc_port),
            listen=Address(LOOPBACK, free_port()),
            envoy_admin=Address(LOOPBACK, free_port()),
            heartbeat_seconds=lease_seconds / HEARTBEATS_PER_LEASE,
            check_timeout_s=CHECK_SECONDS,
        )
        reaching = reaching_all([gate.grpc_port for gate in gates])

        def edited(document: Document) -> Document:
            return edit(reaching(storm.with_short_timeouts(document)))

        envoy = await running.enter_async_context(Gateway(options(chosen), version, edited, workers=WORKERS))
        door = asyncio.Event()
        door.set()
        yield House(store, upstream, tuple(gates), envoy, lease_seconds, door)
        for gate in gates:
            gate.process.kill()  # which saves the time of draining


def configuration(store: Store, *, lease_seconds: int = LEASE_SECONDS, rules: str = "") -> str:
    """Write the configuration of the servers; `rules` is a line of it."""
    return CONFIG.format(store=store.url, lease_seconds=lease_seconds, rules=rules)


def reaching_all(ports: list[int]) -> Edit:
    """Let Envoy choose among servers by their health, as the mesh does for it."""

    def edit(document: Document) -> Document:
        clusters = cast("Any", document)["static_resources"]["clusters"]
        cluster = next(each for each in clusters if each["name"] == SERVER_CLUSTER)
        point_at(cluster, ports)
        cluster |= {
            "lb_policy": "LEAST_REQUEST",
            "connect_timeout": "0.25s",
            "health_checks": [
                {
                    "timeout": "1s",
                    "interval": f"{HEALTH_SECONDS}s",
                    "no_traffic_interval": f"{HEALTH_SECONDS}s",
                    "unhealthy_threshold": 1,
                    "healthy_threshold": 1,
                    "grpc_health_check": {},
                }
            ],
        }
        return document

    return edit


def point_at(cluster: dict[str, Any], ports: list[int]) -> None:
    """Give a cluster these endpoints on loopback."""
    cluster["load_assignment"]["endpoints"] = [
        {
            "lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": LOOPBACK, "port_value": port}}}}
                for port in ports
            ]
        }
    ]
