"""SIGTERM: the server tells that it leaves, finishes what it has begun, loses no log entry of Envoy's, and ends."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauthz._proto.envoy.service.accesslog.v3 import als_pb2_grpc
from extauthz._proto.envoy.service.auth.v3 import external_auth_pb2_grpc
from extauthz.domain.reservation import Signal, State
from extauthz.envoy.names import RESERVATION_HEADER
from extauthz.ledger.base import Ending
from extauthz.server import NOTICE_S, SERVICES
from extauthz.telemetry.log import Reporter
from tests.support.envoy import EnvoyProcess, options_for
from tests.support.gate import CONFIG, FREE, KEY, PAID, WIRES, Gate, Wire, a_check, an_ending, gate
from tests.support.processes import LOOPBACK, eventually, free_port
from tests.support.stack import Stack, stack
from tests.support.upstream import ScriptedUpstream

REQUESTS_PER_SECOND = 50
DRAIN_SECONDS = 5
IDLE_STOP_SECONDS_MAX = 2.5
PLAIN = [wire for wire in WIRES if not wire.tls]
CHAT = {"model": PAID, "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@dataclass(slots=True)
class Load:
    """Clients of an Envoy: a new stream every 1/REQUESTS_PER_SECOND, whether the last ones are answered or not.

    `answers` has, for each that is over, when it began (monotonic seconds), its status, and whether it is whole.
    """

    url: str
    answers: list[tuple[float, int, bool]] = field(default_factory=list)
    admitted: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests while the block runs; wait for the last answers at its end."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as requests:
            sender = asyncio.create_task(self._send(session, requests))
            try:
                yield
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, session: aiohttp.ClientSession, requests: asyncio.TaskGroup) -> None:
        while True:
            requests.create_task(self._ask(session))
            await asyncio.sleep(1 / REQUESTS_PER_SECOND)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        async with session.post(
            f"{self.url}/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {KEY}"}
        ) as answer:
            self.admitted += RESERVATION_HEADER in answer.headers
            text = await answer.text()
        self.answers.append((began, answer.status, text.endswith("data: [DONE]\n\n")))


async def written_by(envoy: EnvoyProcess) -> int:
    """Tell how many log entries Envoy has written so far, having made sure that it dropped none."""
    stats = await envoy.admin("/stats?filter=access_logs.grpc_access_log")
    numbers = {name: int(value) for name, value in re.findall(r"grpc_access_log\.(\w+): (\d+)", stats)}

    assert 0 == numbers["logs_dropped"]
    return numbers["logs_written"]


@pytest.mark.envoy
@pytest.mark.parametrize("server", ["native", "grpcio"])
async def test_a_server_under_load_leaves_in_order(server: str) -> None:
    """Told to stop, it is not ready at once, what was begun is answered whole, and it ends in time with status 0."""
    async with stack(f"{CONFIG}  server: {server}\n  drain_seconds: {DRAIN_SECONDS}\n") as house:
        load = Load(house.url)
        async with load.running(), watched(house) as health:
            await eventually(lambda: len(load.answers) >= REQUESTS_PER_SECOND, what="the load runs")
            house.gate.process.terminate()
            told = time.monotonic()
            seen = await not_ready(house, health)
            code = await house.gate.process.wait(DRAIN_SECONDS)
            # Now there is nobody to ask, and this is what clients get.
            await eventually(lambda: any(status == 503 for _, status, _ in load.answers), what="Envoy notices")

        # Clients get the first half of the notice to reach Envoy, and Envoy the second to reach the server.
        noticed = told + NOTICE_S / 2
        assert 0 == code
        assert "NOT_SERVING" == seen
        assert {(200, True)} == {(status, whole) for began, status, whole in load.answers if began < noticed}
        assert {200, 503} == {status for _, status, _ in load.answers}


@asynccontextmanager
async def watched(house: Stack) -> AsyncIterator[asyncio.Queue[str]]:
    """Watch the health of the server inside the block."""
    async with (
        grpc.aio.insecure_channel(f"{LOOPBACK}:{house.gate.grpc_port}") as channel,
        health_words(channel) as words,
    ):
        yield words


@asynccontextmanager
async def health_words(channel: grpc.aio.Channel) -> AsyncIterator[asyncio.Queue[str]]:
    """Watch the health of Authorization inside the block; what it says after SERVING comes as one word a change."""
    words: asyncio.Queue[str] = asyncio.Queue()

    async def watch() -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0])):
            words.put_nowait(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    watching = asyncio.create_task(watch())
    assert "SERVING" == await words.get()
    yield words
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def not_ready(house: Stack, health: asyncio.Queue[str]) -> str:
    """Wait for the next word of health, and for /readyz to say 503 while /healthz stays fine."""
    async with asyncio.timeout(1):
        word = await health.get()
    assert (503, "draining\n") == await house.gate.page("/readyz")
    assert (200, "ok\n") == await house.gate.page("/healthz")
    return word


class Tally(Reporter):
    """Counts the log entries that a server has taken in: each ends a reservation, or has nothing to end."""

    entries: ClassVar[int] = 0

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Count an entry whose reservation is this server's, or whose Check nobody answered."""
        super().ended(how, signal, ending)
        type(self).entries += signal is Signal.ACCESS_LOG

    def hold_rejected(self) -> None:
        """Count an entry with the hold of the server before."""
        super().hold_rejected()
        type(self).entries += 1


def tallying() -> type[Tally]:
    """Give a Tally that has counted nothing yet."""

    class Fresh(Tally):
        entries: ClassVar[int] = 0

    return Fresh


@pytest.mark.envoy
@pytest.mark.parametrize("wire", PLAIN, ids=str)
async def test_no_log_entry_is_lost_over_a_restart(wire: Wire, tmp_path: Path) -> None:
    """Of everything that Envoy wrote while one server was about to leave, and to the next one, each arrived once.

    Not while nobody listens: Envoy throws away what it has then.
    """
    port, tally = free_port(), tallying()
    async with ScriptedUpstream() as upstream, AsyncExitStack() as running:
        options = replace(options_for(upstream.port, port), heartbeat_seconds=60.0)
        running.enter_context(patch("extauthz.observers.Reporter", tally))
        running.enter_context(patch("extauthz.server.NOTICE_S", DRAIN_SECONDS / 2))
        first = await running.enter_async_context(AsyncExitStack())
        await first.enter_async_context(gate(wire, tmp_path / "first", port=port, drain_seconds=DRAIN_SECONDS))
        envoy = await running.enter_async_context(EnvoyProcess(options))
        load = Load(envoy.url)

        async def all_arrived() -> bool:
            return len(load.answers) == tally.entries == await written_by(envoy)

        async def answered(more: int) -> None:
            enough = len(load.answers) + more
            await eventually(lambda: len(load.answers) >= enough, what="the load runs")

        async with load.running():
            await answered(REQUESTS_PER_SECOND)
            leaving = asyncio.create_task(first.aclose())
            await answered(REQUESTS_PER_SECOND)
        await eventually(all_arrived, what=f"{len(load.answers)} entries arrived before the server left")
        left_meanwhile = leaving.done()
        await leaving
        await running.enter_async_context(gate(wire, tmp_path / "second", port=port))
        async with load.running():
            await answered(REQUESTS_PER_SECOND)
        await eventually(all_arrived, what=f"{len(load.answers)} entries arrived")

    assert not left_meanwhile


@pytest.mark.parametrize("wire", PLAIN, ids=str)
async def test_a_log_stream_ends_right_after_a_batch(wire: Wire, tmp_path: Path) -> None:
    """A stream that is open when the server is told to stop is ended in good order, and not before its next batch."""
    async with AsyncExitStack() as running:
        server = await running.enter_async_context(gate(wire, tmp_path, drain_seconds=DRAIN_SECONDS))
        async with server.channel() as client, health_words(client) as health:
            check = external_auth_pb2_grpc.AuthorizationStub(client).Check
            answers = [await check(a_check(PAID)) for _ in range(2)]
            stream = als_pb2_grpc.AccessLogServiceStub(client).StreamAccessLogs()
            await stream.write(an_ending(answers[0], input_tokens=10, output_tokens=20))
            await eventually(partial(open_are, server, 1), what="the first batch is taken in")
            stopping = asyncio.create_task(running.aclose())
            told = await health.get()
            await stream.write(an_ending(answers[1], input_tokens=10, output_tokens=20))
            code = await stream.code()
            left = await server.ledger.open_count()
            await stopping

    assert "NOT_SERVING" == told
    assert grpc.StatusCode.OK == code
    assert 0 == left


async def open_are(server: Gate, count: int) -> bool:
    """Tell whether so many reservations are open."""
    return count == await server.ledger.open_count()


async def code_of(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> grpc.StatusCode:
    """Give the status that a call ends with."""
    code: grpc.StatusCode = await call.code()
    return code


@pytest.mark.parametrize("wire", PLAIN, ids=str)
async def test_a_check_under_way_is_answered(wire: Wire, tmp_path: Path) -> None:
    """A Check that waits for the store still gets its answer when the server already turns others away."""
    async with AsyncExitStack() as running:
        server = await running.enter_async_context(gate(wire, tmp_path, drain_seconds=0))
        async with server.channel() as client:
            server.ledger.answers.clear()
            stub = external_auth_pb2_grpc.AuthorizationStub(client)
            call = stub.Check(a_check(PAID))
            await eventually(server.ledger.open_count, what="the money is held")
            stopping = asyncio.create_task(running.aclose())
            while await code_of(stub.Check(a_check(FREE))) is grpc.StatusCode.OK:
                pass
            server.ledger.answers.set()
            answer = await call
            await stopping

    assert 0 == answer.status.code


@pytest.mark.envoy
@pytest.mark.parametrize("server", ["native", "grpcio"])
async def test_an_idle_server_stops_soon(server: str) -> None:
    """With an Envoy connected that has nothing to log, the server is gone within about two seconds."""
    async with stack(f"{CONFIG}  server: {server}\n") as house:
        async with house.openai(KEY) as client:
            await client.chat.completions.create(model=PAID, messages=[{"role": "user", "content": "hi"}])
        await house.settled()

        told = time.monotonic()
        house.gate.process.terminate()
        await house.gate.process.wait_for_line('"stopped"')
        took = time.monotonic() - told

        assert took < IDLE_STOP_SECONDS_MAX
        assert 0 == await house.gate.process.wait()
