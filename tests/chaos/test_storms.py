"""One thing breaks at a time while many replicas work on one Redis: nothing is booked twice, and nothing stays held.

CHAOS_SEED=… plays a failed run again, CHAOS_ENVOYS=all plays on every Envoy that is supported.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.processes import eventually
from tests.support.tempest import House, house
from tests.support.tempest_calls import SEED_VARIABLE, Tally, Tempest, seed
from tests.support.tempest_faults import FAULTS, Fault
from tests.support.tempest_operators import OPERATIONS

pytestmark = [pytest.mark.envoy, pytest.mark.redis, pytest.mark.chaos]

VERSIONS = ENVOY_VERSIONS if os.environ.get("CHAOS_ENVOYS") == "all" else ENVOY_VERSIONS[-1:]

# Past the lease, the books are at rest in so much time.
SETTLE_SECONDS = 5.0


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Collect a line of each storm, and print them at the end, whether output is captured or not."""
    lines = [f"{'fault':<30} {'Envoy':>6} calls refused reached  exact lost signals audits seconds   seed"]
    yield lines
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", *lines, sep="\n")  # noqa: T201 - this is what the table is for


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("fault", [*FAULTS, *OPERATIONS], ids=str)
async def test_the_books_are_right_after(fault: Fault, version: EnvoyVersion, table: list[str]) -> None:
    """Held is 0, each call cost what the upstream says or its last sign of life, and nothing was booked twice."""
    chosen, started = seed(), time.monotonic()
    print(f"{SEED_VARIABLE}={chosen}")  # noqa: T201 - shown when the test fails
    async with fault.scene() as scene:
        running = house(
            scene.store,
            version,
            replicas=fault.replicas,
            lease_seconds=fault.lease_seconds,
            rules=fault.rules,
            edit=scene.edit,
        )
        async with running as home:
            if isinstance(scene.tool, list):
                for relay, gate in zip(scene.tool, home.gates, strict=True):
                    relay.target = gate.grpc_port
            tempest = Tempest(home, fault.mix, random.Random(chosen))
            await tempest.blow(lambda blowing: fault.strike(blowing, scene))
            await home.empty(fault.lease_seconds + SETTLE_SECONDS)
            tally = await at_last(home, tempest, fault)
    table.append(line(fault, version, tally, time.monotonic() - started, chosen))
    print(*tally.lost, sep="\n")  # noqa: T201

    assert [] == tally.wrong
    assert fault.loses or [] == tally.lost
    assert tally.exact >= tally.reached / 2 > 0


async def at_last(home: House, tempest: Tempest, fault: Fault) -> Tally:
    """Compare the books when nothing more is on its way to them: a busy server may be slower than the lease."""

    async def told() -> Tally | None:
        pages = await asyncio.gather(*(gate.metrics() for gate in home.gates))
        tally = tempest.tally(await home.store.books())
        waiting = any(page.value("extauthz_endings_waiting") for page in pages)
        return None if waiting or (tally.lost and not fault.loses) else tally

    with suppress(AssertionError):  # it says more what was lost
        if (tally := await eventually(told, SETTLE_SECONDS)) is not None:
            return tally
    return tempest.tally(await home.store.books())


def line(fault: Fault, version: EnvoyVersion, tally: Tally, seconds: float, chosen: int) -> str:
    """Write a storm's line of the table."""
    lost = len(tally.lost) + (len(tally.lost_perhaps) if fault.loses else 0)
    share = f"{lost} ({lost / max(1, tally.reached):.1%})"
    return (
        f"{fault.name:<30} {version.name:>6} {tally.calls:5} {tally.refused:7} {tally.reached:7} {tally.exact:6} "
        f"{share:>12} {tally.audits:6} {seconds:7.1f} {chosen:6}"
    )
