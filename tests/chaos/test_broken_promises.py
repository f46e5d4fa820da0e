"""Background responses that are polled once, twice, or never, while the server is killed and the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.support.desk import USAGE, Desk, cost, open_desk, over
from tests.support.processes import eventually
from tests.support.tempest_books import read_books

pytestmark = [pytest.mark.envoy, pytest.mark.redis, pytest.mark.chaos]

EACH = 12
# Long enough for servers to be killed in it, and short enough to be waited for.
LEASE_SECONDS = 20


def named(kind: str) -> list[str]:
    """Give the names of some responses."""
    return [f"resp_{kind}_{number}" for number in range(EACH)]


async def nothing_is_open(desk: Desk) -> bool:
    """Tell whether every reservation has ended."""
    return not (await read_books(desk.store)).open


def spent(due: Mapping[str, int]) -> int:
    """Tell what all of them cost."""
    return sum(due.values())


async def test_the_server_dies_between_promise_and_result() -> None:
    """Whoever polls, however often, and whenever it dies: held is 0, and spent is what the upstream served."""
    once, twice, failed, never, late = map(named, ("once", "twice", "failed", "never", "late"))
    async with open_desk(background_lease_seconds=LEASE_SECONDS) as desk:
        await desk.ask([*once, *twice, *failed, *never, *late])
        estimate = await desk.held(never[0])
        due = {
            **dict.fromkeys([*once, *twice, *late], cost(USAGE)),
            **dict.fromkeys(failed, 0),
            **dict.fromkeys(never, estimate),
        }
        await desk.look(*once, *twice)
        async with desk.another_replica():
            desk.states |= dict.fromkeys([*once, *twice, *late, *never], over())
            desk.states |= dict.fromkeys(failed, over(None, "failed"))
            polling = asyncio.create_task(desk.look(*once, *twice, *twice))
            async with desk.another_replica():
                await polling
                polled = {name: due[name] for name in (*once, *twice, *failed)}
                await desk.look_until(polled)
                await desk.look(*twice)
                await eventually(lambda: nothing_is_open(desk), 2 * LEASE_SECONDS, "leases have ended the rest")
                expired = await desk.until(dict.fromkeys([*never, *late], estimate))
                books = await desk.look_until({name: due[name] for name in late})

    assert 0 < estimate != cost(USAGE)
    assert [] == [*expired.mistakes(), *books.mistakes()]
    assert not any(books.held.values())
    assert spent(due) == sum(amount for counter, amount in books.spent.items() if counter.startswith("end_user:"))


async def test_reads_while_the_store_is_away() -> None:
    """A result that is read while the store is away is booked when it is back, without another read."""
    names = named("read")
    async with open_desk(durable=True) as desk:
        await desk.ask(names)
        desk.states |= dict.fromkeys(names, over())
        await desk.store.kill()
        assert {200} == set(await desk.look(*names))
        await desk.store.restart()
        books = await desk.until(dict.fromkeys(names, cost(USAGE)))

    assert [] == books.mistakes()
