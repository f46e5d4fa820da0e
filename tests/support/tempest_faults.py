"""What can break in a house (tempest.py), one thing at a time, while calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import grpc.aio

from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.domain.prices import Usage
from extauthz.envoy.bootstrap import SERVER_CLUSTER, Document
from tests.support import storm
from tests.support.gate import a_check, an_ending
from tests.support.processes import LOOPBACK, eventually
from tests.support.recorder import Recorder
from tests.support.redis import RedisServer
from tests.support.redis_proxy import DroppingProxy
from tests.support.redis_sentinel import Sentinels
from tests.support.relay import Relay
from tests.support.tempest import LEASE_SECONDS, Edit, House, Store, point_at
from tests.support.tempest_calls import LEFT_AT_ONCE, MIX, MIX_OF_LEAVERS, OPEN, Mix, Tempest, counter_of

# Streams that are open while Redis stands still; clients that leave at once; calls of our own at each server.
OPEN_STREAMS = 5
LEAVING = 20
OWN_CALLS = 5
REPLIES_LOST_MAX, SETTLES_UNANSWERED = 300, 5
OWN_USAGE = Usage(40, 10)
OWN_COST = storm.cost(OWN_USAGE)

CALL_SECONDS_MAX = 10.0
# Envoy hands its log on after a tenth of this.
LOG_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens: the store, what else it needs, and what Envoy does differently."""

    store: Store
    tool: Any = None
    edit: Edit = lambda document: document


Strike = Callable[[Tempest, Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks, or is done in the middle of traffic.

    `loses` says that signals of ends may be lost by it: the design promises no more. `rules` is a line of the
    configuration.
    """

    name: str
    strike: Strike
    scene: Callable[[], AbstractAsyncContextManager[Scene]]
    loses: bool = False
    mix: Mix = MIX
    lease_seconds: int = LEASE_SECONDS
    replicas: int = 2
    rules: str = ""

    def __str__(self) -> str:
        return self.name


# ---------------------------------------------------------------- scenes


@asynccontextmanager
async def alone() -> AsyncIterator[Scene]:
    """Run one Redis that writes everything to disk."""
    async with RedisServer() as server:
        yield Scene(Store.on(server), server)


@asynccontextmanager
async def through_proxy() -> AsyncIterator[Scene]:
    """Run a Redis behind something that loses its replies."""
    async with RedisServer() as server, DroppingProxy(server.port) as proxy:
        yield Scene(Store(f"redis://{LOOPBACK}:{proxy.port}", Store.on(server).primary), proxy)


@asynccontextmanager
async def with_sentinels() -> AsyncIterator[Scene]:
    """Run a primary, a replica and three sentinels."""
    async with Sentinels() as sentinels:
        yield Scene(Store(sentinels.url, sentinels.primary), sentinels)


@asynccontextmanager
async def recorded() -> AsyncIterator[Scene]:
    """Let a recorder keep what Envoy logs beside."""
    async with RedisServer() as server, Recorder({}, {}) as recorder:
        yield Scene(Store.on(server), recorder, logging_to("recorder", [recorder.port]))


@asynccontextmanager
async def relayed_log() -> AsyncIterator[Scene]:
    """Let the access log, and nothing else, go through relays, one for each replica."""
    async with RedisServer() as server, AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(Relay()) for _ in range(2)]
        yield Scene(Store.on(server), relays, logging_to("log", [relay.port for relay in relays], instead=True))


def logging_to(name: str, ports: list[int], *, instead: bool = False) -> Edit:
    """Let Envoy log to a cluster of its own, instead of the servers or beside them."""

    def edit(document: Document) -> Document:
        resources = cast("Any", document)["static_resources"]
        server = next(each for each in resources["clusters"] if each["name"] == SERVER_CLUSTER)
        cluster = {**deepcopy(server), "name": name}
        cluster["load_assignment"]["cluster_name"] = name
        del cluster["health_checks"]
        point_at(cluster, ports)
        resources["clusters"].append(cluster)
        manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        log = deepcopy(manager["access_log"][0])
        log["typed_config"]["common_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = name
        manager["access_log"] = [log] if instead else [*manager["access_log"], log]
        return document

    return edit


# ---------------------------------------------------------------- faults


async def kill_server(tempest: Tempest, _: Scene) -> None:
    """End a server at once, and start it again."""
    gate = tempest.home.gates[0]
    gate.process.kill()
    await gate.process.wait()
    await gate.restart()


async def restart_server(tempest: Tempest, _: Scene) -> None:
    """Let a server end in its own way, and start it again."""
    gate = tempest.home.gates[0]
    gate.process.terminate()
    assert 0 == await gate.process.wait(10)
    await gate.restart()


async def kill_envoy(tempest: Tempest, _: Scene) -> None:
    """End Envoy at once, and start it again."""
    await tempest.home.envoy.kill()
    await tempest.home.envoy.restart()


async def restart_envoy(tempest: Tempest, _: Scene) -> None:
    """Turn clients away, let Envoy finish what it has begun and log it, and start it again."""
    home = tempest.home
    home.door.clear()
    await home.envoy.post("/drain_listeners?graceful")
    await eventually(lambda: home.envoy.active(0), what="Envoy has finished what it had begun")
    await home.empty(home.lease_seconds + 2)
    await home.envoy.stop()
    await home.envoy.restart()
    home.door.set()


async def kill_redis(tempest: Tempest, scene: Scene) -> None:
    """End Redis at once, and start it again with what it wrote to disk."""
    await scene.tool.kill()
    await tempest.more(10)
    await scene.tool.restart()


async def stop_redis(tempest: Tempest, scene: Scene) -> None:
    """Let Redis stand still for two seconds; one second later, what is held is held by requests that live."""
    home = tempest.home
    jobs = [tempest.next(OPEN) for _ in range(OPEN_STREAMS)]
    streams = [asyncio.create_task(tempest.send(job)) for job in jobs]
    await eventually(lambda: all(tempest.reached(job.number) for job in jobs), what="streams are open")
    async with scene.tool.paused():
        await asyncio.sleep(2)
        home.door.clear()
    await asyncio.sleep(1)

    async def agree() -> bool:
        held = (await home.store.books()).held
        live = {counter_of(number): storm.RESERVED for number in tempest.live if tempest.reached(number)}
        return live == {counter: amount for counter, amount in held.items() if counter.startswith("end_user:")}

    await eventually(agree, LOG_SECONDS, "what is held is the sum over live requests")
    assert [] == [stream for stream in streams if stream.done()]
    home.upstream.gate.set()
    await asyncio.gather(*streams)
    home.door.set()


async def lose_replies(tempest: Tempest, scene: Scene) -> None:
    """Lose single replies of Redis, until some were to settles: Redis has booked them, and nobody hears of it."""
    proxy = cast("DroppingProxy", scene.tool)
    for count in range(REPLIES_LOST_MAX):
        lose = proxy.swallow if count % 2 else proxy.cut_at_reply
        lose()
        await eventually(partial(lost_more_than, proxy, count), what="a reply is lost")
        await tempest.more(3)
        if await unanswered_settles(tempest.home) >= SETTLES_UNANSWERED:
            return
    raise AssertionError(f"of {REPLIES_LOST_MAX} replies that were lost, too few were to settles")


async def fail_over(_: Tempest, scene: Scene) -> None:
    """Make the replica the primary."""
    await cast("Sentinels", scene.tool).fail_over()


async def kill_primary(_: Tempest, scene: Scene) -> None:
    """End the primary at once: what it had acknowledged and not yet passed on is gone."""
    sentinels = cast("Sentinels", scene.tool)
    primary = await sentinels.primary()
    await primary.kill()
    await sentinels.moved_from(primary)


async def flush_scripts(tempest: Tempest, scene: Scene) -> None:
    """Let Redis forget its scripts, again and again."""
    async with scene.tool.client() as redis:
        for _ in range(10):
            await redis.script_flush()
            await tempest.more(5)


async def leave_and_flush_scripts(tempest: Tempest, scene: Scene) -> None:
    """Let Redis forget its scripts while many clients leave whose Checks cannot have been answered."""
    async with scene.tool.client() as redis:
        for _ in range(3):
            async with AsyncExitStack() as paused, asyncio.TaskGroup() as leaving:
                for gate in tempest.home.gates:
                    await paused.enter_async_context(gate.process.paused())
                await redis.script_flush()
                tempest.leave.clear()
                for _ in range(LEAVING):
                    leaving.create_task(tempest.send(tempest.next(LEFT_AT_ONCE)))
                await eventually(lambda: active(tempest.home), what="Envoy asks about all of them")
                tempest.leave.set()
            await tempest.more(20)


async def cut_log(tempest: Tempest, scene: Scene) -> None:
    """Break the streams of the access log, for a moment and for longer."""
    relays = cast("list[Relay]", scene.tool)
    for calls in (0, 0, 0, 25):
        for relay in relays:
            relay.cut()
        await tempest.more(calls)
        for relay in relays:
            relay.mend()
        await tempest.more(10)


async def repeat_signals(tempest: Tempest, scene: Scene) -> None:
    """Tell every replica again what Envoy has logged, late and in any order, and forge more of it."""
    recorder = cast("Recorder", scene.tool)
    async with channels(tempest.home) as servers:
        asking = [admitted(server, f"x{number}") for number, server in enumerate(servers * OWN_CALLS)]
        answers = await asyncio.gather(*asking)
        for server in servers:
            await log(server, *(own_ending(forged(answer, place)) for answer in answers for place in (0, -1)))
        before = await tempest.home.store.books()
        counters = [f"end_user:x{number}|lifetime" for number in range(len(answers))]
        for _ in range(2):
            await tempest.more(30)
            batches = recorder.batches
            tempest.chance.shuffle(batches)
            await asyncio.gather(*(log(server, *batches) for server in servers))
        await eventually(lambda: all_expired(tempest, counters), 2 * tempest.home.lease_seconds, "their leases ran out")
        for server in servers:
            await log(server, *map(own_ending, answers), *map(own_ending, answers))
        after = await tempest.home.store.books()
    assert [] == [counter for counter in counters if counter not in before.held or counter in before.spent]
    assert dict.fromkeys(counters, OWN_COST) == {counter: after.spent.get(counter) for counter in counters}


# ---------------------------------------------------------------- what faults do themselves


async def unanswered_settles(home: House) -> float:
    """Count the settles that Redis has not acknowledged."""
    pages = await asyncio.gather(*(gate.metrics() for gate in home.gates))
    return sum(page.value("extauthz_store_errors_total", "settle") for page in pages)


def lost_more_than(proxy: DroppingProxy, count: int) -> bool:
    """Tell whether more replies were lost."""
    return proxy.lost > count


async def active(home: House) -> bool:
    """Tell whether Envoy is at work on at least as many calls as leave."""
    return await home.envoy.count("http.extauthz.downstream_rq_active") >= LEAVING


@asynccontextmanager
async def channels(home: House) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Connect with every server."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.grpc_port}"))
            for gate in home.gates
        ]


async def admitted(server: grpc.aio.Channel, end_user: str) -> CheckResponse:
    """Ask about a chat, as Envoy does, until it holds money: a busy store may be too slow at first."""
    request = a_check(key="sk-bob")
    request.attributes.request.http.headers["x-end-user"] = end_user

    async def ask() -> CheckResponse | None:
        answer: CheckResponse = await AuthorizationStub(server).Check(request, timeout=CALL_SECONDS_MAX)
        return answer if "extauthz.r" in answer.dynamic_metadata else None

    answer = await eventually(ask, what="a chat is admitted")
    assert answer is not None
    return answer


def own_ending(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log the whole answer to such a chat."""
    return an_ending(answer, input_tokens=OWN_USAGE.input_tokens, output_tokens=OWN_USAGE.output_tokens)


def forged(answer: CheckResponse, place: int) -> CheckResponse:
    """Change one letter of a hold: of its content, or of its signature."""
    changed = CheckResponse()
    changed.CopyFrom(answer)
    hold = list(str(answer.dynamic_metadata["extauthz.r"]))
    hold[place] = "A" if hold[place] not in "ABCD" else "Z"  # the last letter has bits that do not count
    changed.dynamic_metadata["extauthz.r"] = "".join(hold)
    return changed


async def log(server: grpc.aio.Channel, *batches: StreamAccessLogsMessage) -> None:
    """Send batches of the access log on a stream of their own, and see it taken to its end."""
    stream = AccessLogServiceStub(server).StreamAccessLogs(timeout=CALL_SECONDS_MAX)
    for batch in batches:
        await stream.write(batch)
    await stream.done_writing()
    await stream


async def all_expired(tempest: Tempest, counters: list[str]) -> bool:
    """Tell whether leases have ended a reservation on each of these counters."""
    books = await tempest.home.store.books()
    expired = {counter for entry in books.journal if entry.how == "expired" for counter in entry.counters}
    return expired.issuperset(counters)


# ---------------------------------------------------------------- all of them

FAULTS = (
    Fault("kill -9 of a server", kill_server, alone, loses=True, replicas=3),
    Fault("kill -9 of Envoy", kill_envoy, alone, loses=True),
    Fault("kill -9 of Redis", kill_redis, alone),
    Fault("graceful restart of a server", restart_server, alone),
    Fault("graceful restart of Envoy", restart_envoy, alone),
    # The lease must outlast the time for which nobody can renew it.
    Fault("SIGSTOP of Redis for 2 s", stop_redis, alone, lease_seconds=6),
    Fault("replies of Redis lost", lose_replies, through_proxy),
    Fault("Sentinel failover", fail_over, with_sentinels),
    Fault("kill -9 of the primary", kill_primary, with_sentinels),
    Fault("SCRIPT FLUSH", flush_scripts, alone),
    Fault("SCRIPT FLUSH, clients leave", leave_and_flush_scripts, alone, mix=MIX_OF_LEAVERS),
    Fault("entries repeated and forged", repeat_signals, recorded, lease_seconds=4, replicas=3),
    Fault("access-log streams cut", cut_log, relayed_log, loses=True),
)
