"""The traffic of a bug report about another gate: minutes of it left end users refused who had spent next to nothing.

6,000 end users, four replicas on one Redis, and requests that fail in ways in which a reservation is easily forgotten.
Each end user's budget has room for one request and what an earlier one cost, so that a forgotten one shows at the next.
Envoy's part is played here, straight over gRPC: the Check at one replica, the access log at another.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import grpc.aio
import pytest

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from extauthz.domain.budgets import Counter
from extauthz.ledger.keys import Keys
from tests.support.gate import an_ending
from tests.support.processes import LOOPBACK, eventually
from tests.support.redis import RedisServer
from tests.support.stack import NANOUSD_PER_USD, GateProcess

pytestmark = [pytest.mark.redis, pytest.mark.chaos]

SEED = 27639
REPLICAS = 4
END_USERS = 6_000
COMING_AGAIN = 1_500
IN_FLIGHT = 64
CALL_SECONDS_MAX = 30.0
# Far below the lease of 120 s: whatever is ended within it was ended by a signal.
SECONDS_TO_SETTLE = 15.0
# Longer than a Check takes, so that it is cancelled before, amid and after its reserve.
CANCEL_SECONDS_MAX = 0.05
BATCH_MAX = 100

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
general_settings: {{user_header_name: x-end-user}}
extauthz:
  store: {store}
  store_timeout_seconds: 5
  drain_seconds: 0
  lease_seconds: 120
  estimate: {{mode: fixed, output_tokens: 64}}
  global: {{max_budget: 1000}}
  teams: {{red: {{max_budget: 1000}}, green: {{max_budget: 1000}}, blue: {{max_budget: 1000}}}}
  keys: [{{key: sk-red, team: red}}, {{key: sk-green, team: green}}, {{key: sk-blue, team: blue}}]
  end_users: {{default: {{max_budget: {budget_usd}, admission: strict}}}}
"""
TEAMS = ("red", "green", "blue")
INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 4_000
INPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX = 100, 64

# Of the body below 29 bytes count: those of hi, gpt-4o, role, user and content, and three for each other value.
BODY = {
    "model": "gpt-4o",
    "stream": True,
    "max_tokens": OUTPUT_TOKENS_MAX,
    "messages": [{"role": "user", "content": "hi"}],
}
INPUT_TOKENS = 10
# Under strict admission each byte may be a token, and so may what providers wrap around it.
HELD = (29 + 1_000) * INPUT_NANOUSD + OUTPUT_TOKENS_MAX * OUTPUT_NANOUSD
SPENT_MAX = INPUT_TOKENS_MAX * INPUT_NANOUSD + OUTPUT_TOKENS_MAX * OUTPUT_NANOUSD
END_USER_BUDGET = HELD + SPENT_MAX  # and less than twice HELD


class Way(StrEnum):
    """How a request ends."""

    ANSWERED = "answered"
    TOLD_TWICE = "answered, and logged at two replicas"
    FAILED = "upstream 500"
    ABORTED = "client abort"
    CANCELLED = "Check cancelled"
    LOST = "answer of the Check lost"


# One in twenty fails.
WAYS = {Way.ANSWERED: 940, Way.TOLD_TWICE: 10, Way.FAILED: 20, Way.ABORTED: 10, Way.CANCELLED: 10, Way.LOST: 10}


@dataclass(frozen=True, slots=True)
class Job:
    """One request: who pays, how it ends, and which replicas hear of it."""

    id: str
    end_user: str
    team: str
    way: Way
    asked_at: int
    logged_at: int
    input_tokens: int
    output_tokens: int
    patience_s: float

    @property
    def scopes(self) -> tuple[str, ...]:
        """Everything that pays."""
        key = sha256(f"sk-{self.team}".encode()).hexdigest()
        return "global", f"team:{self.team}", f"key:{key}", f"end_user:{self.end_user}"

    @property
    def cost(self) -> int:
        """What its end must cost: nothing that failed does."""
        match self.way:
            case Way.ANSWERED | Way.TOLD_TWICE:
                return self.input_tokens * INPUT_NANOUSD + self.output_tokens * OUTPUT_NANOUSD
            case Way.ABORTED:
                # What came through, or the running total that it began with.
                delivered = INPUT_TOKENS * INPUT_NANOUSD + self.output_tokens * OUTPUT_NANOUSD
                return max(delivered, self.input_tokens * INPUT_NANOUSD + OUTPUT_NANOUSD)
            case _:
                return 0

    def check(self) -> CheckRequest:
        """Ask, as Envoy does."""
        body = json.dumps(BODY).encode()
        headers = {
            "authorization": f"Bearer sk-{self.team}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-end-user": self.end_user,
            "x-extauthz-id": self.id,
        }
        http = AttributeContext.HttpRequest(method="POST", path="/v1/chat/completions", headers=headers, raw_body=body)
        return CheckRequest(
            attributes=AttributeContext(
                request=AttributeContext.Request(http=http), context_extensions={"extauthz.id": "header"}
            )
        )

    def ended(self, answer: CheckResponse) -> HTTPAccessLogEntry:
        """Log its end, after a Check that Envoy has the answer of."""
        aborted = self.way is Way.ABORTED
        message = an_ending(answer, input_tokens=self.input_tokens, output_tokens=1 if aborted else self.output_tokens)
        entry = message.http_logs.log_entry[0]
        entry.request.request_headers["x-extauthz-id"] = self.id
        if self.way is Way.FAILED:
            entry.response.response_code.value = 500
        if aborted:
            entry.common_properties.response_flags.downstream_connection_termination = True
            entry.common_properties.metadata.filter_metadata["extauthz.usage"].update(
                {"finished": False, "events": self.output_tokens, "text_bytes": 2 * self.output_tokens}
            )
        return entry

    def ended_unanswered(self) -> HTTPAccessLogEntry:
        """Log its end, after a Check that Envoy has no answer of."""
        entry = HTTPAccessLogEntry()
        entry.common_properties.access_log_type = AccessLogType.DownstreamEnd
        entry.request.request_headers["x-extauthz-id"] = self.id
        return entry


def jobs(chance: random.Random, end_users: Iterable[int]) -> Iterator[Job]:
    """Give a request of each of these end users, at random but each time the same."""
    for number in end_users:
        asked_at = chance.randrange(REPLICAS)
        yield Job(
            id=str(UUID(int=chance.getrandbits(128), version=4)),
            end_user=f"customer-{number}",
            team=TEAMS[number % len(TEAMS)],
            way=chance.choices(list(WAYS), list(WAYS.values()))[0],
            asked_at=asked_at,
            logged_at=(asked_at + chance.randrange(1, REPLICAS)) % REPLICAS,
            input_tokens=chance.randint(5, INPUT_TOKENS_MAX),
            output_tokens=chance.randint(1, OUTPUT_TOKENS_MAX),
            patience_s=chance.uniform(0, CANCEL_SECONDS_MAX),
        )


class AccessLog:
    """One long stream of access-log entries to a replica, in batches as large as they come."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stream = AccessLogServiceStub(channel).StreamAccessLogs()
        self._waiting: asyncio.Queue[HTTPAccessLogEntry | None] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write())

    def put(self, entry: HTTPAccessLogEntry) -> None:
        """Write an entry as soon as those before it are gone."""
        self._waiting.put_nowait(entry)

    async def close(self) -> None:
        """Write what waits, and see all of it taken."""
        self._waiting.put_nowait(None)
        await self._writer
        await self._stream.done_writing()
        await self._stream

    async def _write(self) -> None:
        while (entry := await self._waiting.get()) is not None:
            batch = [entry]
            while len(batch) < BATCH_MAX and not self._waiting.empty() and (more := self._waiting.get_nowait()):
                batch.append(more)
            entries = StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=batch)
            await self._stream.write(StreamAccessLogsMessage(http_logs=entries))


@dataclass(slots=True)
class Envoys:
    """What plays all Envoys: connections to the replicas, and books of its own."""

    checks: list[AuthorizationStub]
    logs: list[AccessLog]
    spent: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    played: Tally[Way] = field(default_factory=Tally)
    refused: list[str] = field(default_factory=list)

    async def play(self, traffic: Iterator[Job]) -> None:
        """Send all requests, IN_FLIGHT at a time."""

        async def work() -> None:
            for job in traffic:
                await self._send(job)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    async def _send(self, job: Job) -> None:
        call = self.checks[job.asked_at].Check(job.check(), timeout=CALL_SECONDS_MAX)
        log = self.logs[job.logged_at]
        self.played[job.way] += 1
        if job.way is Way.CANCELLED:
            await asyncio.sleep(job.patience_s)
            call.cancel()
            log.put(job.ended_unanswered())
            return
        answer: CheckResponse = await call
        if answer.HasField("denied_response"):
            self.refused.append(f"{job.end_user}, {job.way}: {answer.denied_response.body}")
            return
        if job.way is Way.LOST:
            log.put(job.ended_unanswered())
            return
        log.put(job.ended(answer))
        if job.way is Way.TOLD_TWICE:
            self.logs[job.asked_at].put(job.ended(answer))
        for scope in job.scopes:
            self.spent[scope] += job.cost


@asynccontextmanager
async def envoys(store: str) -> AsyncIterator[Envoys]:
    """Run the replicas and connect to each."""
    async with AsyncExitStack() as running:
        config = CONFIG.format(store=store, budget_usd=f"{END_USER_BUDGET / NANOUSD_PER_USD:.9f}")
        gates = [GateProcess(config) for _ in range(REPLICAS)]
        await asyncio.gather(*(running.enter_async_context(gate) for gate in gates))
        channels = [
            await running.enter_async_context(grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.grpc_port}"))
            for gate in gates
        ]
        yield Envoys([AuthorizationStub(channel) for channel in channels], list(map(AccessLog, channels)))


@pytest.mark.timeout(300)  # 20 s on two cores that have nothing else to do
async def test_no_end_user_is_refused_who_has_money() -> None:
    """Nothing stays held, everything is booked to the nano-USD, and whoever comes again passes again."""
    keys = Keys("extauthz")
    chance = random.Random(SEED)

    async with (
        RedisServer(appendonly=False) as server,
        envoys(server.url) as playing,
        server.client() as redis,
    ):

        async def nothing_is_held() -> bool:
            return not await redis.hlen(keys.held) and not await redis.hlen(keys.open)

        await playing.play(jobs(chance, range(END_USERS)))
        await eventually(nothing_is_held, SECONDS_TO_SETTLE, "nothing is held")
        await playing.play(jobs(chance, chance.sample(range(END_USERS), COMING_AGAIN)))
        await asyncio.gather(*(log.close() for log in playing.logs))
        await eventually(nothing_is_held, SECONDS_TO_SETTLE, "nothing is held")

        spent = by_scope(await redis.hgetall(keys.spent))
        journal: Any = await redis.xrange(keys.journal)

    assert END_USERS + COMING_AGAIN == playing.played.total()
    assert set(WAYS) == set(playing.played)
    assert [] == playing.refused
    assert {scope: amount for scope, amount in playing.spent.items() if amount} == spent
    assert [] == [entry for _, entry in journal if entry["how"] not in ("settled", "released")]


def by_scope(amounts: Mapping[Any, Any]) -> dict[str, int]:
    """Read what is spent, by scope: each has one counter here."""
    return {str(Counter.parse(key).scope): int(amount) for key, amount in amounts.items()}
