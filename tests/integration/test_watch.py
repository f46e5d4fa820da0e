"""Decisions as operators watch them: live, filtered, bounded, and over when either side goes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz._proto.extauthz.diagnostics.v1.diagnostics_pb2_grpc import DiagnosticsStub
from extauthz.telemetry.decisions import SUBSCRIPTIONS_MAX
from tests.support.explained import House, a_house
from tests.support.processes import LOOPBACK, eventually
from tests.support.recorded import CHAT, asked, chat, models
from tests.support.relay import Relay

SERVERS = pytest.mark.parametrize("server", ["native", "grpcio"])
SECONDS_MAX = 20.0


async def watchers_are(house: House, number: int) -> None:
    """Wait until so many watch."""

    async def counted() -> bool:
        return await house.watchers() == number

    await eventually(counted, what=f"{number} watch")


@SERVERS
async def test_a_watcher_sees_what_is_decided(server: str, tmp_path: Path) -> None:
    """Each decision comes as it is made, with who pays and what was held, and no key, no query and no prompt in it."""
    async with a_house(tmp_path, "blocked", more=f"  server: {server}\n") as house:
        await house.fill()
        async with house.watching() as decisions:
            admitted = await house.check(chat("sk-ana", path=f"{CHAT}?secret=1"))
            await house.check(asked("DELETE", "/v1/models", "sk-nobody"))
            allowed, denied = await anext(decisions), await anext(decisions)

    assert admitted is not None
    told = {each.header.key: each.header.value for each in admitted.ok_response.response_headers_to_add}
    assert ("POST", CHAT, "inference", "ana-laptop", "gpt-4o", 0) == (
        allowed.method,
        allowed.path,
        allowed.route_class,
        allowed.principal,
        allowed.model,
        allowed.missed,
    )
    assert told["x-extauthz-reservation"] == allowed.public_id
    assert "team:research" in allowed.scopes
    assert allowed.estimate.cost_usd > 0
    assert ("DELETE", "deny", "unauthenticated", 401) == (
        denied.method,
        denied.decision.decision,
        denied.decision.reason,
        denied.decision.status,
    )
    for leak in ("sk-", "secret", "budget?"):
        assert leak not in str((allowed, denied))


ADMITTED, BROKE, LISTED = ("ana-laptop", "within_budget"), ("", "budget_exceeded"), ("ana-laptop", "discovery")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [ADMITTED, BROKE, LISTED]),
        ({"decisions": ["deny"]}, [BROKE]),
        ({"reasons": ["within_budget", "discovery"]}, [ADMITTED, LISTED]),
        ({"scope": "team:research"}, [ADMITTED, LISTED]),
        ({"model": "gpt-4o", "sample": 1.0}, [ADMITTED, BROKE]),
    ],
)
async def test_a_watcher_gets_what_it_wants(
    wanted: dict[str, Any], expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Decisions, reasons, a scope and a model narrow the stream down."""
    async with a_house(tmp_path, "blocked") as house, house.watching(**wanted) as decisions:
        for request in (chat("sk-ana"), chat("sk-broke"), models("sk-ana")):
            await house.check(request)
        got = [await anext(decisions) for _ in expected]

    assert expected == [
        (each.principal if each.principal == "ana-laptop" else "", each.decision.reason) for each in got
    ]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"decisions": ["allowed"]}, "allow, deny, defer, shadow_deny"),
        ({"reasons": ["money"]}, "within_budget"),
        ({"scope": "research"}, "team:research"),
        ({"sample": 2.0}, "from 0 to 1"),
        ({"sample": float("nan")}, "from 0 to 1"),
    ],
)
async def test_what_nobody_can_want(wanted: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A filter that nothing could ever pass is refused, and the refusal says what there is."""
    async with a_house(tmp_path, "blocked") as house:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(house.diagnostics.WatchDecisions(messages.WatchDecisionsRequest(**wanted))))

    assert grpc.StatusCode.INVALID_ARGUMENT is refused.value.code()
    assert said in (refused.value.details() or "")


@SERVERS
async def test_watchers_are_bounded(server: str, tmp_path: Path) -> None:
    """One watcher too many is refused; those that go, while nothing is decided, make room."""
    async with a_house(tmp_path, "blocked", more=f"  server: {server}\n") as house:
        async with AsyncExitStack() as watching:
            for _ in range(SUBSCRIPTIONS_MAX):
                await watching.enter_async_context(house.watching())
            await watchers_are(house, SUBSCRIPTIONS_MAX)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(aiter(house.diagnostics.WatchDecisions(messages.WatchDecisionsRequest())))
        await watchers_are(house, 0)
        async with house.watching() as decisions:
            await house.check(chat("sk-ana"))
            assert "allow" == (await anext(decisions)).decision.decision

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is refused.value.code()
    assert "end one of them" in (refused.value.details() or "")


@SERVERS
async def test_a_client_that_vanishes(server: str, tmp_path: Path) -> None:
    """A watcher whose connection breaks, without a word about the stream, is gone as well."""
    async with (
        a_house(tmp_path, "blocked", more=f"  server: {server}\n") as house,
        house.watching(),
        Relay(house.admin_port) as relay,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{relay.port}") as channel,
    ):
        call = DiagnosticsStub(channel).WatchDecisions(messages.WatchDecisionsRequest())
        await call.initial_metadata()
        await watchers_are(house, 2)
        relay.cut()
        await watchers_are(house, 1)
        call.cancel()


@SERVERS
async def test_a_server_that_stops_ends_the_stream(server: str, tmp_path: Path) -> None:
    """A watcher gets what was decided to the last, and then the end of the stream, with status OK."""
    async with AsyncExitStack() as clients:
        async with a_house(tmp_path, "blocked", more=f"  server: {server}\n") as house:
            channel = await clients.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{house.admin_port}"))
            call = DiagnosticsStub(channel).WatchDecisions(messages.WatchDecisionsRequest())
            await call.initial_metadata()
            await house.check(chat("sk-ana"))
            reading = asyncio.create_task(read_to_the_end(call))
        async with asyncio.timeout(SECONDS_MAX):
            assert ["allow"] == await reading
            assert grpc.StatusCode.OK is await call.code()


async def read_to_the_end(call: Any) -> list[str]:  # noqa: ANN401 - generated stubs have no types
    """Read what is decided until nothing more comes."""
    return [decided.decision.decision async for decided in call]
