"""What becomes of money when signals stay away: an Envoy that dies or stands still, a server that cannot be reached."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from extauthz.demo import answers
from extauthz.demo.answers import Answer, Api
from extauthz.domain.address import Address
from extauthz.domain.prices import Usage
from extauthz.envoy.bootstrap import BootstrapOptions
from tests.support.abort import Call, calling
from tests.support.processes import LOOPBACK, eventually
from tests.support.relay import Relay
from tests.support.stack import GateProcess, Metrics, Stack, stack
from tests.support.upstream import EVENT_STREAM, PLAY_HEADER, Cue, Head, Play, Received

pytestmark = [pytest.mark.envoy, pytest.mark.chaos]

LEASE_SECONDS = 2
HEARTBEAT_SECONDS = 0.25
HEARTBEATS_PER_LEASE = LEASE_SECONDS / HEARTBEAT_SECONDS
STREAMS = 5
BUDGET = ("team:red", "lifetime")

CONFIG = f"""
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}}
extauthz:
  lease_seconds: {LEASE_SECONDS}
  estimate: {{mode: fixed, output_tokens: 64}}
  teams: {{red: {{max_budget: 1000}}}}
  keys: [{{key: sk-red, team: red}}]
"""
INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 4_000

# "model", "stream" and "messages" do not count; the model (6), true (3), role, user and content (15) do.
BODY = json.dumps(
    {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x" * (300 - 6 - 3 - 15)}]}
).encode()
ESTIMATE = 100 * INPUT_NANOUSD + 64 * OUTPUT_NANOUSD

# The upstream's own count of an answer, of which 41 events go out before the upstream stops: the first has the role,
# the others a word each. Their text has 203 bytes, worth 68 tokens.
USAGE = Usage(input_tokens=80, output_tokens=90)
TRUTH = 80 * INPUT_NANOUSD + 90 * OUTPUT_NANOUSD
EVENTS_SENT = 41
DELIVERED = 100 * INPUT_NANOUSD + 68 * OUTPUT_NANOUSD


def halting(request: Received) -> Play:
    """Send a part of the answer, wait for the test's gate, send the rest."""
    answer = Answer(Api.CHAT, "scripted", "gpt-4o", USAGE, "stop")
    pieces = [piece.data for piece in answers.pieces(answer, include_usage=request.include_usage)]
    return Play(
        (Head(content_type=EVENT_STREAM), *pieces[:EVENTS_SENT], Cue.GATE, *pieces[EVENTS_SENT:]),
        USAGE,
    )


@asynccontextmanager
async def running(
    rules: str = "", *, heartbeat_seconds: float = HEARTBEAT_SECONDS, relay: Relay | None = None
) -> AsyncIterator[Stack]:
    """Run everything with a short lease and more rules of settlement; Envoy reaches the server through a relay."""

    def options(chosen: BootstrapOptions) -> BootstrapOptions:
        server = chosen.extauthz if relay is None else Address(LOOPBACK, relay.port)
        return replace(chosen, heartbeat_seconds=heartbeat_seconds, extauthz=server)

    async with stack(CONFIG + rules, options=options) as started:
        started.upstream.plays["halts"] = halting
        if relay is not None:
            relay.target = started.gate.grpc_port
        yield started


@asynccontextmanager
async def streams(started: Stack, count: int = STREAMS) -> AsyncIterator[list[Call]]:
    """Open streams, and wait until all that the upstream sends before its gate is here."""
    headers = {"authorization": "Bearer sk-red", PLAY_HEADER: "halts"}
    async with AsyncExitStack() as opened:
        port = started.envoy.options.listen.port
        calls = [await opened.enter_async_context(calling(port, BODY, headers)) for _ in range(count)]
        for call in calls:
            await call.until(lambda call: call.events == EVENTS_SENT)
        yield calls


def renewals(metrics: Metrics) -> float:
    """Tell how often a lease was renewed."""
    return metrics.value("extauthz_store_duration_seconds_count", "renew")


async def renewed(started: Stack, times: float) -> Metrics:
    """Wait until leases were renewed so many times more, and give the metrics then."""
    before = renewals(await started.gate.metrics())

    async def read() -> Metrics | None:
        metrics = await started.gate.metrics()
        return metrics if renewals(metrics) >= before + times else None

    metrics = await eventually(read, 20 * LEASE_SECONDS, f"{times:g} signs of life")
    assert metrics is not None
    return metrics


def kill(started: Stack) -> None:
    """End Envoy as the kernel does when memory is short: it says nothing to anybody."""
    os.kill(started.envoy.pid, signal.SIGKILL)


def ended(metrics: Metrics, how: str, by: str) -> int:
    """Tell how many reservations ended so."""
    return int(metrics.value("extauthz_reservations_ended_total", how, by))


async def test_an_envoy_that_dies_is_booked_by_its_last_signs_of_life() -> None:
    """With streams open, kill -9: after the lease held is 0, and what was delivered by then is booked."""
    async with running() as started:
        async with streams(started):
            await renewed(started, 2 * STREAMS)
            kill(started)
        dead = await started.gate.metrics()
        metrics = await started.settled()

    assert (STREAMS, STREAMS * ESTIMATE) == (dead.open, dead.held[BUDGET])
    assert (0, STREAMS * DELIVERED) == (metrics.held[BUDGET], metrics.spent[BUDGET])
    assert STREAMS == ended(metrics, "expired", "lease")


@pytest.mark.parametrize(
    ("rules", "cost"),
    [
        pytest.param("", 0, id="on_expiry release"),
        pytest.param("  on_expiry: charge\n", ESTIMATE, id="on_expiry charge"),
    ],
)
async def test_an_envoy_that_dies_before_any_sign_of_life(rules: str, cost: int) -> None:
    """Nothing was ever heard of the streams: `on_expiry` says what they cost."""
    async with running(rules, heartbeat_seconds=60) as started:
        async with streams(started):
            kill(started)
        metrics = await started.settled()

    assert (0, STREAMS * cost) == (metrics.held[BUDGET], metrics.spent[BUDGET])
    assert STREAMS == ended(metrics, "expired", "lease")


async def test_on_expiry_gives_way_to_signs_of_life() -> None:
    """What a sign of life has told is booked by `on_abort`, whatever `on_expiry` says."""
    async with running("  on_expiry: charge\n  on_abort: input\n") as started:
        async with streams(started):
            await renewed(started, 2 * STREAMS)
            kill(started)
        metrics = await started.settled()

    assert (0, STREAMS * 100 * INPUT_NANOUSD) == (metrics.held[BUDGET], metrics.spent[BUDGET])


async def test_a_stream_outlives_its_lease() -> None:
    """While signs of life come the hold stays, for longer than a lease; at its end the stream is booked normally."""
    async with running() as started, streams(started, 1) as (call,):
        alive = await renewed(started, 2 * HEARTBEATS_PER_LEASE)
        started.upstream.gate.set()
        await call.end()
        metrics = await started.settled()

    assert (1, ESTIMATE) == (alive.open, alive.held[BUDGET])
    assert call.whole
    assert (0, TRUTH) == (metrics.held[BUDGET], metrics.spent[BUDGET])
    assert (0, 1) == (ended(metrics, "expired", "lease"), ended(metrics, "settled", "access_log"))


async def test_an_ending_that_comes_after_the_lease_puts_the_books_right() -> None:
    """Envoy stands still for longer than a lease and then goes on: the true cost is booked, and once."""
    async with running() as started, streams(started, 1) as (call,):
        await renewed(started, 2)
        os.kill(started.envoy.pid, signal.SIGSTOP)
        try:
            expired = await started.settled()
        finally:
            os.kill(started.envoy.pid, signal.SIGCONT)
        started.upstream.gate.set()
        await call.end()
        metrics = await eventually(lambda: booked(started, TRUTH), what="the true cost is booked")

    assert (0, DELIVERED) == (expired.held[BUDGET], expired.spent[BUDGET])
    assert metrics is not None
    assert (0, 0) == (metrics.open, metrics.held[BUDGET])
    assert (1, 1) == (ended(metrics, "expired", "lease"), ended(metrics, "settled", "access_log"))


async def booked(started: Stack, cost: int) -> Metrics | None:
    """Give the metrics when so much is booked."""
    metrics = await started.gate.metrics()
    return metrics if metrics.spent[BUDGET] == cost else None


async def test_a_server_that_stands_still_loses_no_ending() -> None:
    """The stream ends while the server does not read: the entry waits for it in Envoy and in the kernel."""
    async with running("", heartbeat_seconds=60) as started, streams(started, 1) as (call,):
        async with started.gate.process.paused():
            started.upstream.gate.set()
            await call.end()
        metrics = await started.settled()

    assert call.whole
    assert (0, TRUTH) == (metrics.held[BUDGET], metrics.spent[BUDGET])
    assert (0, 1) == (ended(metrics, "expired", "lease"), ended(metrics, "settled", "access_log"))


async def test_a_network_that_breaks_and_mends_within_the_lease_loses_nothing() -> None:
    """Envoy opens its access-log stream anew; signs of life go on, and the end is booked normally."""
    async with Relay() as relay, running(relay=relay) as started, streams(started, 1) as (call,):
        await renewed(started, 1)
        relay.cut()
        relay.mend()
        alive = await renewed(started, 2 * HEARTBEATS_PER_LEASE)
        started.upstream.gate.set()
        await call.end()
        metrics = await started.settled()

    assert (1, ESTIMATE) == (alive.open, alive.held[BUDGET])
    assert (0, TRUTH) == (metrics.held[BUDGET], metrics.spent[BUDGET])


async def test_an_ending_that_the_network_loses_is_booked_by_the_lease() -> None:
    """Envoy sends an entry once. When nobody takes it, the last sign of life is booked, and later endings arrive."""
    async with Relay() as relay, running(relay=relay) as started:
        async with streams(started, 1) as (call,):
            await renewed(started, 2)
            relay.cut()
            started.upstream.gate.set()
            await call.end()
            lost = await started.settled()
        relay.mend()
        async with streams(started, 1) as (later,):
            await later.end()
        metrics = await started.settled()

    assert call.whole
    assert (0, DELIVERED) == (lost.held[BUDGET], lost.spent[BUDGET])
    assert (0, DELIVERED + TRUTH) == (metrics.held[BUDGET], metrics.spent[BUDGET])


async def test_a_server_that_starts_anew_forgets_its_books() -> None:
    """The memory store keeps nothing: the streams of before go on, are nobody's, and hold and cost nothing."""
    async with Relay() as relay, running(relay=relay) as started, streams(started, 1) as (call,):
        await renewed(started, 1)
        relay.cut()
        async with GateProcess(CONFIG) as anew:
            relay.target = anew.grpc_port
            relay.mend()
            started.upstream.gate.set()
            await call.end()
            metrics = await eventually(lambda: rejected(anew), what="the old stream's entry arrives")

    assert call.whole
    assert metrics is not None
    assert (0, 0, 0) == (metrics.open, metrics.held.get(BUDGET, 0), metrics.spent.get(BUDGET, 0))


async def rejected(gate: GateProcess) -> Metrics | None:
    """Give the metrics when a hold of another store was rejected."""
    metrics = await gate.metrics()
    return metrics if metrics.value("extauthz_holds_rejected_total") else None
