"""Background responses through a real Envoy: what is held is settled by the read that shows what came of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from extauthz.domain.prices import Usage
from tests.support.desk import OTHER_KEY, QUEUED, USAGE, Desk, cost, open_desk, over
from tests.support.processes import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def desk() -> AsyncIterator[Desk]:
    """Run the house, once for all."""
    async with open_desk() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def name(desk: Desk) -> str:
    """Ask for a response in the background, of a name of its own, and give that."""
    name = f"resp_{uuid.uuid4().hex}"
    await desk.ask([name])
    return name


async def test_a_read_that_shows_it_is_under_way_asks_nothing_of_the_store(desk: Desk, name: str) -> None:
    """However often it is polled before it is over, all of it stays held, and nobody looks it up."""
    before = await lookups(desk)
    assert [200] * 10 == await desk.look(*[name] * 10)
    held = await desk.held(name)
    desk.states[name] = over()
    await desk.look(name)
    await desk.until({name: cost(USAGE)})

    assert held > 0
    assert 1 <= await lookups(desk) - before <= 2  # a read may be told of before what it reads was promised


async def test_what_a_stream_has_promised(desk: Desk) -> None:
    """A stream that ends, or breaks off, before its background response is over has promised it as well."""
    name = f"resp_{uuid.uuid4().hex}"
    await desk.ask([name], stream=True)
    held = await desk.held(name)
    desk.states[name] = over()
    await desk.look(name)

    assert held > 0
    await desk.until({name: cost(USAGE)})


@pytest.mark.parametrize(
    ("state", "due"),
    [
        pytest.param(over(), cost(USAGE), id="completed"),
        pytest.param(over(Usage(800, 5), "incomplete"), cost(Usage(800, 5)), id="incomplete"),
        pytest.param(over(Usage(800, 7), "cancelled"), cost(Usage(800, 7)), id="cancelled with usage"),
        pytest.param(over(None, "cancelled"), None, id="cancelled without usage"),
        pytest.param(over(None), None, id="completed without usage"),
        pytest.param(over(None, "failed"), 0, id="failed"),
    ],
)
async def test_what_came_of_it_is_booked(desk: Desk, name: str, state: Mapping[str, object], due: int | None) -> None:
    """A result costs what it used, one that does not say what was held for it, and a failure nothing; and once."""
    held = await desk.held(name)
    desk.states[name] = state
    await desk.look_until({name: held if due is None else due})
    await desk.look(name, name)
    books = await desk.until({name: held if due is None else due})

    assert held > 0
    assert [] == books.mistakes()
    await eventually(lambda: _nothing_promised(desk), what="what was promised is forgotten")


async def test_whoever_reads_it_the_creator_pays(desk: Desk, name: str) -> None:
    """The key that reads is another one, and the cost is that of whoever asked for it."""
    desk.states[name] = over()
    await desk.look(name, key=OTHER_KEY)

    assert [] == (await desk.until({name: cost(USAGE)})).mistakes()


@pytest.mark.parametrize("path", ["/v1/responses/{}?stream=true&starting_after=3", "/openai/v1/responses/{}"])
async def test_it_is_read_in_every_way(desk: Desk, name: str, path: str) -> None:
    """A stream that is taken up again shows the result as well, and so does a read below another prefix."""
    desk.states[name] = over()
    await desk.look(name, path=path)

    await desk.until({name: cost(USAGE)})


@pytest.mark.parametrize("path", ["/v1/files/{}/content", "/v1/files/{}", "/v1/responses/{}/content", "/v1/files/x/{}"])
async def test_what_a_client_may_have_written_is_no_result(desk: Desk, name: str, path: str) -> None:
    """A file that says what a response says settles nothing, whatever its name."""
    held = await desk.held(name)
    desk.states[name] = over(Usage(1, 1))
    assert [200] == await desk.look(name, path=path)
    desk.states[name] = QUEUED
    await desk.look(name)
    desk.states[name] = over()
    await desk.look(name)

    assert held > 0
    await desk.until({name: cost(USAGE)})


async def lookups(desk: Desk) -> float:
    """Tell how often the store was asked for a promise."""
    return (await desk.house.gate.metrics()).value("extauthz_store_duration_seconds_count", "promised")


async def _nothing_promised(desk: Desk) -> bool:
    return await desk.promises() == 0
