"""A port that answers calls as they come: what becomes of each answer, and of calls that are given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import grpc.aio
import pytest
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extauthz.adapters.front import FAILED, FrontServer
from extauthz.adapters.proof import Proof
from tests.support.processes import LOOPBACK, eventually

ECHO = "/tests.Echo/Say"
UNABLE = "not today"
BYTES_MAX = 1_000
SECONDS_MAX = 10.0


class Echo:
    """Answers as a message says: `now`, `later`, `never`, `none`, or by a failure. Counts the calls under way."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go_on = asyncio.Event()

    def answer(self, message: bytes, remaining_s: float | None) -> bytes | Callable[[], Awaitable[bytes | None]]:
        """Answer a message."""
        match message:
            case b"unreadable":
                raise DecodeError
            case b"broken":
                raise RuntimeError("a secret")
            case b"patience":
                return str(remaining_s).encode()
            case b"later" | b"none" | b"broken later" | b"never":
                return lambda: self._later(message)
            case _:
                return message

    async def _later(self, message: bytes) -> bytes | None:
        self.waiting += 1
        try:
            await self.go_on.wait()
        finally:
            self.waiting -= 1
        if message == b"broken later":
            raise RuntimeError("a secret")
        return None if message == b"none" else message


@asynccontextmanager
async def serving(echo: Echo, proof: Proof | None = None) -> AsyncIterator[tuple[FrontServer, grpc.aio.Channel]]:
    """Serve it, with health behind it."""
    server = FrontServer(
        grpc.aio.server(), {ECHO: echo.answer}, proof=lambda: proof, message_bytes_max=BYTES_MAX, unable=UNABLE
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
            yield server, channel
    finally:
        await server.stop(None)


def say(
    channel: grpc.aio.Channel,
    message: bytes,
    *metadata: tuple[str, str],
    method: str = ECHO,
    seconds: float | None = SECONDS_MAX,
) -> Awaitable[bytes]:
    """Call it."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return call(message, timeout=seconds, metadata=metadata)


async def failure_of(call: Awaitable[bytes]) -> tuple[grpc.StatusCode, str | None]:
    """Give the status and the words that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code(), failure.value.details()


async def test_answers_come_at_once_or_later() -> None:
    """What a method gives is the answer, whether it is there at once or takes its time; nobody waits for others."""
    echo = Echo()
    async with serving(echo) as (_, channel):
        later = asyncio.ensure_future(say(channel, b"later"))

        assert await say(channel, b"now") == b"now"
        assert await say(channel, b"") == b""
        echo.go_on.set()
        assert await later == b"later"


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"none", grpc.StatusCode.UNAVAILABLE, UNABLE),
        (b"unreadable", grpc.StatusCode.INTERNAL, "the message cannot be read"),
        (b"broken", grpc.StatusCode.UNKNOWN, FAILED),
        (b"broken later", grpc.StatusCode.UNKNOWN, FAILED),
        (b"x" * (BYTES_MAX + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, f"a message has at most {BYTES_MAX} bytes"),
    ],
    ids=lambda value: value.decode()[:20] if isinstance(value, bytes) else None,
)
async def test_failures_are_told_without_what_went_wrong(message: bytes, code: grpc.StatusCode, words: str) -> None:
    """A call that cannot be answered fails at once, in words that say nothing of what it was about."""
    echo = Echo()
    echo.go_on.set()
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with serving(echo) as (_, channel):
        assert (code, words) == await failure_of(say(channel, message))
        assert await say(channel, b"now") == b"now"

    assert [type(error) for error in told] in ([], [RuntimeError])
    assert bool(told) == (code is grpc.StatusCode.UNKNOWN)


async def test_callers_prove_themselves() -> None:
    """Without the secret no method hears of a call; with it, it does."""
    async with serving(Echo(), Proof("x-token", b"secret", "send the token")) as (_, channel):
        refused = (grpc.StatusCode.UNAUTHENTICATED, "send the token")

        assert refused == await failure_of(say(channel, b"now"))
        assert refused == await failure_of(say(channel, b"now", ("x-token", "other")))
        assert await say(channel, b"now", ("x-token", "secret")) == b"now"


async def test_a_method_knows_how_long_its_caller_waits() -> None:
    """The caller's deadline comes along; without one there is none."""
    async with serving(Echo()) as (_, channel):
        assert await say(channel, b"patience", seconds=None) == b"None"
        assert 0 < float(await say(channel, b"patience")) < SECONDS_MAX + 1  # grpcio gives some time for the way


async def test_a_call_that_is_given_up_is_cancelled() -> None:
    """Whoever leaves is waited for no longer, whether it leaves early or runs out of patience."""
    echo = Echo()
    async with serving(echo) as (server, channel):
        given_up = asyncio.ensure_future(say(channel, b"never"))
        await eventually(lambda: echo.waiting == 1, what="the call is under way")
        given_up.cancel()
        await eventually(lambda: echo.waiting == 0 and not server._calls, what="it is cancelled")

        code, _ = await failure_of(say(channel, b"never", seconds=0.05))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: echo.waiting == 0 and not server._calls, what="it is cancelled")


async def test_calls_under_way_are_finished_within_the_grace() -> None:
    """A server that stops lets calls finish, takes no others, and gives up what takes longer than its grace."""
    echo = Echo()
    async with serving(echo) as (server, channel):
        finished = asyncio.ensure_future(say(channel, b"later"))
        await eventually(lambda: echo.waiting == 1, what="the call is under way")
        stopping = asyncio.ensure_future(server.stop(SECONDS_MAX))
        await asyncio.sleep(0)

        assert (await failure_of(say(channel, b"now")))[0] is grpc.StatusCode.UNAVAILABLE
        assert await server.wait_for_termination(0.01)
        echo.go_on.set()
        assert await finished == b"later"
        await stopping
        assert not await server.wait_for_termination(SECONDS_MAX)

    async with serving(Echo()) as (server, channel):
        given_up = asyncio.ensure_future(say(channel, b"never"))
        await eventually(lambda: bool(server._calls), what="the call is under way")
        await server.stop(0.01)
        with pytest.raises(grpc.aio.AioRpcError):
            await given_up


async def test_the_last_answers_are_written_before_the_end() -> None:
    """What is answered when a server that stops was waiting for nothing else arrives, on each of many connections."""
    echo = Echo()
    connections, calls = 20, 10
    async with serving(echo) as (server, _), AsyncExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server._target, options=own))
            for _ in range(connections)
        ]
        answers = [asyncio.ensure_future(say(channel, b"later")) for channel in channels for _ in range(calls)]
        await eventually(lambda: echo.waiting == connections * calls, what="the calls are under way")
        stopping = asyncio.ensure_future(server.stop(SECONDS_MAX))
        await asyncio.sleep(0)
        echo.go_on.set()

        assert await asyncio.gather(*answers) == [b"later"] * (connections * calls)
        await stopping


async def test_other_methods_are_answered_behind() -> None:
    """What is not answered directly goes to the server behind, what nobody answers too."""
    async with serving(Echo()) as (_, channel):
        answer = await say(channel, b"", method="/grpc.health.v1.Health/Check")

        assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING
        code, _ = await failure_of(say(channel, b"", method="/tests.Echo/Sing"))
        assert code is grpc.StatusCode.UNIMPLEMENTED
