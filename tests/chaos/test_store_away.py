"""Redis is gone while requests go on: what needs no money goes on as well, and nothing that was under way is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import aiohttp
import grpc.aio
import pytest

from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz.envoy.bootstrap import BootstrapOptions
from tests.support import storm
from tests.support.envoy import NEWEST_ENVOY
from tests.support.processes import LOOPBACK, eventually
from tests.support.redis import RedisServer
from tests.support.relay import Relay
from tests.support.stack import GateProcess, Metrics
from tests.support.tempest import House, Store, configuration, house
from tests.support.tempest_books import Books
from tests.support.tempest_calls import MIX, OPEN, Tempest
from tests.support.tempest_faults import OWN_COST, admitted, log, own_ending
from tests.support.tempest_faults import forged as forging
from tests.support.upstream import USAGE

pytestmark = [pytest.mark.envoy, pytest.mark.redis, pytest.mark.chaos]

CALLS_PER_SECOND = 80
LONG_OUTAGE_SECONDS, OUTAGE_SECONDS = 10.0, 2.0
OPEN_STREAMS = 10
# A server tries every 0.3 seconds at most; the rest is for a busy machine.
RECOVERY_SECONDS = 2.0
SETTLE_SECONDS = 10.0
COST = storm.cost(USAGE)

# A Check that is refused takes milliseconds; a busy machine may let it wait for its turn.
DENIAL_SECONDS_P99_MAX = 0.05
CHECK_SECONDS = "extauthz_check_duration_seconds"
BUCKETS = ("0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got, and when: monotonic seconds."""

    number: int
    kind: str
    began: float
    ended: float
    status: int
    text: str

    @property
    def counter(self) -> str:
        """Where its cost stands: each call has an end user of its own."""
        return f"end_user:p{self.number}|lifetime"


class Load:
    """Calls at a steady pace: of four, two cost money, one asks for a free model, and one for the list of models."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.answers: list[Answer] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Call while the block runs; wait for the last answers at its end."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as calls:
            sender = calls.create_task(self._send(session, calls))
            try:
                yield
            finally:
                sender.cancel()

    def of(self, kind: str, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """Give the answers to one kind of call, of those calls that began and ended within a time."""
        return [each for each in self.answers if each.kind == kind and since <= each.began and each.ended <= until]

    async def _send(self, session: aiohttp.ClientSession, calls: asyncio.TaskGroup) -> None:
        for number in range(100_000):
            calls.create_task(self._call(session, number))
            await asyncio.sleep(1 / CALLS_PER_SECOND)

    async def _call(self, session: aiohttp.ClientSession, number: int) -> None:
        kind = ("paid", "free", "paid", "models")[number % 4]
        headers = {"authorization": "Bearer sk-bob", "x-end-user": f"p{number}", "x-call": str(100_000 + number)}
        model = "gpt-4o" if kind == "paid" else "local-llama"
        chat = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        began = time.monotonic()
        if kind == "models":
            call = session.get(f"{self.home.envoy.url}/v1/models", headers=headers)
        else:
            call = session.post(f"{self.home.envoy.url}/v1/chat/completions", headers=headers, json=chat)
        async with call as answer:
            text = await answer.text()
        self.answers.append(Answer(number, kind, began, time.monotonic(), answer.status, text))


@dataclass(frozen=True, slots=True)
class Outage:
    """What happened: the times of Redis' going and coming, the calls, and the books at the end."""

    load: Load
    tempest: Tempest
    gone: float
    back: float
    before: Sequence[Metrics]
    after: Sequence[Metrics]
    timeouts: int
    books: Books

    def during(self, kind: str) -> list[Answer]:
        """Give the answers to calls that began and ended while Redis was gone."""
        return self.load.of(kind, self.gone, self.back)

    @property
    def recovery_seconds(self) -> float:
        """Tell how long after Redis answered again the last paid call began that was not served."""
        refused = [each.began for each in self.load.of("paid") if each.status != 200 and each.began > self.back]
        return max(refused, default=self.back) - self.back

    def not_booked(self) -> list[Answer]:
        """List served calls that cost something else than they should, and refused ones that cost anything."""
        return [
            each
            for each in self.load.of("paid")
            if self.books.spent.get(each.counter, 0) != (COST if each.status == 200 else 0)
        ]

    def quantile(self, share: float) -> str:
        """Tell within how many seconds this share of all Checks was answered while Redis was gone, by the servers."""

        def count(bucket: str) -> float:
            name = f"{CHECK_SECONDS}_bucket"
            return sum(metrics.value(name, bucket) for metrics in self.after) - sum(
                metrics.value(name, bucket) for metrics in self.before
            )

        return next(bucket for bucket in (*BUCKETS, "1.0", "+Inf") if count(bucket) >= share * count("+Inf"))


async def outage(home: House, redis: RedisServer, seconds: float) -> Outage:
    """Take Redis away for so long, under load; streams that were open before end in the middle of it."""
    load, tempest = Load(home), Tempest(home, MIX, random.Random(1))
    jobs = [tempest.next(OPEN) for _ in range(OPEN_STREAMS)]
    async with load.running(), asyncio.TaskGroup() as streams:
        for job in jobs:
            streams.create_task(tempest.send(job))
        await eventually(lambda: all(tempest.reached(job.number) for job in jobs), what="streams are open")
        await eventually(lambda: len(load.of("paid")) >= CALLS_PER_SECOND / 2, what="calls are answered")
        await redis.kill()
        gone = time.monotonic()
        before = await asyncio.gather(*(gate.metrics() for gate in home.gates))
        await asyncio.sleep(seconds / 2)
        home.upstream.gate.set()
        await asyncio.sleep(seconds / 2)
        after = await asyncio.gather(*(gate.metrics() for gate in home.gates))
        await redis.restart()
        back = time.monotonic()
        await eventually(lambda: load.of("paid", back + RECOVERY_SECONDS), what="calls are made after the recovery")
    timeouts = await home.envoy.count("cluster.extauthz.upstream_rq_timeout")
    books = await home.empty(home.lease_seconds + SETTLE_SECONDS)
    return Outage(load, tempest, gone, back, before, after, timeouts, books)


async def test_ten_seconds_without_redis() -> None:
    """Paid calls are refused at once, all others are served, and in a second everything is as if nothing had been."""
    async with RedisServer() as redis, house(Store.on(redis), NEWEST_ENVOY) as home:
        seen = await outage(home, redis, LONG_OUTAGE_SECONDS)
        waiting = [metrics.value("extauthz_endings_waiting") for metrics in seen.after]

    denials = seen.during("paid")
    slowest = max(each.ended - each.began for each in denials)
    print(  # noqa: T201 - the figures behind the bounds
        f"{len(denials)} denials: p50 {seen.quantile(0.5)} s, p99 {seen.quantile(0.99)} s, all {seen.quantile(1)} s at "
        f"the servers, {slowest * 1000:.1f} ms at most at the client; "
        f"back after {seen.recovery_seconds * 1000:.0f} ms; {waiting} endings waited"
    )
    assert len(denials) > CALLS_PER_SECOND
    assert {503: len(denials)} == Counter(each.status for each in denials)
    assert {True} == {"cannot be checked" in each.text for each in denials}  # Envoy's own 503 has no body
    assert 0 == seen.timeouts
    assert float(seen.quantile(0.99)) <= DENIAL_SECONDS_P99_MAX
    assert {200} == {each.status for kind in ("free", "models") for each in seen.load.of(kind)}
    assert seen.recovery_seconds <= RECOVERY_SECONDS
    assert OPEN_STREAMS <= sum(waiting)
    assert_nothing_lost(seen)


async def test_the_store_is_away_and_everybody_is_allowed() -> None:
    """What is served meanwhile is booked when the store is back."""
    async with RedisServer() as redis, house(Store.on(redis), NEWEST_ENVOY, rules="store_failure: allow") as home:
        seen = await outage(home, redis, OUTAGE_SECONDS)

    assert len(seen.during("paid")) > CALLS_PER_SECOND / 2
    assert {200} == {each.status for each in seen.load.answers}
    assert_nothing_lost(seen)


@pytest.mark.parametrize("allow", [True, False], ids=["Envoy allows", "Envoy denies"])
async def test_the_store_is_away_and_envoy_decides(allow: bool) -> None:  # noqa: FBT001
    """Envoy serves what nobody holds money for, and nobody books it; or it refuses in its own way."""

    def options(chosen: BootstrapOptions) -> BootstrapOptions:
        return replace(chosen, failure_mode_allow=allow)

    async with (
        RedisServer() as redis,
        house(Store.on(redis), NEWEST_ENVOY, rules="store_failure: defer", options=options, replicas=1) as home,
    ):
        seen = await outage(home, redis, OUTAGE_SECONDS)

    meanwhile = seen.during("paid")
    assert {(200 if allow else 503): len(meanwhile)} == Counter(each.status for each in meanwhile)
    assert [] == [each for each in meanwhile if each.counter in seen.books.spent or (not allow and each.text)]
    assert {200} == {each.status for kind in ("free", "models") for each in seen.load.of(kind)}
    assert seen.recovery_seconds <= RECOVERY_SECONDS or allow
    assert [] == seen.books.mistakes()
    assert [] == seen.tempest.tally(seen.books).lost


async def test_servers_start_while_redis_is_away() -> None:
    """They serve what needs no money, are ready, and serve the rest as soon as Redis is there."""
    async with RedisServer() as redis:
        await redis.kill()
        async with house(Store.on(redis), NEWEST_ENVOY) as home:
            load = Load(home)
            async with load.running():
                await eventually(lambda: len(load.of("paid")) >= CALLS_PER_SECOND, what="calls are answered")
                ready = [await gate.page("/readyz") for gate in home.gates]
                gone = list(load.answers)
                await redis.restart()
                back = time.monotonic()
                await eventually(lambda: load.of("paid", back + RECOVERY_SECONDS), what="calls are made later")
            books = await home.empty(home.lease_seconds + SETTLE_SECONDS)

    assert {200} == {status for status, _ in ready}
    assert {("paid", 503), ("free", 200), ("models", 200)} == {(each.kind, each.status) for each in gone}
    assert {200} == {each.status for each in load.of("paid", back + RECOVERY_SECONDS)}
    assert {200} == {each.status for kind in ("free", "models") for each in load.of(kind)}
    assert [] == books.mistakes()
    served = [each for each in load.of("paid") if each.status == 200]
    assert dict.fromkeys((each.counter for each in served), COST) == {
        counter: amount for counter, amount in books.spent.items() if counter.startswith("end_user:")
    }


async def test_an_end_comes_to_a_server_before_its_store_does() -> None:
    """It cannot tell yet whether the hold is forged: it waits until it can, and books what is not."""
    async with RedisServer() as redis, Relay() as relay:
        relay.cut()
        away = replace(Store.on(redis), url=f"redis://{LOOPBACK}:{relay.port}")
        async with (
            GateProcess(configuration(Store.on(redis))) as first,
            GateProcess(configuration(away)) as second,
            grpc.aio.insecure_channel(f"{LOOPBACK}:{first.grpc_port}") as there,
            grpc.aio.insecure_channel(f"{LOOPBACK}:{second.grpc_port}") as here,
        ):
            held, forged = await admitted(there, "held"), await admitted(there, "forged")
            await log(here, own_ending(held), own_ending(forging(forged, -1)))
            relay.target = redis.port
            relay.mend()

            async def booked() -> Books | None:
                books = await Store.on(redis).books()
                return books if "end_user:held|lifetime" in books.spent else None

            books = await eventually(booked, RECOVERY_SECONDS, "the end is booked")
            rejected = (await second.metrics()).value("extauthz_holds_rejected_total")

    assert books is not None
    assert (OWN_COST, 1) == (books.spent["end_user:held|lifetime"], rejected)
    assert [] == books.mistakes()
    assert "end_user:forged|lifetime" not in books.spent


async def test_a_server_that_stops_ends_a_log_stream_before_its_slow_store_answers() -> None:
    """Envoy's next batch comes after a tenth of a second, and would be lost with a stream that ends only later."""
    async with RedisServer() as redis, Relay(redis.port) as relay:
        slow = replace(Store.on(redis), url=f"redis://{LOOPBACK}:{relay.port}")
        async with GateProcess(configuration(slow, rules="store_timeout_seconds: 10")) as gate:
            async with grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.grpc_port}") as channel:
                held = await admitted(channel, "held")
                stream = AccessLogServiceStub(channel).StreamAccessLogs(timeout=SETTLE_SECONDS)
                await stream.write(StreamAccessLogsMessage())
                relay.hold_back()
                gate.process.terminate()
                await eventually(partial(leaving, gate), what="the server is about to stop")
                await stream.write(own_ending(held))
                await stream  # nobody has heard of the store yet
            relay.mend()
            assert 0 == await gate.process.wait()
        books = await Store.on(redis).books()

    assert OWN_COST == books.spent["end_user:held|lifetime"]
    assert ({}, []) == (books.open, books.mistakes())


async def leaving(gate: GateProcess) -> bool:
    """Tell whether a server has begun to stop."""
    return (await gate.page("/readyz"))[0] == 503


def assert_nothing_lost(seen: Outage) -> None:
    """Every call is booked to the last nano-USD, those included that were under way when Redis went."""
    tally = seen.tempest.tally(seen.books)
    assert [] == tally.wrong
    assert ([], OPEN_STREAMS) == (tally.lost, tally.exact)
    assert [] == seen.not_booked()
