"""Exhausted counters on a real Redis: for a second nobody asks it, and what is given back counts soon after."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from extauthz.domain.budgets import Spent, Standing
from extauthz.domain.reservation import Claim
from extauthz.ledger.base import Amendment, AmendmentKind, Ending, Refused, Reserved
from extauthz.ledger.redis import RedisLedger, RedisOptions
from extauthz.ledger.refusals import KEPT_S_MAX
from tests.support.inspection import SHORT, TEAM, ask, calls, expired
from tests.support.ledger import redis_ledger
from tests.support.processes import eventually
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

TAG = "refusals"
OPTIONS = RedisOptions(timeout_s=5.0)
CLAIM = Claim(TEAM, 1000, 100)


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    """Open a ledger that keeps refusals as long as the service does."""
    async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as opened:
        yield opened


async def exhaust(ledger: RedisLedger) -> None:
    """Spend all that the team has, and be refused for it."""
    spent = ask("spent", CLAIM)
    await ledger.reserve(spent)
    await ledger.settle(spent.hold, Spent(1000))

    assert Refused(Standing(TEAM, 1000, 1000, 0)) == await ledger.reserve(ask("first", CLAIM))


async def test_an_exhausted_counter_costs_the_store_nothing(server: RedisServer, ledger: RedisLedger) -> None:
    """One refusal is the store's, and those in the second after it are the same; then it is asked again."""
    await exhaust(ledger)
    before = await calls(server)
    refused = {await ledger.reserve(ask(f"r{number}", CLAIM)) for number in range(50)}
    meanwhile = await calls(server) - before

    async def asked() -> bool:
        await ledger.reserve(ask("later", CLAIM))
        return await calls(server) > before + meanwhile

    assert {Refused(Standing(TEAM, 1000, 1000, 0))} == refused
    assert meanwhile <= 1  # one at most where fifty took more than a second
    await eventually(asked, what="the store is asked again")


async def test_what_is_held_is_asked_for_each_time(ledger: RedisLedger) -> None:
    """Who is refused because of others' open reservations gets the money as soon as one has ended."""
    held = ask("held", Claim(TEAM, 1000, 1000))
    await ledger.reserve(held)

    assert Refused(Standing(TEAM, 1000, 0, 1000)) == await ledger.reserve(ask("first", CLAIM))

    await ledger.release(held.hold.id)

    assert Reserved(900) == await ledger.reserve(ask("second", CLAIM))


async def test_a_change_by_hand_counts_at_once(ledger: RedisLedger) -> None:
    """In the process that makes it."""
    await exhaust(ledger)
    await ledger.amend(Amendment("a", AmendmentKind.GRANT, TEAM, 500, "ops"))

    assert Reserved(400) == await ledger.reserve(ask("second", CLAIM))


async def test_a_change_by_another_process_counts_within_a_second(server: RedisServer, ledger: RedisLedger) -> None:
    """No more is waited for it than refusals are kept."""
    await exhaust(ledger)
    async with redis_ledger(server.url, options=OPTIONS, tag=TAG) as other:
        await other.amend(Amendment("a", AmendmentKind.RESET, TEAM, None, "ops"))

    async def passes() -> bool:
        return isinstance(await ledger.reserve(ask("second", CLAIM)), Reserved)

    await eventually(passes, 2 * KEPT_S_MAX, "the reset counts")


async def test_a_late_settle_gives_back_what_the_lease_had_booked(ledger: RedisLedger) -> None:
    """It is the only ending after which a counter has less on it than before."""
    slow = ask("slow", CLAIM, lease=SHORT)
    await ledger.reserve(slow)
    await expired(ledger)
    spent = ask("spent", CLAIM)
    await ledger.reserve(spent)
    await ledger.settle(spent.hold, Spent(980))

    assert isinstance(await ledger.reserve(ask("first", CLAIM)), Refused)
    assert Ending.LATE == await ledger.settle(slow.hold, Spent(10))
    assert Reserved(0) == await ledger.reserve(ask("second", CLAIM))
