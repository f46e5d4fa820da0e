"""No reservation leaks, however requests end, and the books agree with what the upstream and the clients saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import pytest_asyncio

from extauthz.demo.upstream import Outcome
from extauthz.domain.address import Address
from extauthz.envoy.bootstrap import BootstrapOptions
from tests.support.abort import calling
from tests.support.envoy import ENVOY_VERSIONS
from tests.support.processes import LOOPBACK, eventually
from tests.support.relay import Relay
from tests.support.stack import Metrics, Stack, stack
from tests.support.storm import (
    ANSWERED,
    CANCELLED,
    CONFIG,
    LOST,
    PAYERS,
    RESERVED,
    Job,
    Storm,
    as_planned,
    booked,
    by_scope,
    number_of,
    patient,
    settled,
    the_mix,
    with_short_timeouts,
)

pytestmark = [pytest.mark.envoy, pytest.mark.chaos, pytest.mark.asyncio(loop_scope="module")]
CANCELLED_AT_ONCE = 40


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Run everything, on each Envoy."""
    async with stack(CONFIG, version=request.param, options=patient, edit=with_short_timeouts) as started:
        yield started


async def timed_out_checks(storm: Storm, jobs: list[Job]) -> None:
    """Send requests while the server stands still, until Envoy has answered them all by itself.

    Then wait until Checks are answered again: a server on h2 (Rust) that finds more than 20 streams reset before it
    has accepted them ends the connection (GOAWAY, too_many_resets), and what was sent on it meanwhile is refused.
    """
    async with storm.stack.gate.process.paused():
        await storm.run(jobs)
    await eventually(storm.answers, what="Checks are answered")


async def test_two_thousand_requests_half_of_which_fail(running: Stack) -> None:
    """Held is 0 in every scope, and spent is what the upstream booked plus `on_abort` for the aborted."""
    jobs = the_mix()
    lost = [Job(len(jobs) + number, LOST, streamed=False, payer="sk-ana") for number in range(LOST.plains)]
    storm = Storm(running)
    before = by_scope((await running.gate.metrics()).spent)

    await storm.run(jobs[: len(jobs) // 2])
    await timed_out_checks(storm, lost)
    await storm.run(jobs[len(jobs) // 2 :])
    metrics = await settled(running)

    assert 2000 == len(storm.seen)
    assert 1000 == sum(seen.job.way is ANSWERED for seen in storm.seen)
    assert [] == [seen for seen in storm.seen if not as_planned(seen, storm)]
    finished = {
        number_of(played.request): played.usage
        for played in running.upstream.played
        if played.outcome is Outcome.FINISHED and played.usage is not None
    }
    least, most = defaultdict[str, int](int), defaultdict[str, int](int)
    for seen in storm.seen:
        low, high = booked(seen, finished)
        for scope in PAYERS[seen.job.payer]:
            least[scope] += low
            most[scope] += high
    spent = {scope: amount - before.get(scope, 0) for scope, amount in by_scope(metrics.spent).items()}
    assert set(least) == set(spent)
    assert dict.fromkeys(spent, 0) == by_scope(metrics.held)
    guessed = set(PAYERS["sk-guess"])
    assert {s: least[s] for s in spent if s not in guessed} == {s: spent[s] for s in spent if s not in guessed}
    assert [] == [(s, least[s], spent[s], most[s]) for s in guessed if not least[s] <= spent[s] <= most[s]]
    assert 0 == metrics.value("extauthz_reservations_ended_total", "expired", "lease")


async def test_clients_leave_while_their_checks_are_pending(running: Stack) -> None:
    """Many leave at once, before the server could answer any of them: nothing is held, and nothing is booked."""
    before = (await settled(running)).spent
    port = running.envoy.options.listen.port
    jobs = [Job(number, CANCELLED, streamed=False, payer="sk-ana") for number in range(CANCELLED_AT_ONCE)]
    storm = Storm(running)

    async with running.gate.process.paused():
        async with AsyncExitStack() as waiting:
            for job in jobs:
                await waiting.enter_async_context(calling(port, job.body, job.headers))
            await eventually(lambda: running.envoy.active(CANCELLED_AT_ONCE), what="every Check is pending")
        await eventually(lambda: running.envoy.active(0), what="Envoy knows that all have left")
    metrics = await settled(running)

    assert before == metrics.spent
    assert {0} == set(metrics.held.values())
    assert [] == [job.number for job in jobs if storm.arrived(job.number)]


async def test_answers_of_checks_are_lost(running: Stack) -> None:
    """Envoy gives up on the server and refuses by itself; what the server then finds in its queue leaves no hold."""
    before = (await settled(running)).spent
    jobs = [Job(number, LOST, streamed=False, payer="sk-ana") for number in range(CANCELLED_AT_ONCE)]
    storm = Storm(running)

    await timed_out_checks(storm, jobs)
    metrics = await settled(running)

    assert [503] * CANCELLED_AT_ONCE == [seen.status for seen in storm.seen]
    assert before == metrics.spent
    assert {0} == set(metrics.held.values())


@pytest.mark.parametrize("leave", [False, True], ids=["Envoy gives up", "clients leave"])
async def test_answers_of_checks_are_lost_on_their_way(leave: bool) -> None:  # noqa: FBT001
    """The server has reserved and answered, and Envoy never sees it: the access log ends what nobody can use."""
    jobs = [Job(number, LOST, streamed=False, payer="sk-ana") for number in range(CANCELLED_AT_ONCE)]
    async with Relay() as relay, stack(CONFIG, options=lambda chosen: patient(through(relay, chosen))) as started:
        relay.target = started.gate.grpc_port
        storm = Storm(started)
        relay.hold_back()
        async with AsyncExitStack() as waiting:
            calls = [await waiting.enter_async_context(calling(storm.port, job.body, job.headers)) for job in jobs]
            reserved = await eventually(lambda: with_open(started, CANCELLED_AT_ONCE), what="the server has reserved")
            for call in calls if not leave else ():
                await call.end()
        relay.mend()
        metrics = await settled(started)

    assert reserved is not None
    assert CANCELLED_AT_ONCE * RESERVED == by_scope(reserved.held)["team:red"]
    assert [0 if leave else 503] * CANCELLED_AT_ONCE == [call.status for call in calls]
    assert {0} == set(metrics.held.values()) | set(metrics.spent.values())
    assert CANCELLED_AT_ONCE == metrics.value("extauthz_reservations_ended_total", "released", "access_log")


def through(relay: Relay, options: BootstrapOptions) -> BootstrapOptions:
    """Let Envoy reach the server through a relay."""
    return replace(options, extauthz=Address(LOOPBACK, relay.port))


async def with_open(running: Stack, count: int) -> Metrics | None:
    """Give the metrics when so many reservations are open."""
    metrics = await running.gate.metrics()
    return metrics if metrics.open == count else None
