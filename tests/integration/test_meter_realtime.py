"""Sessions by WebSocket through a real Envoy: what is told of them while they last, and when somebody closes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
import pytest
import pytest_asyncio

from extauthz.adapters.access_log import outcome_of
from extauthz.booking import Outcome
from tests.support.envoy import ENVOY_VERSIONS
from tests.support.metered_sessions import (
    FIRST_TRUTH,
    FIRST_TURN,
    SECOND_TURN,
    SESSION_CREATED,
    SESSION_TRUTH,
    TURN_CREATED,
)
from tests.support.processes import eventually
from tests.support.realtime import BREAK, CLOSE, RealtimeUpstream, converse
from tests.support.scene import Scene, set_scene
from tests.support.stage import Exchange, Performance

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

FIRST = (SESSION_CREATED, *FIRST_TURN)


@dataclass(frozen=True, slots=True)
class House:
    """A stage with an Envoy in front of a Realtime API."""

    scene: Scene
    upstream: RealtimeUpstream

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, Performance]]:
        """Open a session as a client does that offers compression."""
        performance = self.scene.stage.begin(Exchange((), method="GET", path="/v1/realtime"))
        url = f"{self.scene.envoy.url}/v1/realtime?model=gpt-realtime&exchange={performance.number}"
        async with aiohttp.ClientSession() as client, client.ws_connect(url, compress=15) as session:
            yield session, performance


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """Give a house with an Envoy of each version."""
    async with RealtimeUpstream() as upstream, set_scene(request.param, upstream.port) as scene:
        yield House(scene, upstream)


async def test_the_turns_of_a_session_are_told_at_its_end(house: House) -> None:
    """A client that closes a session after two turns has used the sum of both, and no more is open."""
    async with house.session() as (session, performance):
        await converse(session, FIRST)
        await converse(session, SECOND_TURN)

    assert SESSION_TRUTH == await performance.usage()


@pytest.mark.parametrize("how", [CLOSE, BREAK])
async def test_a_session_that_the_upstream_ends_is_told_as_well(house: House, how: str) -> None:
    """Whoever closes it, and however, what was seen counts."""
    async with house.session() as (session, performance):
        await converse(session, FIRST)
        await session.send_str(how)
        assert (await session.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    assert FIRST_TRUTH == await performance.usage()


async def test_a_client_that_vanishes_has_used_what_was_seen(house: House) -> None:
    """A connection that is cut between two turns ends a session as a close does."""
    async with house.session() as (session, performance):
        await converse(session, FIRST)
        assert session._response.connection is not None
        assert session._response.connection.transport is not None
        session._response.connection.transport.abort()
        assert FIRST_TRUTH == await performance.usage()
        assert performance.ended is not None
        assert Outcome.ABORTED is outcome_of(performance.ended)


async def test_a_turn_that_is_left_is_not_finished(house: House) -> None:
    """Whoever leaves before the end of a turn may owe more than what was reported."""
    async with house.session() as (session, performance):
        await converse(session, (*FIRST, TURN_CREATED))

    usage = await performance.usage()
    assert {**FIRST_TRUTH, "events": 6, "finished": False} == {**usage, "finished": usage.get("finished", False)}


async def test_a_living_session_tells_its_totals(house: House) -> None:
    """Between two turns the periodic entries say what was used so far, so that an expiry would book it."""
    async with house.session() as (session, performance):
        await converse(session, FIRST)
        await eventually(lambda: FIRST_TRUTH in performance.progress, what="a periodic entry")
        await converse(session, SECOND_TURN)
        await eventually(lambda: SESSION_TRUTH in performance.progress, what="another periodic entry")


async def test_no_frame_is_compressed(house: House) -> None:
    """What the client offers does not reach the upstream, so that both agree on plain frames."""
    async with house.session() as (session, _):
        await converse(session, FIRST)
        assert session.compress == 0

    assert "sec-websocket-extensions" not in house.upstream.upgrades[-1]


async def test_only_get_opens_a_session(house: House) -> None:
    """A body that follows a request to upgrade would never be seen by the Check: Envoy refuses it."""
    performance = house.scene.stage.begin(Exchange(()))
    url = f"{house.scene.envoy.url}/v1/realtime?exchange={performance.number}"
    headers = {"connection": "upgrade", "upgrade": "websocket"}
    async with aiohttp.ClientSession() as client, client.post(url, json={"model": "m"}, headers=headers) as answer:
        assert HTTPStatus.FORBIDDEN == answer.status
    assert not performance.check.attributes.request.http.method
