"""A rolling upgrade under load, in real pods: nobody notices."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.demo.story import PAID
from tests.support.processes import eventually
from tests.support.real_house import Installed, configured, key_of
from tests.support.real_load import Load
from tests.support.real_pods import GATES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

REQUESTS_PER_SECOND = 100
LEAVE_SECONDS_MAX = 90.0


async def test_an_upgrade_under_load_fails_no_request(release: Installed) -> None:
    """While both replicas are replaced under 100 requests a second, each is answered, and is booked once."""
    before = release.gates
    load = Load(release.house.url, key_of("crowd"), PAID, REQUESTS_PER_SECOND)
    async with load.running():
        await eventually(lambda: load.answers["200"] > REQUESTS_PER_SECOND, what="the load runs")
        await asyncio.to_thread(release.upgrade, {**configured(), "podAnnotations": {"rolled": "1"}})

        async def left() -> bool:
            there = await asyncio.to_thread(release.namespace.pods, GATES, leaving=True)
            return not before.keys() & there.keys()

        await eventually(left, LEAVE_SECONDS_MAX, "the old replicas are gone")

    assert not before.keys() & release.gates.keys()
    assert {"200": load.answers.total()} == dict(load.answers)
    assert load.answers.total() > 10 * REQUESTS_PER_SECOND
    await release.balanced()
