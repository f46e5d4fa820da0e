"""Many ask at the same moment, at several replicas, for what is left of one budget: it goes out once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle

import grpc.aio
import pytest
import pytest_asyncio

from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.domain.budgets import Counter, Filter, FilterKind, Measure, Scope, ScopeKind, Spent
from extauthz.domain.reservation import Claim, Lease
from extauthz.domain.windows import Duration, Unit, WindowRule
from extauthz.ledger.base import Ending, Ledger, Refused, Reserve, Reserved
from extauthz.ledger.keys import Keys
from extauthz.ledger.memory import MemoryLedger
from extauthz.ledger.redis import RedisLedger
from tests.support.gate import a_check, an_ending
from tests.support.ledger import SIGNING_KEY, RealClock, a_counter, a_reserve, balance, redis_ledger
from tests.support.processes import LOOPBACK
from tests.support.redis import REDIS_VERSIONS, RedisServer, RedisVersion
from tests.support.redis_cluster import Cluster
from tests.support.stack import NANOUSD_PER_USD, GateProcess

pytestmark = [pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

REPLICAS = 4
CALL_SECONDS_MAX = 30.0

CHECKS, AFFORDED = 200, 50
# What a_check() holds: a third of the 23 bytes that count, and the fixed output.
ESTIMATE = 8 * 1_000 + 64 * 4_000
COST = 40 * 1_000 + 10 * 4_000
BUDGET = AFFORDED * ESTIMATE
TEAM = "team:research|lifetime"

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
extauthz:
  store: {store}
  store_timeout_seconds: 5
  drain_seconds: 0
  estimate: {{mode: fixed, output_tokens: 64}}
  teams: {{research: {{max_budget: {budget_usd}}}}}
  keys: [{{key: sk-team, team: research}}]
"""

RESERVES, HELD = 2_000, 500
# 500 of them are nearly as much as doubles count exactly.
AMOUNT = 17_999_997_999_999


@dataclass(frozen=True, slots=True)
class Store:
    """A store that runs, and how to find the server that keeps a key."""

    url: str
    server_of: Callable[[str], RedisServer]

    async def amounts(self, key: str) -> dict[str, int]:
        """Read a hash of amounts."""
        async with self.server_of(key).client() as redis:
            return {str(name): int(amount) for name, amount in (await redis.hgetall(key)).items()}


@pytest_asyncio.fixture(
    loop_scope="module",
    scope="module",
    params=[*REDIS_VERSIONS, "Cluster"],
    ids=lambda version: version if isinstance(version, str) else version.name,
)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Run each store in turn."""
    if isinstance(request.param, RedisVersion):
        async with RedisServer(request.param, appendonly=False) as server:
            yield Store(server.url, lambda _: server)
    else:
        async with Cluster(appendonly=False) as cluster:
            yield Store(cluster.url, cluster.server_of)


@asynccontextmanager
async def replicas(store: Store, tag: str) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Run servers on one store, and connect to each."""
    config = CONFIG.format(store=f"{store.url}?tag={tag}", budget_usd=f"{BUDGET / NANOUSD_PER_USD:.9f}")
    async with AsyncExitStack() as running:
        gates = [GateProcess(config) for _ in range(REPLICAS)]
        await asyncio.gather(*(running.enter_async_context(gate) for gate in gates))
        yield [
            await running.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.grpc_port}"))
            for gate in gates
        ]


async def check_at_once(channels: Sequence[grpc.aio.Channel]) -> tuple[list[CheckResponse], Tally[str]]:
    """Send all Checks at once, spread over the servers; give the answers that admit, and count the refusals."""
    stubs: Iterator[AuthorizationStub] = cycle([AuthorizationStub(channel) for channel in channels])
    calls = [next(stubs).Check(a_check(), timeout=CALL_SECONDS_MAX) for _ in range(CHECKS)]
    answers: list[CheckResponse] = await asyncio.gather(*calls)
    refused = [answer.denied_response for answer in answers if answer.HasField("denied_response")]
    admitted = [answer for answer in answers if answer.HasField("ok_response")]
    return admitted, Tally(json.loads(denied.body)["error"]["type"] for denied in refused)


async def log(channel: grpc.aio.Channel, messages: Sequence[StreamAccessLogsMessage]) -> None:
    """Send batches of access-log entries, and see them taken."""
    stream = AccessLogServiceStub(channel).StreamAccessLogs(timeout=CALL_SECONDS_MAX)
    for message in messages:
        await stream.write(message)
    await stream.done_writing()
    await stream


def settled(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log the end of a whole answer."""
    return an_ending(answer, input_tokens=40, output_tokens=10)


def failed(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log that the upstream failed."""
    message = settled(answer)
    message.http_logs.log_entry[0].response.response_code.value = 500
    return message


async def test_checks_at_four_replicas_race_for_one_budget(store: Store) -> None:
    """As many pass as there is money for, to the request; when they have ended, so does what they left over."""
    keys = Keys("race-of-checks")
    async with replicas(store, keys.tag) as channels:
        admitted, refused = await check_at_once(channels)

        assert AFFORDED == len(admitted)
        assert {"budget_held": CHECKS - AFFORDED} == refused
        assert BUDGET == (await store.amounts(keys.held))[TEAM]

        half = AFFORDED // 2
        await asyncio.gather(
            log(channels[0], [settled(answer) for answer in admitted[:half]]),
            log(channels[1], [failed(answer) for answer in admitted[half:]]),
        )

        assert {} == await store.amounts(keys.held)
        assert half * COST == (await store.amounts(keys.spent))[TEAM]

        left = BUDGET - half * COST
        admitted, refused = await check_at_once(channels)

        assert -(-left // ESTIMATE) == len(admitted)  # the last one gets what is left
        assert {"budget_held": CHECKS - len(admitted)} == refused
        assert left == (await store.amounts(keys.held))[TEAM]


async def test_reserves_of_four_ledgers_race_for_one_budget(store: Store) -> None:
    """Each reserve that passes leaves one amount less for the next; each ending counts once, whoever tells of it."""
    team = a_counter()
    claim = Claim(team, HELD * AMOUNT, AMOUNT, whole=True)
    asked = [a_reserve(f"r{number}", claim, reserved_at_ms=RealClock().now_ms()) for number in range(RESERVES)]
    async with AsyncExitStack() as opened:
        ledgers = [
            await opened.enter_async_context(redis_ledger(store.url, tag="race-of-reserves")) for _ in range(REPLICAS)
        ]
        results = await asyncio.gather(
            *(ledger.reserve(request) for ledger, request in zip(cycle(ledgers), asked, strict=False))
        )
        reserved = [result for result in results if isinstance(result, Reserved)]
        holding = [request for request, result in zip(asked, results, strict=True) if isinstance(result, Reserved)]

        assert [AMOUNT * left for left in range(HELD)] == sorted(result.available_nanousd or 0 for result in reserved)
        assert RESERVES - HELD == sum(isinstance(result, Refused) for result in results)
        assert HELD * AMOUNT == (await balance(ledgers[0], team)).held
        assert HELD == await ledgers[1].open_count()

        half = HELD // 2
        endings = await asyncio.gather(*(ending for ledger in ledgers for ending in ended(ledger, holding, half)))
        after = await balance(ledgers[3], team)

        assert {Ending.FIRST: HELD, Ending.REPEATED: (REPLICAS - 1) * HELD} == Tally(endings)
        assert (half * (AMOUNT - 1), 0) == (after.spent, after.held)
        assert 0 == await ledgers[2].open_count()


# ------------------------------------------------------------------------------------- every measure at the same time

IN_FLIGHT = 200
# What each request may use at most, and what it uses.
MOST, USED = Spent(7_000, 900, 1), Spent(6_001, 512, 1)
# Of which budget there is the least, and for how many requests it is enough.
SCARCE, ENOUGH = 61, 190
SCOPES = (
    Scope(ScopeKind.GLOBAL),
    Scope(ScopeKind.ORGANIZATION, ("acme",)),
    Scope(ScopeKind.TEAM, ("research",)),
    Scope(ScopeKind.USER, ("ana",)),
    Scope(ScopeKind.KEY, ("ab" * 32,)),
)
KINDS = (
    (Measure.USD, None),
    (Measure.TOKENS, None),
    (Measure.REQUESTS, None),
    (Measure.USD, Filter(FilterKind.MODEL, "gpt-4o")),
)


def every_counter(now_ms: int) -> list[Counter]:
    """Give what five scopes count, in two windows each, in every measure and for one model."""
    windows = (WindowRule(), WindowRule(Duration(1, Unit.DAY)))
    return [
        Counter(scope, rule.at(now_ms), measure, only)
        for scope in SCOPES
        for rule in windows
        for measure, only in KINDS
    ]


@asynccontextmanager
async def in_memory() -> AsyncIterator[list[Ledger]]:
    """Give one ledger in memory, for all."""
    yield [MemoryLedger(RealClock().now_ms, SIGNING_KEY)]


@asynccontextmanager
async def on_store(store: Store, tag: str) -> AsyncIterator[list[Ledger]]:
    """Open ledgers of several replicas on one store."""
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(redis_ledger(store.url, tag=tag)) for _ in range(REPLICAS)]


async def race(ledgers: Sequence[Ledger], scarce: int, *, whole: bool) -> None:
    """Reserve at once for more requests than one of the budgets is enough for, and end those that pass.

    As many pass as there is room for, whichever budget is the scarce one, and no counter holds more than its limit.
    """
    counters = every_counter(ledgers[0].now_ms())
    limits = {
        counter: (SCARCE if number == scarce else ENOUGH) * MOST.of(counter.measure)
        for number, counter in enumerate(counters)
    }
    # A part of the last one is left: nobody gets it whole, and one gets it who takes what there is.
    rest = MOST.of(counters[scarce].measure) // 2
    limits[counters[scarce]] += rest
    claims = [Claim(counter, limits[counter], MOST.of(counter.measure), whole=whole) for counter in counters]
    now_ms = ledgers[0].now_ms()
    asked = [
        a_reserve(f"r{number}", *claims, reserved_at_ms=now_ms, lease=Lease(60_000, MOST))
        for number in range(IN_FLIGHT)
    ]
    results = await asyncio.gather(
        *(ledger.reserve(request) for ledger, request in zip(cycle(ledgers), asked, strict=False))
    )
    holding = [request for request, result in zip(asked, results, strict=True) if isinstance(result, Reserved)]
    refused = {result.standing.counter for result in results if isinstance(result, Refused)}
    standings = {standing.counter: standing for standing in await ledgers[0].standings([*limits.items()])}

    passing = SCARCE + (1 if rest and not whole else 0)
    assert ({counters[scarce]}, passing) == (refused, len(holding))
    for counter, standing in standings.items():
        held = min(limits[counter], passing * MOST.of(counter.measure))
        assert (0, held) == (standing.spent, standing.held), counter.key

    half = SCARCE // 2
    ends = [
        *(ledgers[0].settle(request.hold, USED) for request in holding[:half] for _ in range(2)),
        *(ledgers[-1].release(request.hold.id) for request in holding[half:] for _ in range(2)),
    ]
    assert {Ending.FIRST: passing, Ending.REPEATED: passing} == Tally(await asyncio.gather(*ends))
    after = await ledgers[0].standings([*limits.items()])
    assert [(half * USED.of(counter.measure), 0) for counter in counters] == [(it.spent, it.held) for it in after]
    assert (await ledgers[0].audit()).ok


# One of each kind, on another scope and window each time.
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "until exhausted"])
@pytest.mark.parametrize("scarce", [0, 13, 22, 39])
async def test_every_measure_in_memory(scarce: int, *, whole: bool) -> None:
    """Five scopes, two windows, USD, tokens, requests and a budget of one model: none is over-admitted."""
    async with in_memory() as ledgers:
        await race(ledgers, scarce, whole=whole)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "until exhausted"])
@pytest.mark.parametrize("scarce", [0, 13, 22, 39])
async def test_every_measure_at_four_ledgers(store: Store, scarce: int, *, whole: bool) -> None:
    """So it is where four replicas ask one store."""
    async with on_store(store, f"race-of-measures-{scarce}-{whole}") as ledgers:
        await race(ledgers, scarce, whole=whole)


def ended(ledger: RedisLedger, holding: Sequence[Reserve], half: int) -> Iterator[asyncio.Future[Ending]]:
    """Settle the first half at a ledger, and release the others."""
    for request in holding[:half]:
        yield asyncio.ensure_future(ledger.settle(request.hold, Spent(AMOUNT - 1)))
    for request in holding[half:]:
        yield asyncio.ensure_future(ledger.release(request.hold.id))
