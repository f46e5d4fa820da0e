"""Every endpoint of the table through a real Envoy, whole, streamed, failed, given up: booked is what it cost.

What an answer cost is computed from what the upstream says it served and the prices in the configuration
(tests/support/apis), not with the code that is under test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest
import pytest_asyncio

from extauthz.domain.endpoints import DISCOVERY, ENDPOINTS, Endpoint, EndpointRow
from tests.support.apis import paths
from tests.support.apis.due import booked, given_up_at, whole
from tests.support.apis.priced import PRICED, UNFORESEEN
from tests.support.apis.prices import PRICES
from tests.support.apis.promises import PROMISES, Promise
from tests.support.apis.rehearsal import Case, Ending, Rehearsal, Result, rehearsing
from tests.support.apis.sample import Due
from tests.support.apis.samples import SAMPLES, TEXTS, TURNS
from tests.support.apis.used import bill
from tests.support.envoy import ENVOY_VERSIONS, NEWEST_ENVOY
from tests.support.processes import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.redis, pytest.mark.asyncio(loop_scope="module")]

CASES = tuple(Case(sample, ending) for sample in SAMPLES for ending in Ending if ending is not Ending.LEFT_AT_ONCE)
UNREAD = (Ending.LEFT_EARLY, Ending.BROKEN)
PATHS = {row: tuple(Case(sample, Ending.WHOLE) for sample in paths.calls(row)) for row in paths.ROWS}

GIVEN_UP = (Ending.LEFT, Ending.LEFT_EARLY, Ending.BROKEN)

Results = Mapping[Case, Result]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENVOY_VERSIONS, ids=lambda version: version.name)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Rehearsal]:
    """Run the house, once for all calls."""
    async with rehearsing(request.param) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def results(stage: Rehearsal) -> Results:
    """Play every case, all at once."""
    return await stage.play(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_call_costs_what_it_used(results: Results, case: Case) -> None:
    """Each call reached the upstream, held money there if it costs any, and was booked at what it used."""
    result = results[case]
    least, most = booked(result)

    assert result.request is not None, result.received
    assert (result.held > 0) is (case.sample.due is not Due.NOTHING)
    assert least <= result.spent <= most, result
    assert len(result.entries) <= 1


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_nothing_stays_held(results: Results, case: Case) -> None:
    """When a call is over nothing of it is held, unless its answer only promised another."""
    result = results[case]
    promised = case.sample.due is Due.LATER and case.ending is Ending.WHOLE

    assert (result.held if promised else 0) == result.held_after


@pytest.mark.parametrize("case", [case for case in CASES if case.ending not in UNREAD], ids=str)
async def test_an_answer_passes_unchanged(results: Results, case: Case) -> None:
    """The client gets the upstream's bytes; only an event that it did not ask for is taken out of its stream."""
    result = results[case]
    assert result.request is not None
    wire = case.wire(result.request)
    pieces = wire.half if case.ending is Ending.LEFT else wire.pieces
    usage_only = [piece for piece in pieces if b'"choices":[]' in piece.data]

    assert wire.status == result.status
    assert b"".join(piece.data for piece in pieces if piece not in usage_only) == result.received


async def test_the_price_is_that_of_who_answered_and_how(stage: Rehearsal) -> None:
    """Length, tier, the model that answered, searches, and what each call costs count as the answer says."""
    played = await stage.play(Case(sample, Ending.WHOLE) for sample in PRICED)

    assert {str(case): whole(case.sample, result.held) for case, result in played.items()} == {
        str(case): result.spent for case, result in played.items()
    }


async def test_a_free_call_that_a_paid_model_answered_is_booked(stage: Rehearsal) -> None:
    """Nothing is held for a model that is free; when another answers that is not, its price is booked and counted."""
    case = Case(UNFORESEEN, Ending.WHOLE)
    played = await stage.play([case])
    await eventually(lambda: stage.spent(case.counter), what="the answer is booked")
    metrics = await stage.house.gate.metrics()

    assert 0 == played[case].held
    assert whole(UNFORESEEN, 0) == await stage.spent(case.counter)
    assert 1 == metrics.value("extauthz_free_answers_paid_total")


@pytest.mark.parametrize("row", paths.ROWS, ids=lambda row: f"{row.endpoint} {row.api} {row.paths[0]} {row.methods[0]}")
async def test_every_path_is_the_same_call(stage: Rehearsal, row: EndpointRow) -> None:
    """A path of the table costs the same below every prefix, by each of its methods, and with the model in it."""
    cases = PATHS[row]
    played = await stage.play(cases)
    due = {str(case): whole(case.sample, played[case].held) for case in cases}

    assert all(result.request is not None for result in played.values()), [
        (str(case), result.received) for case, result in played.items() if result.request is None
    ]
    assert due == {str(case): result.spent for case, result in played.items()}


async def test_every_row_has_its_samples() -> None:
    """Each row of the table is called here, and each that streams as a stream."""
    rows = [row for row in ENDPOINTS if row.endpoint not in DISCOVERY and row.endpoint is not Endpoint.REALTIME]
    called = {(sample.endpoint, sample.api) for sample in SAMPLES}
    streamed = {(sample.endpoint, sample.api) for sample in SAMPLES if sample.streamed}

    assert {(row.endpoint, row.api) for row in rows} == called
    assert {(row.endpoint, row.api) for row in rows if row.streams} == streamed


@pytest.mark.parametrize("promise", PROMISES, ids=str)
async def test_what_was_promised_is_booked_when_it_is_seen(stage: Rehearsal, promise: Promise) -> None:
    """A promise is held until somebody sees what came of it, which is then booked for whoever asked, and once."""
    case, look = promise.case, promise.look
    asked = (await stage.play([case]))[case]
    looks = await stage.play([look])
    await stage.at_rest([case])
    looks |= await stage.play([replace(look, number=1)])

    assert asked.held == asked.held_after > 0
    assert (0, promise.due) == (await stage.held(case.counter), await stage.spent(case.counter))
    assert 0 == sum(result.spent for result in looks.values())


@pytest.mark.parametrize("rule", ["reserved", "input", "zero"])
async def test_a_call_that_is_given_up_costs_what_the_rule_says(rule: str) -> None:
    """Other rules than the default: all that was held, its input, or nothing, whatever was delivered."""
    given_up = [
        Case(sample, ending)
        for sample in TEXTS
        if sample.due is Due.BILL
        # The first half of a document may tell of its finish, and is then as good as the whole.
        for ending in (GIVEN_UP if sample.streamed else (Ending.LEFT_EARLY,))
    ]
    async with rehearsing(NEWEST_ENVOY, rules=f"on_abort: {rule}\n  on_abort_unary: {rule}") as stage:
        played = await stage.play(given_up)

    due = {str(case): given_up_at(rule, case.sample, result.held) for case, result in played.items()}
    assert due == {str(case): result.spent for case, result in played.items()}


async def test_a_conversation_is_paid_turn_by_turn(stage: Rehearsal) -> None:
    """A realtime conversation is held while it lasts, and costs what its turns used."""
    talk = await stage.talk("talk", turns=len(TURNS))

    assert talk.held > 0
    assert sum(bill(turn, PRICES["omni"]) for turn in TURNS) == talk.spent
