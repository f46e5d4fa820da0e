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
from tests.support.tempest_faults import Fault, Scene, alone, kill_redis

ROUNDS, HURRIES = 8, 2
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
            audit = await audited(server)
            tempest.wrong += [f"an audit under way: {drift}" for drift in audit.drifts]


async def audited(server: Any) -> pb.AuditResponse:  # noqa: ANN401 - generated stubs have no types
    """Audit the books. A store that a busy machine kept from answering in time is asked again, as the answer says."""

    async def audit() -> pb.AuditResponse | None:
        try:
            found: pb.AuditResponse = await server.Audit(pb.AuditRequest())
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return None
        return found

    found = await eventually(audit, what="an audit")
    assert found is not None
    return found


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
    """Replace the files of all servers: other limits, a key taken away, nonsense, and then all that in a hurry."""
    home = tempest.home
    usual = configuration(home.store, lease_seconds=home.lease_seconds)
    files = {
        usual.replace("max_budget: 1000", "max_budget: 900"): "loaded",
        usual.replace("    - {key: sk-bob, team: blue, max_budget: 1000}\n", ""): "loaded",
        usual.replace("max_budget: 1000", "max_budget: a lot"): "refused",
        usual.replace("max_budget: 1000", "max_budget: 800"): "loaded",
    }
    assert usual not in files
    for text, result in files.items():
        before = [await reloads(gate, result) for gate in home.gates]
        replaced(home, text)
        await tempest.more(4)
        for gate, count in zip(home.gates, before, strict=True):
            await eventually(partial(more_reloads, gate, result, count), what=f"each server says of a file: {result}")
    for text in HURRIES * tuple(files):
        replaced(home, text)
        await tempest.more(4)
    replaced(home, usual)
    for gate in home.gates:
        await eventually(partial(has_again, gate, usual), what="each server has the first file again")


def replaced(home: House, text: str) -> None:
    """Put another configuration into the place of every server's."""
    for gate in home.gates:
        new = gate.config.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.rename(gate.config)


async def reloads(gate: GateProcess, result: str) -> float:
    """Count the reloads of a server that came to something."""
    return (await gate.metrics()).value("extauthz_config_reloads_total", result)


async def more_reloads(gate: GateProcess, result: str, before: float) -> bool:
    """Tell whether there were more."""
    return await reloads(gate, result) > before


async def has_again(gate: GateProcess, text: str) -> bool:
    """Tell whether a server goes by a file, and finds nothing wrong."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.admin_port}") as channel:
        stub: Any = DiagnosticsStub(channel)
        answer = await stub.GetConfig(pb.GetConfigRequest(), timeout=CALL_SECONDS_MAX)
    failed = (await gate.metrics()).value("extauthz_config_reload_failed")
    return not failed and all(
        answer.yaml.count(part) == text.count(part) for part in ("max_budget: 1000", "team: blue")
    )


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
    Fault("kill -9 of Redis, shadow mode", kill_redis, alone, rules="shadow_mode: true"),
    Fault("configurations reloaded", reload, alone),
)
