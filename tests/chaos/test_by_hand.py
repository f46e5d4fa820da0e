"""What operators change by hand while requests are in flight: the books stay exact, on each store."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from tests.support.gate import CALL_SECONDS_MAX, PAID, an_ending
from tests.support.operated import Office, operated
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="module")]

# What an answer of 40 tokens in and 10 out costs.
COST_NANOUSD, COST_USD = 40 * 2_500 + 10 * 10_000, 0.0002
TEAM, ORGANIZATION = "team:research", "org:acme"
REQUESTS = 120

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
extauthz:
  organizations: {acme: {max_budget: 1000}}
  teams: {research: {organization: acme, max_budget: 10}}
  keys: [{key: sk-team, team: research}]
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def redis() -> AsyncIterator[RedisServer]:
    """Run one Redis for all."""
    async with RedisServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", params=["memory", "redis"])
async def office(request: pytest.FixtureRequest, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    """Serve with empty books."""
    store = "memory" if request.param == "memory" else f"{redis.url}?tag={uuid.uuid4().hex}"
    async with operated(tmp_path, f"{CONFIG}  store: '{store}'\n") as serving:
        yield serving


async def end(office: Office, *answers: CheckResponse) -> None:
    """Log the whole answers to requests, and see them booked."""
    log = AccessLogServiceStub(office.gate).StreamAccessLogs(timeout=CALL_SECONDS_MAX)
    for answer in answers:
        await log.write(an_ending(answer, input_tokens=40, output_tokens=10))
    await log.done_writing()
    await log


async def budget(office: Office, scope: str = TEAM) -> pb.Budget:
    """Look at the one budget of a scope."""
    (found,) = (await office.call("GetBudget", scope=scope)).budgets
    assert isinstance(found, pb.Budget)
    return found


async def books(office: Office) -> tuple[float, float, int]:
    """Give what is spent and held, and how many reservations are open; the books must be right."""
    found, audit = await budget(office), await office.call("Audit")
    assert audit.ok, audit.drifts
    return found.spent_usd, found.held_usd, audit.reservations_open


async def test_asked_about_again_after_it_was_released(office: Office) -> None:
    """Envoy asks again about a request that an operator has given up: it is held again, and booked once."""
    name = str(uuid.uuid4())
    first = await office.check(PAID, reservation_id=name)
    held_usd = (await budget(office)).held_usd
    assert (await office.call("ReleaseReservation", id=name)).released
    assert (0, 0, 0) == await books(office)

    second = await office.check(PAID, reservation_id=name)
    assert (0, held_usd, 1) == await books(office)
    await end(office, second, first, second)

    assert (COST_USD, 0, 0) == await books(office)


async def test_a_reset_leaves_what_is_held(office: Office) -> None:
    """What was spent is forgotten; requests in flight keep their money, and cost what they cost."""
    before, in_flight = await office.check(PAID), await office.check(PAID)
    await end(office, before)
    held_usd = (await budget(office)).held_usd
    reset = (await office.call("ResetBudget", scope=TEAM)).budget
    assert (0, held_usd) == (reset.spent_usd, reset.held_usd)
    await end(office, in_flight, before)

    assert (COST_USD, 0, 0) == await books(office)
    assert pytest.approx(2 * COST_USD) == (await budget(office, ORGANIZATION)).spent_usd


async def test_a_limit_below_what_is_in_flight(office: Office) -> None:
    """Who is in flight is booked above the limit, who comes then is refused, and a grant lets the next one in."""
    in_flight = await office.check(PAID)
    await office.call("SetLimit", scope=TEAM, limit_usd=COST_USD / 2)
    refused = await office.check(PAID)
    await end(office, in_flight)
    exhausted = await office.check(PAID)
    await office.call("GrantBudget", scope=TEAM, amount_usd=1)
    granted = await office.check(PAID)
    await end(office, granted)

    assert [429, 429] == [answer.denied_response.status.code for answer in (refused, exhausted)]
    assert (2 * COST_USD, 0, 0) == await books(office)
    assert pytest.approx(COST_USD / 2 + 1) == (await budget(office)).limit_usd


async def test_all_at_once(office: Office) -> None:
    """Whatever operators do among many requests: nothing stays held, and each answer is booked once where it counts."""
    chance = random.Random(5)
    answered: list[CheckResponse] = []

    async def request() -> None:
        await asyncio.sleep(chance.random() / 2)
        answer = await office.check(PAID)
        if answer.HasField("denied_response"):
            return
        answered.append(answer)
        await asyncio.sleep(chance.random() / 2)
        await end(office, *[answer] * chance.choice((1, 2)))

    async def operate() -> None:
        for limit_usd in (0, 0.01, 10, 0, 10):
            for reservation in (await office.call("ListReservations")).reservations[::2]:
                await asyncio.gather(office.call("ReleaseReservation", id=reservation.id), return_exceptions=True)
            await office.call("SetLimit", scope=TEAM, limit_usd=limit_usd)
            await office.call("ResetBudget", scope=TEAM)
            await office.call("GrantBudget", scope=TEAM, amount_usd=0.01)
            assert (await office.call("Audit")).ok
            await asyncio.sleep(0.1)

    await asyncio.gather(operate(), *(request() for _ in range(REQUESTS)))

    _, held_usd, still_open = await books(office)
    assert (0, 0) == (held_usd, still_open)
    assert 0 < len(answered) < REQUESTS
    assert pytest.approx(COST_NANOUSD * len(answered) / 1e9) == (await budget(office, ORGANIZATION)).spent_usd
