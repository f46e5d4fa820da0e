"""What operators do in the middle of traffic: on a house (tempest.py), while calls go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz._proto.extauthz.diagnostics.v1.diagnostics_pb2_grpc import DiagnosticsStub
from tests.support import storm
from tests.support.processes import LOOPBACK, eventually
from tests.support.stack import GateProcess
from tests.support.tempest import House, configuration
from tests.support.tempest_calls import Tempest
from tests.support.tempest_faults import Fault, Scene, alone

ROUNDS, RELOADS = 8, 12
CALL_SECONDS_MAX = 10.0

# Budgets of the house that bind everybody whose requests are sent.
SCOPES = ("global", "team:red", "team:blue")


async def change_by_hand(tempest: Tempest, _: Scene) -> None:
    """Release what is in flight, reset, grant, and take all money away and give it back; audit all the while."""
    async with offices(tempest.home) as servers:
        for number in range(ROUNDS):
            server = servers[number % len(servers)]
            await release_some(tempest, server)
            await server.ResetBudget(pb.ResetBudgetRequest(scope=tempest.chance.choice(SCOPES)))
            await server.GrantBudget(pb.GrantBudgetRequest(scope=tempest.chance.choice(SCOPES), amount_usd=1))
            spent = pb.SetLimitRequest(scope=tempest.chance.choice(SCOPES), limit_usd=0)
            await server.SetLimit(spent)
            await tempest.more(5)
            await server.SetLimit(pb.SetLimitRequest(scope=spent.scope))
            await tempest.more(5)
            audit = await server.Audit(pb.AuditRequest())
            tempest.wrong += [f"an audit under way: {drift}" for drift in audit.drifts]


async def release_some(tempest: Tempest, server: Any) -> None:  # noqa: ANN401 - generated stubs have no types
    """End some of the open reservations, half of them, by hand."""
    listed = await server.ListReservations(pb.ListReservationsRequest(limit=1000))
    for reservation in listed.reservations[:: tempest.chance.choice((2, 3))]:
        with suppress(grpc.aio.AioRpcError):  # it has just ended
            await server.ReleaseReservation(pb.ReleaseReservationRequest(id=reservation.id))


async def take_all_money_away(tempest: Tempest, _: Scene) -> None:
    """Take all money away where nobody is to be refused: requests are served, booked, and counted as refusals."""
    async with offices(tempest.home) as servers:
        for scope in SCOPES:
            await servers[0].SetLimit(pb.SetLimitRequest(scope=scope, limit_usd=0))
        job = tempest.next(storm.ANSWERED)
        await tempest.send(job)
        assert (200, True) == (tempest.seen[job.number].status, tempest.seen[job.number].whole)
        for gate in tempest.home.gates:
            await eventually(partial(would_refuse, gate), what="each server would refuse requests")
        await tempest.more(30)
        for scope in SCOPES:
            await servers[0].SetLimit(pb.SetLimitRequest(scope=scope))


async def would_refuse(gate: GateProcess) -> bool:
    """Tell whether a server has let through what a budget refuses."""
    metrics = await gate.metrics()
    return metrics.value("extauthz_checks_total", "shadow_deny", "budget_exceeded", "inference") > 0


async def reload(tempest: Tempest, _: Scene) -> None:
    """Replace the files of all servers again and again: other limits, a key taken away, and now and then nonsense."""
    home = tempest.home
    usual = configuration(home.store, lease_seconds=home.lease_seconds)
    files = (
        usual.replace("max_budget: 1000", "max_budget: 900"),
        usual.replace("    - {key: sk-bob, team: blue, max_budget: 1000}\n", ""),
        usual.replace("max_budget: 1000", "max_budget: a lot"),
    )
    assert len({usual, *files}) == 1 + len(files)
    for number in range(RELOADS):
        replaced(home, files[number % len(files)])
        await tempest.more(4)
    replaced(home, usual)
    for gate in home.gates:
        await eventually(partial(as_at_first, gate), what="each server has the last file")


def replaced(home: House, text: str) -> None:
    """Put another configuration into the place of every server's."""
    for gate in home.gates:
        new = gate.config.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.rename(gate.config)


async def as_at_first(gate: GateProcess) -> bool:
    """Tell whether a server has loaded several files, refused one, and has a good one now."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.admin_port}") as channel:
        stub: Any = DiagnosticsStub(channel)
        answer = await stub.GetConfig(pb.GetConfigRequest(), timeout=CALL_SECONDS_MAX)
    metrics = await gate.metrics()
    results = [metrics.value("extauthz_config_reloads_total", result) for result in ("loaded", "refused")]
    failed = metrics.value("extauthz_config_reload_failed")
    return answer.yaml.count("team: blue") == 1 and "max_budget: 900" not in answer.yaml and all(results) and not failed


@asynccontextmanager
async def offices(home: House) -> AsyncIterator[list[Any]]:
    """Connect with the admin port of every server."""
    async with AsyncExitStack() as stack:
        yield [
            DiagnosticsStub(await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.admin_port}")))
            for gate in home.gates
        ]


OPERATIONS = (
    Fault("operators at work", change_by_hand, alone),
    Fault("no money, shadow mode", take_all_money_away, alone, rules="shadow_mode: true"),
    Fault("configurations reloaded", reload, alone),
)
