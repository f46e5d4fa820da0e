"""Many calls of every kind at once, which end in every way there is: nothing stays held, and each cost what it used.

CHAOS_SEED=… plays a failed run again, CHAOS_ENVOYS=all plays on every Envoy that is supported.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable

import pytest

from tests.support.apis.due import booked
from tests.support.apis.rehearsal import Case, Ending, Rehearsal, Result, rehearsing
from tests.support.apis.sample import Due
from tests.support.apis.samples import SAMPLES
from tests.support.envoy import ENVOY_VERSIONS, EnvoyVersion
from tests.support.processes import eventually
from tests.support.tempest_calls import SEED_VARIABLE, seed

pytestmark = [pytest.mark.envoy, pytest.mark.redis, pytest.mark.chaos]

VERSIONS = ENVOY_VERSIONS if os.environ.get("CHAOS_ENVOYS") == "all" else ENVOY_VERSIONS[-1:]

CALLS = 1_500
# What is only promised is held for a day, and would be in the way of the rest.
KINDS = tuple(sample for sample in SAMPLES if sample.due is not Due.LATER)
ENDINGS = {
    Ending.WHOLE: 40,
    Ending.FAILED: 6,
    Ending.LIMITED: 6,
    Ending.REFUSED: 4,
    Ending.BROKEN: 10,
    Ending.LEFT_AT_ONCE: 6,
    Ending.LEFT_EARLY: 12,
    Ending.LEFT: 16,
}


@pytest.fixture
def chance() -> random.Random:
    """Give what decides the mix, and print its seed, which is shown when the test fails."""
    chosen = seed()
    print(f"{SEED_VARIABLE}={chosen}")  # noqa: T201
    return random.Random(chosen)


def a_storm(chance: random.Random) -> list[Case]:
    """Give calls at random."""
    endings = chance.choices(list(ENDINGS), list(ENDINGS.values()), k=CALLS)
    return [Case(chance.choice(KINDS), ending, number) for number, ending in enumerate(endings, start=1)]


async def holds(stage: Rehearsal) -> dict[str, int]:
    """Tell what each kind of call holds, by its name: which the storm goes by too fast to see."""
    alone = await stage.play(Case(sample, Ending.FAILED) for sample in KINDS)
    return {case.sample.name: result.held for case, result in alone.items()}


def wrong(results: Iterable[Result]) -> list[Result]:
    """Give the calls that were not booked at what they cost. Those that never reached the upstream cost nothing."""
    due = {result: (0, 0) if result.request is None else booked(result) for result in results}
    return [result for result, (least, most) in due.items() if not least <= result.spent <= most]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
async def test_every_call_of_a_storm_costs_what_it_used(version: EnvoyVersion, chance: random.Random) -> None:
    """After messages, responses, pictures and speech in a storm held is 0, and spent is what the upstream served."""
    async with rehearsing(version) as stage:
        results = (await stage.storm(a_storm(chance), await holds(stage))).values()
        books = await stage.books()

    assert [] == wrong(results)
    assert [] == books.mistakes()
    assert not any(books.held.values())
    assert sum(result.spent for result in results) == books.spent["global|lifetime"]
    unheard = [result for result in results if result.request is None]
    assert [] == [result for result in unheard if result.case.ending is not Ending.LEFT_AT_ONCE]


async def test_a_storm_while_the_store_is_away(chance: random.Random) -> None:
    """Calls are refused while the store is away, and those under way are booked when it is back, each at its cost."""
    async with rehearsing(ENVOY_VERSIONS[-1], durable=True) as stage:
        held = await holds(stage)
        storm = asyncio.create_task(stage.storm(a_storm(chance), held))
        await eventually(lambda: len(stage.upstream.over) > CALLS // 3, what="a third of the calls is over")
        await stage.store.kill()
        await stage.store.restart()
        results = (await storm).values()
        books = await stage.books()

    assert [] == wrong(results)
    assert [] == books.mistakes()
    assert not any(books.held.values())
    assert any(result.request is None for result in results)
