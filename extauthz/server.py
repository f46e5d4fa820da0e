"""The composition root: wires configuration, store, authorizer, adapters and ports, and runs them."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import grpc.aio
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from extauthz._proto.envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from extauthz._proto.envoy.service.ext_proc.v3 import external_processor_pb2, external_processor_pb2_grpc
from extauthz._proto.extauthz.diagnostics.v1 import (
    diagnostics_pb2,
    diagnostics_pb2_grpc,
    directory_pb2,
    directory_pb2_grpc,
)
from extauthz.adapters import http
from extauthz.adapters.access_log import AccessLogs
from extauthz.adapters.background import Background
from extauthz.adapters.check import CheckService
from extauthz.adapters.diagnostics import Diagnostics, Experts
from extauthz.adapters.directory import DirectoryService
from extauthz.adapters.ext_proc import PruningService
from extauthz.adapters.holds import HoldCodec
from extauthz.adapters.jwks import KeyServers
from extauthz.adapters.listener import ensure_free, envoys_door, new_listener, operators_door, server_kind
from extauthz.adapters.page import StatusPage
from extauthz.adapters.responses import Responses
from extauthz.adapters.status import StatusReport
from extauthz.adapters.webhook import Webhook
from extauthz.alerts import Alerts, Warnings
from extauthz.authenticator import Authenticator
from extauthz.authorizer import Authorizer
from extauthz.config.estimates import EstimateMode
from extauthz.config.model import DirectoryKind
from extauthz.config.origin import Origin
from extauthz.config.snapshot import Configuration, Snapshot
from extauthz.directories.lookup import Lookup
from extauthz.directories.store.records import Records
from extauthz.domain.address import Address
from extauthz.endings import Endings
from extauthz.explanation import Explainer
from extauthz.holdings import Custody
from extauthz.inspection import Inspector, interval_s
from extauthz.jobs import Job, at_most, repeated
from extauthz.ledger.base import Ledger
from extauthz.lookups import opened_lookup
from extauthz.observers import Observers, observing
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.promises import Promises
from extauthz.reload import Reloader
from extauthz.settlement import Settlement
from extauthz.stores import books_of, new_registry, opened_store, records_of
from extauthz.survey import Surveyor
from extauthz.telemetry.ledger import ObservedLedger
from extauthz.telemetry.log import Logger, Verbosity
from extauthz.tokens.verifier import TokenVerifier
from extauthz.treasury import Treasury

SERVICES = (
    external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name,
    external_processor_pb2.DESCRIPTOR.services_by_name["ExternalProcessor"].full_name,
    als_pb2.DESCRIPTOR.services_by_name["AccessLogService"].full_name,
)
ADMIN_SERVICES = (
    diagnostics_pb2.DESCRIPTOR.services_by_name["Diagnostics"].full_name,
    directory_pb2.DESCRIPTOR.services_by_name["Directory"].full_name,
)

# As random as a UUID. Two are made for each Check, and to ask the system for each of them takes 2 µs.
ID_BYTES = 16
IDS_AT_ONCE = 256

# How many more objects there are before garbage is looked for. Requests leave none behind, and those that are under way
# are thousands of objects: Python's usual 700 cost an eighth of all CPU, and held Checks up for 0.1 s and more.
GARBAGE_OBJECTS = 50_000

# Leases are looked at this often; one that has run out is ended within this time.
EXPIRY_INTERVAL_S = 0.1

# A server that stops answers for this long at least, so that whoever watches its health can turn to another one.
NOTICE_S = 1.0

# What the last Checks get to finish once the streams are drained.
STOP_GRACE_S = 1.0

# How long a server that stops waits for a store that is away; leases end what it then takes with it.
ENDINGS_GRACE_S = 5.0

# The same for alerts on their way; those that it takes with it were logged and counted.
WEBHOOK_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that a running server really has: a configured port 0 becomes any free one."""

    grpc: int
    admin: int
    http: int


@dataclass(frozen=True, slots=True)
class Base:
    """What is there before a server, and after it.

    `records` are those of keys and payers, where the store has them, and `lookup` looks up who is not in files.
    """

    configuration: Configuration
    reloader: Reloader
    store: Ledger
    observers: Observers
    key_servers: KeyServers
    verbosity: Verbosity
    records: Records | None
    lookup: Lookup | None


async def serve(config: Snapshot, log: Logger, origin: Origin) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; the configuration follows its origin, at once on SIGHUP.

    Raises OSError when a port cannot be had or a certificate cannot be read.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    # What is there by now stays: looking through it for garbage would hold Checks up for 0.1 s, time and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    server = running(config, log, origin)
    del config  # it goes when another one is in force
    async with server:
        await stop.wait()


@asynccontextmanager
async def running(config: Snapshot, log: Logger, origin: Origin | None = None) -> AsyncIterator[Ports]:
    """Serve inside the block; on leaving it, drain and stop. Raises StoreRefusedError for a store that loses money.

    The configuration follows its `origin`, which is its file and the environment unless somebody knows better.
    """
    origin = origin or Origin(config.files[0], os.environ)
    configuration = Configuration(config)
    verbosity = Verbosity(lambda: configuration().settings.log.level)
    log = verbosity.applied_to(log)
    for notice in config.notices:
        log.info("configuration", notice=notice)
    del config  # it goes when another one is in force
    async with (
        observing(configuration, log, _unix_ms) as observers,
        opened_store(configuration().settings, observers.telemetry) as store,
        _directory_of(configuration, store, observers) as (records, lookup),
        _reloading(origin, configuration, observers) as reloader,
        _serving(
            Base(
                configuration,
                reloader,
                store,
                observers,
                KeyServers(configuration, observers.telemetry, time.monotonic),
                verbosity,
                records,
                lookup,
            )
        ) as ports,
    ):
        log.info(
            "serving",
            grpc_port=ports.grpc,
            admin_port=ports.admin,
            http_port=ports.http,
            server=server_kind(configuration().settings),
        )
        yield ports
        log.info("draining")
    log.info("stopped")


@asynccontextmanager
async def _directory_of(
    configuration: Configuration, store: Ledger, observers: Observers
) -> AsyncIterator[tuple[Records | None, Lookup | None]]:
    """Open the directory inside the block, with its records where the store has them."""
    records = records_of(store) if configuration().settings.directory is DirectoryKind.STORE else None
    async with opened_lookup(configuration, records, observers.telemetry) as lookup:
        yield records, lookup


@asynccontextmanager
async def _reloading(origin: Origin, configuration: Configuration, observers: Observers) -> AsyncIterator[Reloader]:
    """Have the configuration follow its origin inside the block, and look at it at once on SIGHUP."""
    reloader = Reloader(origin, configuration, observers.telemetry, _unix_ms)
    observers.metrics.config_loaded.set(reloader.status.loaded_ms / 1000)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.wake)
    try:
        async with repeated("reload", reloader.follow, observers.telemetry):
            yield reloader
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        reloader.close()


@asynccontextmanager
async def _serving(base: Base) -> AsyncIterator[Ports]:
    configuration, telemetry = base.configuration, base.observers.telemetry
    settings = configuration().settings
    ledger = ObservedLedger(base.store, telemetry, time.perf_counter)
    fixed = settings.estimate.mode is EstimateMode.FIXED
    usual = UsualAnswer(UsualTokens(settings.estimate.output_tokens, fixed=fixed), UsualTokens(0, fixed=fixed))
    endings = Endings(ledger, telemetry)
    settlement, holds = Settlement(ledger, endings, configuration, usual, telemetry), HoldCodec(ledger.signing_key)
    background = Background(telemetry)
    draining = asyncio.Event()
    surveyor = Surveyor(ledger, configuration, time.monotonic)
    webhook = Webhook(configuration, telemetry, random.random)
    alerts, warnings = Alerts(ledger, configuration, telemetry, webhook.send), Warnings()

    authenticator = Authenticator(TokenVerifier(time.time), base.key_servers, base.lookup)
    check = CheckService(
        authorizer=Authorizer(ledger, usual, authenticator),
        settlement=settlement,
        responses=Responses(holds, warnings),
        snapshot=configuration,
        background=background,
        telemetry=telemetry,
        new_id=_random_ids().__next__,
        clock_s=time.perf_counter,
    )
    pruning = PruningService(configuration, telemetry)
    promises = Promises(ledger, settlement, telemetry, unseal=holds.unseal, decode=holds.decode)
    access_logs = AccessLogs(settlement, promises, holds, telemetry, draining)
    status = StatusReport(
        version=version("extauthz"),
        started_ms=_unix_ms(),
        configuration=configuration,
        reloader=base.reloader,
        ledger=ledger,
        surveyor=surveyor,
        endings=endings,
        observers=base.observers,
        draining=draining.is_set,
    )
    experts = _experts(base, ledger, status, Explainer(ledger, usual, authenticator))
    health_service = health.aio.HealthServicer()
    pages = http.application(ledger, surveyor, base.observers.metrics, ready=lambda: not draining.is_set())
    StatusPage(configuration, status, experts.custody, surveyor.fresh).add_to(pages)

    async with AsyncExitStack() as stack:
        http_port = await stack.enter_async_context(_pages(pages, settings.listen.http))
        admin_port = await stack.enter_async_context(_admin_port(configuration, experts))
        server, grpc_port = new_listener(settings, envoys_door(lambda: configuration().settings, check.answer))
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(check, server)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(pruning, server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(access_logs, server)
        _add_standard_services(server, health_service, SERVICES)
        await server.start()
        await stack.enter_async_context(repeated("endings", endings.catch_up, telemetry))
        await stack.enter_async_context(repeated("access_log", access_logs.catch_up, telemetry))
        stack.push_async_callback(at_most, endings.drained, ENDINGS_GRACE_S)
        await stack.enter_async_context(repeated("webhook", webhook.deliver, telemetry))
        stack.push_async_callback(at_most, webhook.drained, WEBHOOK_GRACE_S)
        stack.push_async_callback(background.drain, STOP_GRACE_S)  # what the last Checks left to be done
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        look = partial(_survey, surveyor, configuration, alerts, warnings, experts.treasury)
        jobs: dict[str, Job] = {
            "expiry": partial(_expire, settlement),
            "promises": promises.look_again,
            "survey": look,
            "audit": experts.inspector.next,
            "jwks": base.key_servers.follow,
        }
        for name, job in jobs.items():
            await stack.enter_async_context(repeated(name, job, telemetry))
        await _tell_serving(health_service, SERVICES)

        yield Ports(grpc_port, admin_port, http_port)

        await health_service.enter_graceful_shutdown()
        draining.set()
        base.observers.feed.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(configuration().settings.drain_seconds):
                await asyncio.sleep(NOTICE_S)
                await access_logs.idle()


def _experts(base: Base, ledger: Ledger, status: StatusReport, explainer: Explainer) -> Experts:
    """Find those who know the answers to what operators ask."""
    telemetry, settings = base.observers.telemetry, base.configuration().settings
    return Experts(
        configuration=base.configuration,
        treasury=Treasury(ledger, base.configuration, lambda: status.surveyor.latest, telemetry, base.lookup),
        custody=Custody(ledger, telemetry),
        inspector=Inspector(ledger, telemetry, interval_s=interval_s(settings.journal_entries_max)),
        books=books_of(base.store),
        explainer=explainer,
        registry=None if base.records is None else new_registry(base.records, base.configuration, telemetry),
        feed=base.observers.feed,
        status=status,
        verbosity=base.verbosity,
        telemetry=telemetry,
        new_id=lambda: uuid.uuid4().hex,
    )


def _add_standard_services(
    server: grpc.aio.Server, health_service: health.aio.HealthServicer, services: Sequence[str]
) -> None:
    """Add what every gRPC port has beside its services."""
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)


async def _tell_serving(health_service: health.aio.HealthServicer, services: Sequence[str]) -> None:
    for service in ("", *services):
        await health_service.set(service, health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def _admin_port(configuration: Configuration, experts: Experts) -> AsyncIterator[int]:
    """Serve operators inside the block, and tell on which port: they can look at a server until it is gone."""
    server, port = new_listener(configuration().settings, operators_door(lambda: configuration().settings))
    health_service = health.aio.HealthServicer()
    directory = DirectoryService(experts.registry, experts.telemetry, new_id=experts.new_id, unix_s=time.time)
    diagnostics_pb2_grpc.add_DiagnosticsServicer_to_server(Diagnostics(experts), server)
    directory_pb2_grpc.add_DirectoryServicer_to_server(directory, server)
    _add_standard_services(server, health_service, ADMIN_SERVICES)
    await server.start()
    try:
        await _tell_serving(health_service, ADMIN_SERVICES)
        yield port
    finally:
        await server.stop(STOP_GRACE_S)


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


async def _expire(settlement: Settlement) -> None:
    """End leases that have run out."""
    await asyncio.sleep(EXPIRY_INTERVAL_S)
    await settlement.expire()


async def _survey(
    surveyor: Surveyor,
    configuration: Callable[[], Snapshot],
    alerts: Alerts,
    warnings: Warnings,
    treasury: Treasury,
) -> None:
    """Look at all budgets when it is time to, and tell who ought to know."""
    survey = await surveyor.next()
    await treasury.prepare()
    await warnings.learn(survey, configuration())
    await alerts.consider(survey)


def _random_ids() -> Iterator[str]:
    while True:
        some = os.urandom(IDS_AT_ONCE * ID_BYTES)
        yield from (some[at : at + ID_BYTES].hex() for at in range(0, len(some), ID_BYTES))


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
