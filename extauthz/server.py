"""The composition root: wires configuration, store, authorizer, adapters and ports, and runs them."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from extauthz._proto.envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from extauthz._proto.envoy.service.ext_proc.v3 import external_processor_pb2, external_processor_pb2_grpc
from extauthz.adapters import http
from extauthz.adapters.access_log import AccessLogs
from extauthz.adapters.background import Background
from extauthz.adapters.check import CheckService
from extauthz.adapters.ext_proc import PruningService
from extauthz.adapters.holds import HoldCodec
from extauthz.adapters.listener import ensure_free, new_listener, server_kind
from extauthz.adapters.responses import Responses
from extauthz.authorizer import Authorizer
from extauthz.config.model import EstimateMode, Settings
from extauthz.config.snapshot import Snapshot
from extauthz.domain.address import Address
from extauthz.endings import Endings
from extauthz.errors import StoreRefusedError, StoreUnavailableError
from extauthz.ledger.base import Ledger
from extauthz.ledger.link import Server
from extauthz.ledger.memory import MemoryLedger
from extauthz.ledger.redis import RedisOptions
from extauthz.ledger.shards import ShardedLedger, new_ledgers
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.settlement import Settlement
from extauthz.telemetry.events import Telemetry
from extauthz.telemetry.ledger import ObservedLedger
from extauthz.telemetry.log import Logger, Reporter
from extauthz.telemetry.metrics import Metrics

SERVICES = (
    external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name,
    external_processor_pb2.DESCRIPTOR.services_by_name["ExternalProcessor"].full_name,
    als_pb2.DESCRIPTOR.services_by_name["AccessLogService"].full_name,
)

# Leases are looked at this often; one that has run out is ended within this time.
EXPIRY_INTERVAL_S = 0.1

# A server that stops answers for this long at least, so that whoever watches its health can turn to another one.
NOTICE_S = 1.0

# What the last Checks get to finish once the streams are drained.
STOP_GRACE_S = 1.0

# How long the start waits for the store.
STORE_START_S = 5.0

# How long a server that stops waits for a store that is away; leases end what it then takes with it.
ENDINGS_GRACE_S = 5.0

SIGNING_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that a running server really has: a configured port 0 becomes any free one."""

    grpc: int
    http: int


async def serve(config: Snapshot, log: Logger) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Raises OSError when a port cannot be had or a certificate cannot be read.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with running(config, log) as ports:
        log.info("serving", grpc_port=ports.grpc, http_port=ports.http, server=server_kind(config.settings))
        await stop.wait()
        log.info("draining", seconds_max=config.settings.drain_seconds)
    log.info("stopped")


@asynccontextmanager
async def running(config: Snapshot, log: Logger) -> AsyncIterator[Ports]:
    """Serve inside the block; on leaving it, drain and stop. Raises StoreRefusedError for a store that loses money."""
    metrics = Metrics()
    telemetry = Reporter(metrics, log)
    async with _opened_store(config.settings, telemetry) as store, _serving(config, store, metrics, telemetry) as ports:
        yield ports


@asynccontextmanager
async def _opened_store(settings: Settings, telemetry: Telemetry) -> AsyncIterator[Ledger]:
    """Open the store that the configuration names.

    One that does not answer is no reason not to start: free models and open discovery need none.
    """
    if settings.store is None:
        yield MemoryLedger(clock_ms=_unix_ms, signing_key=secrets.token_bytes(SIGNING_KEY_BYTES))
        return
    shards = new_ledgers(
        settings.store,
        telemetry,
        shards=settings.shard_count,
        clock_s=time.monotonic,
        unix_ms=_unix_ms,
        chance=random.random,
        options=RedisOptions(
            float(settings.store_timeout_seconds), settings.tombstone_seconds, settings.journal_entries_max
        ),
    )
    store = shards[0] if len(shards) == 1 else ShardedLedger(shards)
    try:
        await store.open(STORE_START_S)
        for shard in shards:
            _refuse_forgetful(shard.link.server, settings)
        yield store
    finally:
        await store.close()


def _refuse_forgetful(server: Server | None, settings: Settings) -> None:
    """Raise StoreRefusedError for a store that throws keys away."""
    if server is not None and server.may_evict and not settings.allow_eviction:
        raise StoreRefusedError(
            f"the store at {server.address} throws keys away when its memory is full "
            f"(maxmemory-policy {server.maxmemory_policy}), and budgets with them: set it to noeviction, "
            "or write allow_eviction: true"
        )


@asynccontextmanager
async def _serving(config: Snapshot, store: Ledger, metrics: Metrics, telemetry: Telemetry) -> AsyncIterator[Ports]:
    settings = config.settings
    ledger = ObservedLedger(store, telemetry, time.perf_counter)
    fixed = settings.estimate.mode is EstimateMode.FIXED
    usual = UsualAnswer(UsualTokens(settings.estimate.output_tokens, fixed=fixed), UsualTokens(0, fixed=fixed))
    endings = Endings(ledger, telemetry)
    settlement = Settlement(ledger, endings, lambda: settings, usual, telemetry)
    holds = HoldCodec(ledger.signing_key)
    background = Background(telemetry)
    draining = asyncio.Event()

    check = CheckService(
        authorizer=Authorizer(lambda: config, ledger, usual),
        settlement=settlement,
        responses=Responses(holds),
        snapshot=lambda: config,
        background=background,
        telemetry=telemetry,
        new_id=lambda: uuid.uuid4().hex,
        clock_s=time.perf_counter,
    )
    pruning = PruningService(lambda: config, telemetry)
    access_logs = AccessLogs(settlement, holds, telemetry, draining)
    health_service = health.aio.HealthServicer()
    pages = http.application(ledger, lambda: config, metrics, ready=lambda: not draining.is_set())

    async with AsyncExitStack() as stack:
        http_port = await stack.enter_async_context(_pages(pages, settings.listen.http))
        server, grpc_port = new_listener(settings)
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(check, server)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(pruning, server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(access_logs, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await server.start()
        await stack.enter_async_context(_task(_forever("endings", endings.catch_up, telemetry)))
        await stack.enter_async_context(_task(_forever("access_log", access_logs.catch_up, telemetry)))
        stack.push_async_callback(_at_most, endings.drained, ENDINGS_GRACE_S)
        stack.push_async_callback(background.drain, STOP_GRACE_S)  # what the last Checks left to be done
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        await stack.enter_async_context(_task(_forever("expiry", partial(_expire, settlement), telemetry)))
        for service in ("", *SERVICES):
            await health_service.set(service, health_pb2.HealthCheckResponse.SERVING)

        yield Ports(grpc_port, http_port)

        await health_service.enter_graceful_shutdown()
        draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.drain_seconds):
                await asyncio.sleep(NOTICE_S)
                await access_logs.idle()


@asynccontextmanager
async def _pages(app: web.Application, address: Address) -> AsyncIterator[int]:
    """Serve the HTTP port inside the block, and tell which it is."""
    ensure_free(address, "http")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _task(job: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a job beside the block, and end it with the block."""
    task = asyncio.get_running_loop().create_task(job)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _forever(name: str, job: Callable[[], Coroutine[None, None, None]], telemetry: Telemetry) -> None:
    """Do a job again and again, for as long as the server lives; no failure may stop it."""
    while True:
        try:
            await job()
        except StoreUnavailableError:
            pass  # counted where the store is called; the next pass tries again
        except Exception as error:  # noqa: BLE001
            telemetry.failed(name, error)
            await asyncio.sleep(EXPIRY_INTERVAL_S)


async def _expire(settlement: Settlement) -> None:
    """End leases that have run out."""
    await asyncio.sleep(EXPIRY_INTERVAL_S)
    await settlement.expire()


async def _at_most(job: Callable[[], Coroutine[None, None, None]], seconds_max: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds_max):
            await job()


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
